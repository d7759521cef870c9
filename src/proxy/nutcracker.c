#include "proxy/nutcracker.h"

#include "base/mem.h"
#include "proxy/front/config.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MBUF_MIN = 512, MBUF_MAX = 16 * 1024 * 1024, MORE_WORDS = 64 };

const char nutcracker_usage[] =
    "Usage: nutcracker [options], or covey proxy --pool FILE [options]\n\n"
    "  -h, --help              this text\n"
    "  -V, --version           the version\n"
    "  -t, --test-conf         read the configuration, say whether it is good, and exit\n"
    "  -d, --daemonize         run in the background\n"
    "  -D, --describe-stats    what the statistics mean\n"
    "  -v, --verbose=N         0 to 11: up to 4 warnings, 5 notices (default), 6 and 7 more, from 8 everything\n"
    "  -o, --output=FILE       the log (default: standard output; see below)\n"
    "  -c, --conf-file=FILE    the configuration (default: conf/nutcracker.yml; see below)\n"
    "  -s, --stats-port=N      port of the statistics (default: 22222)\n"
    "  -a, --stats-addr=ADDR   address of the statistics (default: 0.0.0.0)\n"
    "  -i, --stats-interval=N  accepted; statistics are always those of the moment\n"
    "  -p, --pid-file=FILE     where the process id goes (default: nowhere; see below)\n"
    "  -m, --mbuf-size=N       accepted (512 to 16777216); buffers have the size they need\n\n"
    "Without -c, and where there is no conf/nutcracker.yml, it is /etc/nutcracker/nutcracker.yml, as in Debian; then "
    "the log is\n"
    "/var/log/nutcracker/nutcracker.log and the process id goes to /run/nutcracker/nutcracker.pid, if these "
    "directories can be written.\n"
    "The settings of `covey proxy` are options too, with two dashes and a value behind (`covey proxy --help`).\n"
    "SIGHUP reads the configuration again and opens the log anew, without closing a connection.\n";

static int whole_number(const char *text)
{
    char *end;
    if (*text < '0' || *text > '9') return -1;
    errno = 0;
    long n = strtol(text, &end, 10);
    return *end || errno || n > INT_MAX ? -1 : (int)n;
}

static bool check_number(int c, const char *text)
{
    int n = whole_number(text);
    if (n < 0)
        fprintf(stderr, "nutcracker: option -%c requires a number\n", c);
    else if ((c == 's' && (n < 1 || n > 65535)) || (c == 'm' && (n < MBUF_MIN || n > MBUF_MAX)))
        fprintf(stderr, "nutcracker: option -%c has a value out of its range\n", c);
    else
        return true;
    return false;
}

static void give(struct nutcracker_call *o, const char *name, const char *value)
{
    o->argv[o->argc++] = (char *)name;
    o->argv[o->argc++] = (char *)value;
}

static bool read_option(struct nutcracker_call *o, int c)
{
    switch (c) {
    case 'h': o->help = true; return true;
    case 'V': o->version = true; return true;
    case 't': o->test = true; return true;
    case 'D': o->describe = true; return true;
    case 'd': give(o, "--daemonize", "yes"); return true;
    case 'o':
        o->has_log = true;
        give(o, "--logfile", optarg);
        return true;
    case 'a': give(o, "--stats-addr", optarg); return true;
    case 'p':
        o->has_pidfile = true;
        give(o, "--pidfile", optarg);
        return true;
    case 'c': o->conf = optarg; return true;
    case 'v':
        if (!check_number(c, optarg)) return false;
        give(o, "--loglevel", optarg);
        return true;
    case 's':
        if (!check_number(c, optarg)) return false;
        give(o, "--stats-port", optarg);
        return true;
    case 'i':
    case 'm': return check_number(c, optarg);
    default: return false; /* getopt has said why */
    }
}

static bool read_options(struct nutcracker_call *o, int argc, char **argv)
{
    static const struct option names[] = {{"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"test-conf", no_argument, NULL, 't'},
                                          {"daemonize", no_argument, NULL, 'd'},
                                          {"describe-stats", no_argument, NULL, 'D'},
                                          {"verbose", required_argument, NULL, 'v'},
                                          {"output", required_argument, NULL, 'o'},
                                          {"conf-file", required_argument, NULL, 'c'},
                                          {"stats-port", required_argument, NULL, 's'},
                                          {"stats-interval", required_argument, NULL, 'i'},
                                          {"stats-addr", required_argument, NULL, 'a'},
                                          {"pid-file", required_argument, NULL, 'p'},
                                          {"mbuf-size", required_argument, NULL, 'm'},
                                          {"pool", required_argument, NULL, 'c'},
                                          {NULL, 0, NULL, 0}};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "hVtdDv:o:c:s:i:a:p:m:", names, NULL)) != -1;)
        if (!read_option(o, c)) return false;
    return true;
}

/* `--name value` of a setting that nutcracker has no option for, or means something else by. */
static bool is_setting(const char *word, const char *value)
{
    if (strncmp(word, "--", 2) != 0 || !value || !proxy_config_knows(bytes_of(word + 2))) return false;
    if (strcmp(word, "--daemonize") == 0) return strcmp(value, "yes") == 0 || strcmp(value, "no") == 0;
    return strcmp(word, "--pool") != 0 && strncmp(word, "--stats-", 8) != 0;
}

static bool can_write(const char *directory)
{
    return access(directory, W_OK | X_OK) == 0;
}

/* Debian's nutcracker was built with these places, and its service is started without an option. */
static void debian_places(struct nutcracker_call *o)
{
    o->conf = "/etc/nutcracker/nutcracker.yml";
    if (o->test) return;
    if (!o->has_log && can_write("/var/log/nutcracker")) give(o, "--logfile", "/var/log/nutcracker/nutcracker.log");
    if (!o->has_pidfile && can_write("/run/nutcracker")) give(o, "--pidfile", "/run/nutcracker/nutcracker.pid");
}

bool nutcracker_options(int argc, char **argv, bool by_name, struct nutcracker_call *out)
{
    *out = (struct nutcracker_call){0};
    out->argv = mem_calloc((size_t)argc * 2 + MORE_WORDS, sizeof(char *));
    char **rest = mem_calloc((size_t)argc + 1, sizeof(char *));
    int i = 1, rest_n = 1;
    bool workers = !by_name;
    rest[0] = (char *)"nutcracker";
    out->argv[out->argc++] = argv[0];
    if (!by_name && argc > 1 && argv[1][0] != '-') out->argv[out->argc++] = argv[i++];
    for (; i < argc; i++) {
        if (!is_setting(argv[i], i + 1 < argc ? argv[i + 1] : NULL)) {
            rest[rest_n++] = argv[i];
            continue;
        }
        workers |= strcmp(argv[i], "--workers") == 0;
        out->has_log |= strcmp(argv[i], "--logfile") == 0;
        out->has_pidfile |= strcmp(argv[i], "--pidfile") == 0;
        give(out, argv[i], argv[i + 1]);
        i++;
    }
    bool good = read_options(out, rest_n, rest);
    mem_free(rest);
    if (!out->conf) {
        out->conf = "conf/nutcracker.yml";
        if (by_name && access(out->conf, F_OK) != 0 && access("/etc/nutcracker/nutcracker.yml", F_OK) == 0)
            debian_places(out);
    }
    if (!workers) give(out, "--workers", "1");
    give(out, "--pool", out->conf);
    return good;
}

void nutcracker_call_deinit(struct nutcracker_call *c)
{
    mem_free(c->argv);
}
