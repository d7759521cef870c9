/* nutcracker.h: nutcracker's options, as `covey proxy`'s settings. */
#ifndef COVEY_PROXY_NUTCRACKER_H
#define COVEY_PROXY_NUTCRACKER_H

#include <stdbool.h>

struct nutcracker_call {
    char **argv; /* of the settings; owned, its words are borrowed */
    int argc;
    const char *conf;
    bool help, version, test, describe;
    bool has_log, has_pidfile; /* named by an option or a setting */
};

/* Words that are settings with a value (`--maxclients 100`) stay as they are.  by_name: the program is called as
 * nutcracker, and has one worker unless told otherwise, and Debian's places for its files where there is no
 * conf/nutcracker.yml.  False: standard error says why. */
bool nutcracker_options(int argc, char **argv, bool by_name, struct nutcracker_call *out);
void nutcracker_call_deinit(struct nutcracker_call *c);
extern const char nutcracker_usage[];

#endif
