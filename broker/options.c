// SPDX-License-Identifier: Apache-2.0
#include "broker/options.h"

#include <czmq.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/exitcode.h"
#include "common/log.h"
#include "common/name.h"

// As --help says; bounds what clients can make a broker hold.
#define DEFAULT_MEMORY (2ull << 30)
#define DEFAULT_SLABS (256ull << 20)
// A few beats at least, or a busy worker is taken for a hung one.
#define LEASE_SECONDS_MIN 3
#define LEASE_SECONDS_MAX 86400

static const char HELP[] =
    "usage: sonic-broker --client ENDPOINT --worker ENDPOINT [options]\n"
    "\n"
    "Queues inference requests of clients and leases them to workers.\n"
    "\n"
    "  --client ENDPOINT   where clients connect, ipc://PATH or tcp://ADDRESS:PORT (repeatable)\n"
    "  --worker ENDPOINT   where workers connect (repeatable)\n"
    "  --models DIR        model repository to know models from before workers join\n"
    "  --memory SIZE       granted to clients in all, such as 512M or 4G (default 2G)\n"
    "  --slabs SIZE        largest piece of memory that a client on this host may share with "
    "workers\n"
    "                      instead of sending large inputs through sockets (default 256M, 0 = "
    "none)\n"
    "  --lease SECONDS     longest that one execution may take (default 30)\n"
    "  --redis URL         registry, unix://PATH or redis://[:PASSWORD@]HOST:PORT[/DB]\n"
    "  --farm NAME         name of the farm in the registry (default \"default\")\n"
    "  --name NAME         name of this broker (default \"broker\")\n"
    "  --config FILE       the same options in a ZPL file: client = \"...\"\n"
    "  --log LEVEL         debug, info (default), warn or error\n"
    "  --insecure          allow endpoints that other machines can reach\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 stopped by SIGTERM or SIGINT, 1 internal error, 2 usage, 3 unusable file.\n";

static const struct option OPTIONS[] = {
    {"client", required_argument, NULL, 'c'},
    {"worker", required_argument, NULL, 'w'},
    {"models", required_argument, NULL, 'm'},
    {"memory", required_argument, NULL, 'M'},
    {"lease", required_argument, NULL, 't'},
    {"redis", required_argument, NULL, 'r'},
    {"farm", required_argument, NULL, 'f'},
    {"name", required_argument, NULL, 'n'},
    {"config", required_argument, NULL, 'C'},
    {"log", required_argument, NULL, 'l'},
    {"slabs", required_argument, NULL, 's'},
    {"insecure", no_argument, NULL, 'i'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

// "512M" in bytes; 0 when it is no size.
static uint64_t parse_size(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (text[0] < '0' || text[0] > '9' || errno)
        return 0;
    if (*end)
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : *end == 'T' ? 40 : 64;
    if (shift == 64 || (*end && end[1]) || n > UINT64_MAX >> shift)
        return 0;
    return (uint64_t)n << shift;
}

static bool parse_seconds(const char *text, uint64_t *us)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || n < LEASE_SECONDS_MIN || n > LEASE_SECONDS_MAX)
        return false;
    *us = n * 1000000ull;
    return true;
}

static bool add_endpoint(const char **list, size_t *n, const char *endpoint)
{
    if (*n == BROKER_ENDPOINTS_MAX)
        return false;
    list[(*n)++] = endpoint;
    return true;
}

static bool says(const char *value, const char *a, const char *b, const char *c)
{
    return strcmp(value, a) == 0 || strcmp(value, b) == 0 || strcmp(value, c) == 0;
}

