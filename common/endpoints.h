// SPDX-License-Identifier: Apache-2.0
// Where a farm on this machine listens when nobody says otherwise; one rule for all programs.
#ifndef SONIC_COMMON_ENDPOINTS_H
#define SONIC_COMMON_ENDPOINTS_H

#include <stddef.h>

// The run folder: $SONIC_RUN_DIR, else $XDG_RUNTIME_DIR/sonic, else /tmp/sonic-UID.
void endpoint_run_dir(char *buf, size_t size);
// Where clients connect: $SONIC_BROKER, else ipc://RUN_DIR/client.sock.
void endpoint_client(char *buf, size_t size);

#endif
