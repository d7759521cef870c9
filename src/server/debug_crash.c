/* debug_crash.c: DEBUG's ways to end or restart the process, for tests of what survives. */
#include "server/debug.h"

#include "base/crash.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/conn.h"
#include "server/shutdown.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

/* A true fault: writes where nobody may. */
void debug_segfault(struct call *c)
{
    volatile char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) *page = 'x';
    resp_error(&c->out, "ERR no memory to write to");
}

void debug_panic(struct call *c)
{
    (void)c;
    crash_panic(__FILE__, __LINE__, "called by DEBUG PANIC");
}

void debug_assert(struct call *c)
{
    assert(c->argc == 0 && "DEBUG ASSERT");
    (void)c;
}

void debug_oom(struct call *c)
{
    mem_free(mem_alloc(SIZE_MAX / 2)); /* does not return */
    resp_ok(&c->out);
}

/* The arguments that this process was started with; NULL: not to be had. Owned by the caller for the rest of its life.
 */
static char **arguments(struct buf *text)
{
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return NULL;
    for (ssize_t got = 1; got > 0; text->n += got > 0 ? (size_t)got : 0) {
        buf_reserve(text, 4096);
        got = read(fd, text->p + text->n, 4096);
    }
    close(fd);
    buf_append_char(text, '\0');
    size_t count = 0;
    char **argv = mem_calloc(text->n + 1, sizeof *argv);
    for (size_t i = 0; i + 1 < text->n; i += strlen(text->p + i) + 1) argv[count++] = text->p + i;
    return argv;
}

/* With the server at rest.  Descriptors close themselves; returns only if it cannot be done. */
static void start_anew(void)
{
    struct buf text = {0};
    char **argv = arguments(&text);
    sigset_t none;
    sigemptyset(&none);
    if (argv) {
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        execv("/proc/self/exe", argv);
    }
    log_warning("Restart failed: %s", strerror(errno));
    mem_free(argv);
    buf_deinit(&text);
}

static void restart(struct call *c, bool orderly)
{
    int64_t delay_ms = 0;
    if (c->argc > 2 && !call_arg_i64(c, 2, &delay_ms, NULL)) return;
    if (!call_exclusive(c) || debug_loading(c)) return;
    struct node *n = node_of(c);
    log_warning("Restart asked for by DEBUG %s", orderly ? "RESTART" : "CRASH-AND-RECOVER");
    if (orderly) {
        enum status st = config_rewrite(n->config, false);
        if ((st != OK && st != E_NOT_FOUND) || !shutdown_prepare(n)) {
            resp_error(&c->out, "ERR failed to restart the server. Check server logs.");
            return;
        }
    }
    debug_sleep_seconds((double)delay_ms / 1000);
    start_anew();
    /* The files are closed for good by now, so going on would be half a server. */
    exit(1);
}

void debug_restart(struct call *c)
{
    restart(c, true);
}

void debug_crash_and_recover(struct call *c)
{
    restart(c, false);
}