// Takes one option. False with words.
static bool take(struct broker_options *o, int option, const char *value, char *why, size_t size)
{
    const char *name = "?";
    for (const struct option *k = OPTIONS; k->name; k++)
        if (k->val == option)
            name = k->name;
    switch (option) {
    case 'c':
        if (add_endpoint(o->client_endpoints, &o->nclient_endpoints, value))
            return true;
        break;
    case 'w':
        if (add_endpoint(o->worker_endpoints, &o->nworker_endpoints, value))
            return true;
        break;
    case 'm':
        o->models = value;
        return true;
    case 'M':
        o->memory_bytes = parse_size(value);
        if (o->memory_bytes >= 1u << 20)
            return true;
        break;
    case 's':
        o->slab_bytes = parse_size(value);
        if (strcmp(value, "0") == 0 ||
            (o->slab_bytes >= 1u << 20 && o->slab_bytes <= SONIC_SLAB_BYTES_MAX))
            return true;
        snprintf(why, size, "--slabs: \"%s\" makes no sense; 1M to 1G are possible, and 0", value);
        return false;
    case 't':
        if (parse_seconds(value, &o->lease_us))
            return true;
        snprintf(why, size, "--lease: \"%s\" makes no sense; %d to %d seconds are possible", value,
                 LEASE_SECONDS_MIN, LEASE_SECONDS_MAX);
        return false;
    case 'r':
        o->redis_url = value;
        return true;
    case 'f':
        o->farm_name = value;
        return name_is_label(value, strlen(value)) ||
               (snprintf(why, size, "--farm: \"%s\" is no name", value), false);
    case 'n':
        o->name = value;
        return name_is_label(value, strlen(value)) ||
               (snprintf(why, size, "--name: \"%s\" is no name", value), false);
    case 'l':
        if (log_level_parse(value) >= 0) {
            log_open("sonic-broker", (enum log_level)log_level_parse(value));
            return true;
        }
        break;
    case 'i': // without a value on the command line
        o->insecure = !value || says(value, "1", "true", "yes");
        if (o->insecure || says(value, "0", "false", "no"))
            return true;
        break;
    }
    snprintf(why, size, "--%s: \"%s\" makes no sense; see sonic-broker --help", name, value);
    return false;
}

// The file's options, before those of the command line. It stays loaded: options point into it.
static int read_config(struct broker_options *o, const char *path, char *why, size_t size)
{
    static zconfig_t *root;
    zconfig_destroy(&root);
    root = zconfig_load(path);
    if (!root) {
        snprintf(why, size,
                 "cannot read %s as a configuration file (ZPL): is it there, is every "
                 "line `name = value`?",
                 path);
        return EXIT_BAD_INPUT;
    }
    for (zconfig_t *item = zconfig_child(root); item; item = zconfig_next(item)) {
        const struct option *k = OPTIONS;
        while (k->name && strcmp(k->name, zconfig_name(item)) != 0)
            k++;
        if (!k->name || strchr("ChV", k->val)) {
            snprintf(why, size, "%s: there is no option \"%s\"", path, zconfig_name(item));
            return EXIT_BAD_INPUT;
        }
        if (!take(o, k->val, zconfig_value(item), why, size))
            return EXIT_BAD_INPUT;
    }
    return 0;
}

static const char *config_path(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
            return argv[i + 1];
        if (strncmp(argv[i], "--config=", 9) == 0)
            return argv[i] + 9;
    }
    return NULL;
}

static int check(const struct broker_options *o, char *why, size_t size)
{
    if (o->nclient_endpoints && o->nworker_endpoints)
        return 0;
    snprintf(why, size, "--%s is missing: sonic-broker --client ipc://PATH --worker ipc://PATH",
             o->nclient_endpoints ? "worker" : "client");
    return EXIT_USAGE;
}

int options_parse(int argc, char **argv, struct broker_options *o, int *exit_status, char *why,
                  size_t size)
{
    int option;
    const char *config = config_path(argc, argv);
    *o = (struct broker_options){.farm_name = "default",
                                 .name = "broker",
                                 .memory_bytes = DEFAULT_MEMORY,
                                 .slab_bytes = DEFAULT_SLABS};
    why[0] = '\0';
    *exit_status = config ? read_config(o, config, why, size) : 0;
    if (*exit_status)
        return -1;
    size_t file_clients = o->nclient_endpoints, file_workers = o->nworker_endpoints;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        if (option == 'h' || option == 'V') {
            fputs(option == 'h' ? HELP : "sonic-broker " SONIC_VERSION "\n", stdout);
            return -1;
        }
        // The command line's endpoints replace the file's.
        if (option == 'c' && file_clients)
            o->nclient_endpoints = file_clients = 0;
        if (option == 'w' && file_workers)
            o->nworker_endpoints = file_workers = 0;
        if (option == '?' || (option != 'C' && !take(o, option, optarg, why, size))) {
            if (option == '?')
                snprintf(why, size, "%s: unknown option or missing value; see sonic-broker --help",
                         argv[optind - 1]);
            *exit_status = EXIT_USAGE;
            return -1;
        }
    }
    if (optind < argc) {
        snprintf(why, size, "\"%s\" is no option; see sonic-broker --help", argv[optind]);
        *exit_status = EXIT_USAGE;
        return -1;
    }
    *exit_status = check(o, why, size);
    return *exit_status ? -1 : 0;
}
