// SPDX-License-Identifier: Apache-2.0
// The broker's command line and its configuration file (ZPL, read by czmq's zconfig). An option on
// the command line wins over the file.
#ifndef SONIC_BROKER_OPTIONS_H
#define SONIC_BROKER_OPTIONS_H

#include <stddef.h>

#include "broker/broker.h"

// Parses. 0: go on; otherwise *exit_status is what to end with (help and version were printed; for
// an error `why` says what is wrong). Strings live as long as argv and the process.
int options_parse(int argc, char **argv, struct broker_options *o, int *exit_status, char *why,
                  size_t size);

#endif
