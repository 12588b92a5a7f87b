# SPDX-License-Identifier: Apache-2.0
"""The memory plan: values that are not needed at the same time share a buffer."""


def assign(uses, sizes):
    """({value: number of its buffer}, [bytes of each buffer]).

    uses: for each launch, in order, (values it reads, values it writes); sizes: bytes of each value. A
    value lives from its first use to its last; what one launch reads and writes never coincides."""
    last = {v: i for i, (reads, writes) in enumerate(uses) for v in (*reads, *writes) if v in sizes}
    buffers, free, at = [], set(), {}
    for i, (reads, writes) in enumerate(uses):
        for value in writes:
            if value in sizes and value not in at:
                at[value] = take(buffers, free, sizes[value])
        for value in (*reads, *writes):
            if last.get(value) == i:
                free.add(at[value])
    return at, buffers


def take(buffers, free, size):
    """The smallest free buffer that is large enough, else the largest free one grown, else a new one."""
    fitting = [b for b in free if buffers[b] >= size]
    if fitting:
        chosen = min(fitting, key=lambda b: (buffers[b], b))
    elif free:
        chosen = max(free, key=lambda b: (buffers[b], -b))
    else:
        chosen = len(buffers)
        buffers.append(size)
    buffers[chosen] = max(buffers[chosen], size)
    free.discard(chosen)
    return chosen
