// SPDX-License-Identifier: Apache-2.0
#include "worker/options.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "common/log.h"
#include "common/name.h"
#include "worker/executor.h"

// The broker decides by its estimates how much it sends ahead (about two batches or 2 ms a slot);
// these are what a worker can hold. 8,192 tiny requests are 8 ms of echo.
#define ROOM_REQUESTS 8192u
#define ROOM_BYTES (512ull << 20)

static const char HELP[] =
    "usage: sonic-worker --broker ENDPOINT --models DIR [options]\n"
    "\n"
    "Executes batches of inference requests that a sonic-broker leases to it, on one device.\n"
    "\n"
    "  --broker ENDPOINT    the broker's worker endpoint, ipc://PATH or tcp://HOST:PORT\n"
    "  --models DIR         model repository\n"
    "  --model NAME         load only this model (repeatable); without it, all that the device\n"
    "                       executes\n"
    "  --device DEVICE      cpu[:SLOTS] (default; a slot a core),\n"
    "                       cuda[:DEVICE[:SLOTS]] (an NVIDIA GPU, by number or UUID),\n"
    "                       opencl[:PLATFORM[:DEVICE[:SLOTS]]] (bundles, on FPGAs and others),\n"
    "                       null[:SLOTS] (returns its input at once),\n"
    "                       delay:FIXED_US[,PER_ROW_US[,SLOTS]] (returns it after that time)\n"
    "  --name NAME          unique in the farm (default HOST-DEVICE-PID)\n"
    "  --redis URL          registry, unix://PATH or redis://[:PASSWORD@]HOST:PORT[/DB]\n"
    "  --farm NAME          name of the farm in the registry (default \"default\")\n"
    "  --room-requests N    requests that may be held here, executing ones included (default "
    "8192)\n"
    "  --room-bytes SIZE    bytes of their inputs, such as 512M or 4G (default 512M)\n"
    "  --log LEVEL          debug, info (default), warn or error\n"
    "  --help, --version\n"
    "\n"
    "SIGTERM and SIGINT: finishes what it holds, then leaves; a second one ends it at once.\n"
    "Exit status: 0 left when asked to, 1 internal error, 2 usage, 4 the broker does not take "
    "this\n"
    "worker, 5 model or device error, 130 ended at once.\n";

static const struct option OPTIONS[] = {
    {"broker", required_argument, NULL, 'b'},
    {"models", required_argument, NULL, 'm'},
    {"model", required_argument, NULL, 'M'},
    {"device", required_argument, NULL, 'd'},
    {"name", required_argument, NULL, 'n'},
    {"redis", required_argument, NULL, 'r'},
    {"farm", required_argument, NULL, 'f'},
    {"room-requests", required_argument, NULL, 'q'},
    {"room-bytes", required_argument, NULL, 'B'},
    {"log", required_argument, NULL, 'l'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

// "512M" in bytes; 0 when it is no size.
static uint64_t parse_size(const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (*text < '0' || *text > '9')
        return 0;
    if (*end) {
        const char *unit = strchr(units, *end);
        if (!unit || end[1])
            return 0;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    return n <= UINT64_MAX >> shift ? (uint64_t)n << shift : 0;
}

static bool add_model(struct worker_options *o, const char *name)
{
    if (!name_is_model(name, strlen(name)) || o->nnames == SONIC_MODELS_MAX)
        return false;
    o->names[o->nnames++] = name;
    return true;
}

static bool set_log(const char *level)
{
    if (log_level_parse(level) < 0)
        return false;
    log_open("sonic-worker", (enum log_level)log_level_parse(level));
    return true;
}

static bool set_name(struct worker_options *o, const char *name)
{
    if (!name_is_label(name, strlen(name)))
        return false;
    memcpy(o->name, name, strlen(name) + 1);
    return true;
}

// Takes one option. False: its value makes no sense.
static bool take(struct worker_options *o, int option, const char *value)
{
    switch (option) {
    case 'b':
        o->broker = value;
        return strncmp(value, "ipc://", 6) == 0 || strncmp(value, "tcp://", 6) == 0;
    case 'm':
        o->models = value;
        return true;
    case 'M':
        return add_model(o, value);
    case 'd':
        if (o->device)
            return false;
        o->device = value;
        return true;
    case 'n':
        return set_name(o, value);
    case 'r':
        o->redis_url = value;
        return true;
    case 'f':
        o->farm = value;
        return name_is_label(value, strlen(value));
    case 'q':
        o->room_requests = (uint32_t)strtoul(value, NULL, 10);
        return parse_size(value) > 0 && parse_size(value) <= UINT32_MAX;
    case 'B':
        o->room_bytes = parse_size(value);
        return o->room_bytes > 0;
    default:
        return set_log(value);
    }
}

static const char *option_name(int option)
{
    for (const struct option *k = OPTIONS; k->name; k++)
        if (k->val == option)
            return k->name;
    return "?";
}

// host-cpu-4711: unique where two workers of one kind share a machine.
static void default_name(struct worker_options *o)
{
    char host[40] = "host";
    gethostname(host, sizeof(host) - 1);
    for (char *c = host; *c; c++)
        if (!name_is_label(c, 1))
            *c = '-';
    snprintf(o->name, sizeof(o->name), "%s-%.*s-%ld", host, (int)strcspn(o->device, ":"), o->device,
             (long)getpid());
}

int options_parse(int argc, char **argv, struct worker_options *o, int *status, char *why,
                  size_t size)
{
    int option;
    *o = (struct worker_options){
        .farm = "default", .room_requests = ROOM_REQUESTS, .room_bytes = ROOM_BYTES};
    *status = EXIT_USAGE;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        if (option == 'h' || option == 'V') {
            *status = EXIT_OK;
            fputs(option == 'h' ? HELP : "sonic-worker " SONIC_VERSION "\n", stdout);
            return -1;
        }
        if (option == '?') {
            snprintf(why, size,
                     "%s: no such option, or its value is missing; see sonic-worker --help",
                     argv[optind - 1]);
            return -1;
        }
        if (!take(o, option, optarg)) {
            snprintf(why, size, "--%s: \"%s\" makes no sense%s; see sonic-worker --help",
                     option_name(option), optarg,
                     option == 'd' ? " (a worker has one device)" : "");
            return -1;
        }
    }
    if (optind < argc || !o->broker || !o->models) {
        snprintf(why, size, "%s; see sonic-worker --help",
                 optind < argc ? "there are no arguments without an option"
                 : o->broker   ? "--models DIR is missing"
                               : "--broker ENDPOINT is missing");
        return -1;
    }
    *status = EXIT_OK;
    if (!o->device)
        o->device = "cpu";
    if (!o->name[0])
        default_name(o);
    return 0;
}
