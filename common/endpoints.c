// SPDX-License-Identifier: Apache-2.0
#include "common/endpoints.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void endpoint_run_dir(char *buf, size_t size)
{
    const char *own = getenv("SONIC_RUN_DIR");
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    if (own && own[0])
        snprintf(buf, size, "%s", own);
    else if (xdg && xdg[0])
        snprintf(buf, size, "%s/sonic", xdg);
    else
        snprintf(buf, size, "/tmp/sonic-%u", (unsigned)getuid());
}

void endpoint_client(char *buf, size_t size)
{
    const char *broker = getenv("SONIC_BROKER");
    char dir[4096];
    if (broker && broker[0]) {
        snprintf(buf, size, "%s", broker);
        return;
    }
    endpoint_run_dir(dir, sizeof(dir));
    snprintf(buf, size, "ipc://%s/client.sock", dir);
}
