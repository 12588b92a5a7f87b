// SPDX-License-Identifier: Apache-2.0
// Intrusive doubly linked lists: the link lives in the object, a list is a link of its own.
#ifndef SONIC_BROKER_CORE_LIST_H
#define SONIC_BROKER_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct link {
    struct link *next, *prev;
};

// The object of this type that holds this member.
#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void list_init(struct link *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct link *l)
{
    return l->next == l;
}

// Puts n before `at`: at the end of a list when `at` is the list.
static inline void list_insert(struct link *at, struct link *n)
{
    n->next = at;
    n->prev = at->prev;
    at->prev->next = n;
    at->prev = n;
}

static inline void list_remove(struct link *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}

// Takes the first off; NULL when the list is empty.
static inline struct link *list_take(struct link *l)
{
    struct link *n = l->next;
    if (n == l)
        return NULL;
    list_remove(n);
    return n;
}

#endif
