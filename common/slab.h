// SPDX-License-Identifier: Apache-2.0
// A slab: shared memory of a client on this host. The client lays inputs into it, workers read them
// where they are; between the two only a descriptor and a place travel.
//
// The memory is a memfd whose size is sealed, so that nobody who maps it can be killed (SIGBUS) by
// its owner cutting it. Its contents stay the owner's: what is read twice may differ, which is why
// only tensors of floating-point type travel in slabs (docs/decisions/shared-slabs.md).
#ifndef SONIC_COMMON_SLAB_H
#define SONIC_COMMON_SLAB_H

#include <stddef.h>
#include <stdint.h>

#include "common/tensor.h"

// A slab in this process, with a count of its users.
struct slab;

// Memory of `bytes` (rounded up to pages), writable here and read-only elsewhere, with one
// reference. NULL: the kernel has none, errno says why.
struct slab *slab_new(uint64_t bytes);
// Maps memory that another process shares, read-only, with one reference. The descriptor is taken
// over whatever happens. NULL with words in `why`: it is not memory of that size that is sealed.
struct slab *slab_map(int fd, uint64_t bytes, char *why, size_t size);

// Whether the descriptor is of ordinary memory that could be a slab.
bool slab_is_memory(int fd);

void slab_ref(struct slab *s);
// From any thread. The last one unmaps the memory and closes the descriptor.
void slab_unref(struct slab *s);

int slab_fd(const struct slab *s);
// The mapping needs no descriptor: whoever passes it on to nobody need not keep it.
void slab_close_fd(struct slab *s);
uint64_t slab_bytes(const struct slab *s);
void *slab_data(const struct slab *s); // slab_new's; a mapped one is read-only

// Whether a tensor of this type may travel in a slab.
bool slab_takes(unsigned dtype);
// The tensor's bytes; NULL when they do not lie in the slab, on a boundary of SONIC_PACK_ALIGN.
const void *slab_tensor(const struct slab *s, const struct tensor *t);

#endif
