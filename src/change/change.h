/* change.h: what leaves the process: the gate, the change log.  The public face of src/change/.
 *
 * THE GATE lets one thread have the whole server at rest.  Every thread that changes the dataset is a member and is
 * inside while it does; entering costs an uncontended store and fence.
 *
 * THE CHANGE LOG is the ordered record of every write, in the format of the replication stream, with an offset that
 * names each point in it.  Promises: order in the log is order in every slot; an offset never goes back while the id
 * stays the same; a reader never sees bytes overwritten.
 * It is a chain of counted blocks, kept by the backlog's size and by readers that stand in them. */
#ifndef COVEY_CHANGE_CHANGE_H
#define COVEY_CHANGE_CHANGE_H

#include "base/bytes.h"
#include "base/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- the gate ---- */

struct gate;
struct gate_member;

struct gate *gate_create(void);
void gate_destroy(struct gate *g);
/* One for each thread that changes the dataset; joined and left while the thread is outside. */
struct gate_member *gate_join(struct gate *g);
void gate_leave(struct gate_member *m);
/* Comes in; waits while somebody has the server at rest.  Not nested. */
void gate_enter(struct gate_member *m);
void gate_exit(struct gate_member *m);
/* True when somebody waits for the server to be at rest: a long batch makes room by leaving and entering again. */
bool gate_wanted(const struct gate_member *m);
/* Waits until every member is outside, backing off every few ms so that nobody is held up for long by one slow member.
 * The caller is outside.  Then the server is at rest until gate_open(). */
void gate_close(struct gate *g);
/* The same, but gives up after about so many ms: false, and nothing is held. */
MUST_USE bool gate_close_within(struct gate *g, int64_t ms);
void gate_open(struct gate *g);

/* ---- the change log ---- */

enum { REPLID_LENGTH = 40 };

struct change_log;
struct change_block;

struct change_log *change_log_create(size_t backlog_size);
void change_log_destroy(struct change_log *log);

/* Whether there is a backlog: without one, nothing is recorded and the offset stands still.  Any thread. */
bool change_log_active(const struct change_log *log);
/* Starts recording behind the present offset; no effect when it is active. */
void change_log_activate(struct change_log *log);
/* Forgets the backlog (readers keep what they stand in). */
void change_log_deactivate(struct change_log *log);
/* yes: from now on only who stands at the very end can go on from there; the log goes on recording for those who stand
 * in it, and its offset goes on counting.  no: the backlog begins to fill here.  True: it was the other way before
 * (never while the log is not active).  Any thread. */
bool change_log_forget(struct change_log *log, bool yes);
void change_log_set_backlog_size(struct change_log *log, size_t bytes);

/* Appends the effects of one command, EXEC or script, under the locks of the slots they touched.  `count` commands,
 * encoded; two or more are wrapped in MULTI and EXEC.  A SELECT goes before when db is not the stream's; db_after is
 * what it is behind the effects (they may hold SELECTs of their own).  Gives the offset behind it.  Never waits for a
 * reader. */
uint64_t change_append(struct change_log *log, int db, struct bytes effects, unsigned count, int db_after);
/* Appends bytes as they are: a replica's copy of its primary's stream, PING, GETACK. */
uint64_t change_append_raw(struct change_log *log, struct bytes bytes);
/* The next effect is preceded by a SELECT, whatever its database. */
void change_reset_db(struct change_log *log);
/* The database that the stream has selected, -1 when none; for the RDB of a full sync. */
int change_selected_db(const struct change_log *log);
void change_set_selected_db(struct change_log *log, int db);

/* Memory that the log takes, what only slow readers still keep included.  Any thread. */
size_t change_log_bytes(const struct change_log *log);
/* How far that may be above the backlog's size although nobody reads slowly: blocks are dropped whole. */
size_t change_log_slack(void);
/* Bytes since the log began: master_repl_offset.  Any thread. */
uint64_t change_offset(const struct change_log *log);

struct change_id {
    char id[REPLID_LENGTH + 1], id2[REPLID_LENGTH + 1]; /* id2: the history before the last promotion, or zeros */
    int64_t second_offset;                              /* id2 is valid below this offset; -1: never */
    bool fresh; /* from change_id_shift() until change_id_told(): nobody else knows `id` */
};
void change_id_get(struct change_log *log, struct change_id *out);
/* Counts the changes of the id, and of who knows it.  Whoever reads bytes of the log sees the change of id that came
 * before them. */
unsigned change_id_generation(const struct change_log *log);
/* A new random id and no second one: a history of its own. */
void change_id_new(struct change_log *log);
/* A promotion: the present id becomes the second one, valid up to here. */
void change_id_shift(struct change_log *log);
/* Somebody follows under the present id. */
void change_id_told(struct change_log *log);
/* The name under which others know what is held here: id2 while the present id names nothing of its own. */
const char *change_id_known(const struct change_id *id, uint64_t offset);
/* The primary goes on under another id (+CONTINUE <id>): as a shift, to this id. */
void change_id_adopt(struct change_log *log, const char *id);
/* After a full sync: another history, at this offset; drops the backlog. */
void change_log_restart(struct change_log *log, const char *id, uint64_t offset);
/* After a load of a file that says so: a second id that replicas may ask for. */
void change_id_set_second(struct change_log *log, const char *id2, int64_t second_offset);

struct change_window {
    bool active;     /* not while the log forgets */
    size_t size;     /* configured */
    uint64_t first;  /* offset of the first byte kept (bytes count from 1) */
    uint64_t length; /* bytes kept */
};
void change_window_get(struct change_log *log, struct change_window *out);

/* A place in the log.  It pins the blocks from there on. One thread at a time. */
struct change_reader {          /* closed before the log is destroyed */
    struct change_block *block; /* NULL: not placed */
    uint64_t offset;            /* bytes up to here were read */
};
/* Places the reader so that it reads on behind `offset`.  E_NOT_FOUND when the backlog does not reach back (or forward)
 * to there. */
MUST_USE enum status change_reader_seek(struct change_log *log, struct change_reader *r, uint64_t offset);
/* The bytes at hand, borrowed until change_reader_skip(); empty when all was read. */
struct bytes change_reader_peek(struct change_reader *r);
void change_reader_skip(struct change_reader *r, size_t n);
void change_reader_close(struct change_reader *r);
/* Places `to` where `from` stands. */
void change_reader_copy(const struct change_reader *from, struct change_reader *to);

#endif
