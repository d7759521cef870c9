#include "server/notify.h"

#include "server/pubsub.h"

#include <stdio.h>

enum { NAME_INLINE = 256 };

/* Publishes on "<prefix><db>__:<name>". */
static void publish(struct node *n, const char *prefix, int db, struct bytes name, struct bytes payload)
{
    char room[NAME_INLINE];
    struct buf channel = {0};
    int head = snprintf(room, sizeof room, "%s%d__:", prefix, db);
    if ((size_t)head + name.n <= sizeof room) {
        if (name.n) memcpy(room + head, name.p, name.n);
        pubsub_publish(n, NULL, PUBSUB_CHANNEL, bytes_make(room, (size_t)head + name.n), payload);
        return;
    }
    buf_append(&channel, room, (size_t)head);
    buf_append_bytes(&channel, name);
    pubsub_publish(n, NULL, PUBSUB_CHANNEL, buf_bytes(&channel), payload);
    buf_deinit(&channel);
}

void notify_keyspace(struct node *n, int db, const struct key *k, enum notify_class cls, const char *event)
{
    unsigned wanted = n->options->notify;
    if (!(wanted & cls)) return;
    if (!pubsub_listened(n, PUBSUB_CHANNEL) && !pubsub_listened(n, PUBSUB_PATTERN)) return;
    if (wanted & NOTIFY_KEYSPACE) publish(n, "__keyspace@", db, k->name, bytes_of(event));
    if (wanted & NOTIFY_KEYEVENT) publish(n, "__keyevent@", db, bytes_of(event), k->name);
}
