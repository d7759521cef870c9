/* access.h: users (src/acl) and the table of commands put together: which keys and channels a request touches, the ACL
 * file, and what the read-only half of ACL replies.  For whatever program has users and commands.
 * Threads: as src/acl says: nobody reads a table of users that somebody changes. */
#ifndef COVEY_ACCESS_ACCESS_H
#define COVEY_ACCESS_ACCESS_H

#include "acl/acl.h"
#include "commands/table.h"
#include "resp/resp.h"

/* The table of commands as src/acl wants it.  Constant. */
const struct acl_commands *access_commands(void);

/* ---- checks ---- */

enum { ACCESS_REFUSAL_MAX = 128 };

/* Whether the user may run this request; its arity is right.  *arg (may be asked for): the argument that was refused,
 * 0 for the command itself. */
enum acl_verdict access_verdict(const struct acl_user *u, const struct command *cmd, const struct bytes *argv,
                                size_t argc, size_t *arg);
/* Whether the user may read every key by this command: for SORT's BY and GET. */
bool access_reads_all_keys(const struct acl_user *u, const struct command *cmd, const struct bytes *argv, size_t argc);
/* The error for a verdict, without '-', perhaps in `text`; NULL for ACL_ALLOWED. */
const char *access_refusal(enum acl_verdict v, const struct command *cmd, char text[ACCESS_REFUSAL_MAX]);

/* ---- text ---- */

/* The lines of an ACL file into a fresh table.  False: *errors says what is wrong with them. */
bool access_parse_file(struct acl *a, const char *path, struct bytes text, struct buf *errors);
/* Reads and parses; false: *errors says what. */
bool access_read_file(struct acl *a, const char *path, struct buf *errors);
/* Writes all users, replacing the file in one step; false: errno, logged. */
bool access_write_file(const struct acl *a, const char *path);
/* "user <name> <rules>", without a line feed. */
void access_line(const struct acl *a, const struct acl_user *u, struct buf *out);
/* Such a line for every user by name, with its line feed. */
void access_lines(const struct acl *a, struct buf *out);

/* ---- replies of ACL's subcommands; argv is the whole request, its arity is right ---- */

void access_reply_users(struct resp_out *o, const struct acl *a);
void access_reply_list(struct resp_out *o, const struct acl *a);
void access_reply_getuser(struct resp_out *o, const struct acl *a, struct bytes name);
void access_reply_cat(struct resp_out *o, const struct bytes *argv, size_t argc);
void access_reply_genpass(struct resp_out *o, const struct bytes *argv, size_t argc);
void access_reply_log(struct resp_out *o, struct acl_log *log, const struct bytes *argv, size_t argc, int64_t now_ms);
/* cmd: what argv[3] and the following call; NULL: there is no such command. */
void access_reply_dryrun(struct resp_out *o, const struct acl *a, const struct command *cmd, const struct bytes *argv,
                         size_t argc);
/* ACL SETUSER.  False: the rules do not apply, which was replied; else nothing was replied. */
bool access_set_user(struct resp_out *o, struct acl *a, const struct bytes *argv, size_t argc);
/* "ERR unknown subcommand or wrong number of arguments ...". */
void access_reply_too_many(struct resp_out *o, const struct bytes *argv);
extern const char access_no_file[]; /* what ACL LOAD and SAVE say without an ACL file */
extern const char access_not_saved[];
extern const char *const access_help[]; /* the lines of ACL HELP that are ACL's own */
extern const size_t access_help_count;

#endif
