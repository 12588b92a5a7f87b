// SPDX-License-Identifier: Apache-2.0
// Header decoding under hostile bytes: the first byte chooses the sender's role, the rest is the
// header. What is accepted must also be MessagePack to msgpack-c, and every tensor it carries must
// either lie inside the message or be refused.
#include <limits.h>
#include <msgpack.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_is_msgpack(const uint8_t *data, size_t size)
{
    msgpack_unpacked u;
    size_t at = 0;
    msgpack_unpacked_init(&u);
    // Depth over msgpack-c's own bound reads as NOMEM there; ours allows 8 levels below that.
    check(msgpack_unpack_next(&u, (const char *)data, size, &at) == MSGPACK_UNPACK_SUCCESS);
    check(at == size);
    msgpack_unpacked_destroy(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wire_decoder *decoder;
    static const enum wire_role roles[] = {WIRE_FROM_CLIENT, WIRE_FROM_WORKER, WIRE_FROM_BROKER};
    struct wire_message *m;
    if (!decoder)
        decoder = wire_decoder_new();
    if (size == 0)
        return 0;
    enum wire_error e = wire_decode(decoder, data + 1, size - 1, roles[data[0] % 3], &m);
    check((e == WIRE_OK) == (m != NULL));
    if (e != WIRE_OK)
        return 0;
    check(m->nitems <= SONIC_ITEMS_MAX);
    if (m->type == WIRE_SUBMIT)
        for (uint32_t i = 0; i < m->nitems; i++)
            check(m->items.submit[i].tensors.n <= SONIC_TENSORS_MAX);
    check_is_msgpack(data + 1, size - 1);
    return 0;
}
