#include "base/crash.h"

#include "base/log.h"
#include "base/version.h"

#include <assert.h>
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { FRAMES_MAX = 100, STACK_SIZE = 64 * 1024 };

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
enum { SIGNALS = sizeof signals / sizeof *signals };

static struct sigaction before[SIGNALS];
static bool installed;
static _Atomic long reporter; /* the thread that writes the report; 0: none */
static void (*describe_more)(const void *ctx);
static const void *describe_ctx;

/* ---- writing ---- */

static void put_bytes(const char *p, size_t n)
{
    while (n) {
        ssize_t put = write(log_descriptor(), p, n);
        if (put < 0 && errno != EINTR) return; /* nowhere left to complain */
        if (put > 0) p += put, n -= (size_t)put;
    }
}

void crash_put(const char *text)
{
    put_bytes(text, strlen(text));
}

void crash_put_number(uint64_t n, unsigned base)
{
    char digits[24];
    size_t at = sizeof digits;
    do digits[--at] = "0123456789abcdef"[n % base];
    while ((n /= base) && at);
    put_bytes(digits + at, sizeof digits - at);
}

static void put_hex(const char *name, uint64_t n)
{
    crash_put(name);
    crash_put_number(n, 16);
}

/* Lines as redis-server's handlers begin them: the date takes calls that are not safe here. */
static void put_head(void)
{
    crash_put_number((uint64_t)getpid(), 10);
    crash_put(":signal-handler (");
    crash_put_number((uint64_t)time(NULL), 10);
    crash_put(") ");
}

/* ---- the report ---- */

static const char *signal_name(int sig)
{
    static const char *const names[SIGNALS] = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"};
    for (int i = 0; i < SIGNALS; i++)
        if (signals[i] == sig) return names[i];
    return "?";
}

static void put_signal(int sig, const siginfo_t *info)
{
    put_head();
    crash_put("Covey " COVEY_VERSION " crashed by signal: ");
    crash_put_number((uint64_t)sig, 10);
    crash_put(" (");
    crash_put(signal_name(sig));
    crash_put("), si_code: ");
    if (info->si_code < 0) crash_put("-");
    crash_put_number((uint64_t)llabs((long long)info->si_code), 10);
    crash_put("\n");
    put_head();
    if (info->si_code > 0) {
        put_hex("Accessing address: 0x", (uintptr_t)info->si_addr);
    } else {
        crash_put("Sent by process ");
        crash_put_number((uint64_t)info->si_pid, 10);
        crash_put(info->si_pid == getpid() ? " (this one), user " : ", user ");
        crash_put_number(info->si_uid, 10);
    }
    crash_put("\n");
}

static void put_registers(const ucontext_t *u)
{
#if defined(__x86_64__)
    static const struct {
        const char *name;
        int at;
    } registers[] = {{"rip ", REG_RIP},  {" rsp ", REG_RSP},   {" rbp ", REG_RBP}, {" rax ", REG_RAX},
                     {" rbx ", REG_RBX}, {"\nrcx ", REG_RCX},  {" rdx ", REG_RDX}, {" rsi ", REG_RSI},
                     {" rdi ", REG_RDI}, {" r8 ", REG_R8},     {"\nr9 ", REG_R9},  {" r10 ", REG_R10},
                     {" r11 ", REG_R11}, {" r12 ", REG_R12},   {" r13 ", REG_R13}, {"\nr14 ", REG_R14},
                     {" r15 ", REG_R15}, {" eflags ", REG_EFL}};
    for (size_t i = 0; i < sizeof registers / sizeof *registers; i++)
        put_hex(registers[i].name, (uint64_t)u->uc_mcontext.gregs[registers[i].at]);
#elif defined(__aarch64__)
    put_hex("pc ", u->uc_mcontext.pc);
    put_hex(" sp ", u->uc_mcontext.sp);
    for (unsigned i = 0; i < 31; i++) {
        crash_put(i % 5 ? " x" : "\nx");
        crash_put_number(i, 10);
        put_hex(" ", u->uc_mcontext.regs[i]);
    }
#else
    (void)u;
#endif
    crash_put("\n");
}

static void put_frames(void)
{
    void *frames[FRAMES_MAX];
    int n = backtrace(frames, FRAMES_MAX);
    backtrace_symbols_fd(frames, n, log_descriptor());
}

static void put_thread(void)
{
    char name[16] = "";
    (void)pthread_getname_np(pthread_self(), name, sizeof name); /* of one's own thread: a system call and no more */
    put_head();
    crash_put("Thread: ");
    crash_put(name);
    crash_put("\n");
}

static void report(int sig, const siginfo_t *info, const ucontext_t *u)
{
    crash_put("\n\n=== COVEY BUG REPORT START: Cut & paste starting from here ===\n");
    put_signal(sig, info);
    put_thread();
    if (describe_more) describe_more(describe_ctx);
    crash_put("\n------ STACK TRACE ------\n");
    put_frames();
    crash_put("\n------ REGISTERS ------\n");
    put_registers(u);
    crash_put("\n=== COVEY BUG REPORT END. Make sure to include from START to END. ===\n\n");
}

/* Faults come again when the handler returns; what was sent has to be sent again. */
static void handle(int sig, siginfo_t *info, void *context)
{
    long nobody = 0, self = syscall(SYS_gettid);
    if (atomic_compare_exchange_strong(&reporter, &nobody, self))
        report(sig, info, context);
    else if (nobody != self)
        for (;;) pause(); /* another thread's report ends the process */
    for (int i = 0; i < SIGNALS; i++)
        if (signals[i] == sig) sigaction(sig, &before[i], NULL);
    if (info->si_code <= 0 || sig == SIGABRT) raise(sig);
}

/* ---- the rest ---- */

void crash_reports(bool on)
{
    void *frame[1];
    if (on == installed) return;
    installed = on;
    (void)backtrace(frame, 1); /* the first call loads a library, which a handler must not */
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < SIGNALS; i++) {
        if (on)
            sigaction(signals[i], &action, &before[i]);
        else
            sigaction(signals[i], &before[i], NULL);
    }
}

void crash_describe(void (*describe)(const void *ctx), const void *ctx)
{
    describe_ctx = ctx;
    describe_more = describe;
}

void crash_thread_stack(void)
{
    stack_t now;
    if (sigaltstack(NULL, &now) || !(now.ss_flags & SS_DISABLE)) return; /* a sanitizer has brought one */
    void *p = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (p == MAP_FAILED) return;
    stack_t mine = {.ss_sp = p, .ss_size = STACK_SIZE};
    if (sigaltstack(&mine, NULL)) munmap(p, STACK_SIZE);
}

void crash_panic(const char *file, int line, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_warning("Guru Meditation: %s #%s:%d", text, file, line);
    abort();
}

/* Instead of the C library's, which writes to standard error alone: that is nowhere for a daemon. */
void __assert_fail(const char *expr, const char *file, unsigned line, const char *function)
{
    log_warning("=== ASSERTION FAILED ===");
    log_warning("==> %s:%u (%s) '%s' is not true", file, line, function, expr);
    abort();
}
