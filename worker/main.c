// SPDX-License-Identifier: Apache-2.0
// sonic-worker: options, then the device and its models, then the loop.
#include <stdio.h>

#include "common/exitcode.h"
#include "common/heap.h"
#include "common/log.h"
#include "worker/agent.h"

int main(int argc, char **argv)
{
    static struct worker_options options;
    struct fleet fleet = {0};
    char why[2048] = "";
    int status;
    heap_keep_large_blocks();
    log_open("sonic-worker", LOG_LEVEL_INFO);
    if (options_parse(argc, argv, &options, &status, why, sizeof(why)) == 0) {
        status = fleet_open(&fleet, options.device, options.models, options.names, options.nnames,
                            why, sizeof(why));
        if (status == EXIT_OK)
            status = agent_run(&options, &fleet, why, sizeof(why));
        fleet_close(&fleet);
    }
    if (status != EXIT_OK && why[0])
        fprintf(stderr, "sonic-worker: %s\n", why);
    return status;
}
