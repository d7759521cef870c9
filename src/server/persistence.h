/* persistence.h: when and how the dataset goes to disk and comes back; inside src/server only. */
#ifndef COVEY_SERVER_PERSISTENCE_H
#define COVEY_SERVER_PERSISTENCE_H

#include "server/node.h"

#include "persist/persist.h"

struct persistence *persistence_create(struct node *n);
/* Loads dbfilename if it is there; before any thread runs.  E_CORRUPT or E_IO: *error says why (mem_free()). */
MUST_USE enum status persistence_load(struct persistence *p, char **error);
/* Before the server starts with what its AOF has, which is nothing: warns if there is an RDB file, which counts for
 * nothing then, and which the next save replaces. */
void persistence_warn_of_file(struct persistence *p);
/* Save points; from the main thread, ten times a second. */
void persistence_tick(struct persistence *p, int64_t now_ms);
/* False: the last background save failed and stop-writes-on-bgsave-error is set.  Any thread. */
bool persistence_accepts_writes(const struct persistence *p);
/* Whether a background save is running.  Any thread. */
bool persistence_is_saving(const struct persistence *p);
/* How RDB bytes are taken into the dataset. */
struct rdb_load_options persistence_load_options(const struct node *n, bool keep_expired);
/* Empties every database; with the server at rest, or beside nobody. */
void persistence_empty(struct persistence *p);
/* Starts a save on the snapshot thread.  E_AGAIN: one is running.  The caller is outside the gate, or has the server at
 * rest
 * (`at_rest`). */
MUST_USE enum status persistence_save_start(struct persistence *p, bool at_rest);
/* Saves before it returns; with the server at rest.  E_AGAIN: a background save is running; E_IO: it is in the log. */
MUST_USE enum status persistence_save_now(struct persistence *p);
/* Gives up the background save, if any, and waits until it is gone; with the server at rest, so that no other begins.
 */
void persistence_save_cancel(struct persistence *p);
/* DEBUG RELOAD: save, empty, load; with the server at rest.  Without `merge` a key or a library of the file that is
 * there already is an error, after which keys of the file may have been loaded, and no library. */
struct reload {
    bool save, flush, merge;
};
MUST_USE enum status persistence_reload(struct persistence *p, const struct reload *how, char **error);
/* Loads the snapshot that a primary sent (a file of its own, which takes the place of dbfilename on success) into the
 * empty store. *db: the database its stream has selected. */
MUST_USE enum status persistence_load_snapshot(struct persistence *p, const char *path, int *db);
/* Function libraries as they are now, with the server at rest; valid until the next call. */
const struct rdb_extras *persistence_extras(struct persistence *p);
/* What files tell of the keys' use: that depends on maxmemory-policy. */
enum rdb_access persistence_access_kind(const struct config *cfg);
/* Whether any save point is configured. */
bool persistence_has_save_points(const struct persistence *p);
void persistence_info(struct persistence *p, struct buf *out);

#endif
