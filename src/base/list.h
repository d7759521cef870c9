/* list.h: an intrusive doubly linked list; the node lives in the element.  No allocation, no lock. */
#ifndef COVEY_BASE_LIST_H
#define COVEY_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next; /* of the head: last and first element */
};

static inline void list_init(struct list *head)
{
    head->prev = head->next = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_push_back(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Behind a node, or at the front of a list. */
static inline void list_insert_after(struct list *where, struct list *node)
{
    list_push_back(where->next, node);
}

/* Leaves the node as an empty list, so that removing it twice is harmless. */
static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* The body may remove the current element. */
#define list_each(it, head) \
    for (struct list *it = (head)->next, *it##_next = it->next; it != (head); it = it##_next, it##_next = it->next)

#endif
