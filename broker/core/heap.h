// SPDX-License-Identifier: Apache-2.0
// Intrusive pairing heap, smallest key first. Inserting costs O(1), taking the first or any other
// node O(log n) amortised, an empty heap nothing; no memory of its own.
#ifndef SONIC_BROKER_CORE_HEAP_H
#define SONIC_BROKER_CORE_HEAP_H

#include <stdint.h>

struct heap_node {
    struct heap_node *child, *next;
    struct heap_node *prev; // left sibling, or the parent of a first child; NULL at the root
    uint64_t key;
};

struct heap {
    struct heap_node *root; // the smallest; NULL: empty
};

void heap_insert(struct heap *h, struct heap_node *n, uint64_t key);
// n must be in h.
void heap_remove(struct heap *h, struct heap_node *n);

#endif
