// SPDX-License-Identifier: Apache-2.0
// Who has which part of a slab: first fit, so that the parts in use are the same few again and
// again and stay in the caches. Pure: offsets, no memory of the slab is touched.
#ifndef SONIC_CLIENT_EXTENTS_H
#define SONIC_CLIENT_EXTENTS_H

#include <stdint.h>

#define EXTENTS_ALIGN 4096u // a page: what a device's DMA wants of an input's address
#define EXTENTS_NONE UINT64_MAX

struct extents;

struct extents *extents_new(uint64_t bytes); // NULL: out of memory
void extents_free(struct extents *e);
// An offset of so many bytes that are free, EXTENTS_NONE when there are none in one piece.
uint64_t extents_take(struct extents *e, uint64_t bytes);
// Gives back what was taken, whole.
void extents_give(struct extents *e, uint64_t offset, uint64_t bytes);
uint64_t extents_free_bytes(const struct extents *e);

#endif
