// SPDX-License-Identifier: Apache-2.0
// sonic-broker: options, then the broker.
#include <stdio.h>

#include "broker/broker.h"
#include "broker/options.h"
#include "common/heap.h"
#include "common/log.h"

int main(int argc, char **argv)
{
    static struct broker broker;
    struct broker_options options;
    char why[1024];
    int status;
    heap_keep_large_blocks();
    limits_raise();
    log_open("sonic-broker", LOG_LEVEL_INFO);
    if (options_parse(argc, argv, &options, &status, why, sizeof(why)) == 0) {
        status = broker_open(&broker, &options, why, sizeof(why));
        if (status == 0)
            status = broker_run(&broker);
        broker_close(&broker);
    }
    if (status != 0 && why[0])
        fprintf(stderr, "sonic-broker: %s\n", why);
    return status;
}
