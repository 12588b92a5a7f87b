// SPDX-License-Identifier: Apache-2.0
#include "broker/core/heap.h"

#include <stddef.h>

static struct heap_node *meld(struct heap_node *a, struct heap_node *b)
{
    if (!a)
        return b;
    if (!b)
        return a;
    if (b->key < a->key) {
        struct heap_node *t = a;
        a = b;
        b = t;
    }
    b->prev = a;
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    a->child = b;
    return a;
}

// Two passes over siblings: meld them in pairs, then the pairs into one. This order is what gives
// the amortised bound.
static struct heap_node *combine(struct heap_node *first)
{
    struct heap_node *pairs = NULL;
    while (first) {
        struct heap_node *a = first;
        struct heap_node *b = a->next;
        first = b ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b)
            b->next = b->prev = NULL;
        struct heap_node *m = meld(a, b);
        m->next = pairs;
        pairs = m;
    }
    struct heap_node *root = NULL;
    while (pairs) {
        struct heap_node *n = pairs;
        pairs = n->next;
        n->next = NULL;
        root = meld(root, n);
    }
    return root;
}

void heap_insert(struct heap *h, struct heap_node *n, uint64_t key)
{
    n->child = n->next = n->prev = NULL;
    n->key = key;
    h->root = meld(h->root, n);
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    if (n == h->root) {
        h->root = combine(n->child);
        return;
    }
    if (n->prev->child == n)
        n->prev->child = n->next;
    else
        n->prev->next = n->next;
    if (n->next)
        n->next->prev = n->prev;
    h->root = meld(h->root, combine(n->child));
}
