// SPDX-License-Identifier: Apache-2.0
#include "deploy/farm/options.h"

#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/endpoints.h"
#include "common/exitcode.h"

static const char HELP[] =
    "usage: sonic-farm [options] [--exec COMMAND...]\n"
    "\n"
    "Runs a whole farm on this machine: a private redis-server, a broker, a worker per device.\n"
    "Ctrl-C stops it; what dies is started again.\n"
    "\n"
    "  --models DIR       model repository (default: $SONIC_MODELS_DIR, else the build's models)\n"
    "  --device KIND[:..] a device to serve with, such as cpu or cpu:4 (repeatable; default: "
    "those\n"
    "                     found here)\n"
    "  --dir DIR          run folder for sockets and logs (default: $XDG_RUNTIME_DIR/sonic, else\n"
    "                     /tmp/sonic-UID)\n"
    "  --listen ENDPOINT  let clients connect here, too, such as tcp://127.0.0.1:7100\n"
    "  --memory SIZE      what the broker grants to clients in all (default 2G)\n"
    "  --redis URL        use this Redis instead of a private one\n"
    "  --farm NAME        name of the farm in Redis (default \"default\")\n"
    "  --log LEVEL        of the children: debug, info (default), warn, error\n"
    "  --insecure         allow --listen on addresses that other machines can reach\n"
    "  --exec COMMAND...  run a command once the farm is ready (SONIC_BROKER set), then stop; its\n"
    "                     exit status is the farm's\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 stopped by a signal, 1 internal error, 2 usage, 5 a part of the farm does not\n"
    "start (its log is shown); with --exec the command's.\n";

static const struct option OPTIONS[] = {
    {"models", required_argument, NULL, 'm'},
    {"device", required_argument, NULL, 'd'},
    {"dir", required_argument, NULL, 'D'},
    {"listen", required_argument, NULL, 'L'},
    {"memory", required_argument, NULL, 'M'},
    {"redis", required_argument, NULL, 'r'},
    {"farm", required_argument, NULL, 'f'},
    {"log", required_argument, NULL, 'l'},
    {"insecure", no_argument, NULL, 'i'},
    {"exec", no_argument, NULL, 'e'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

// The folder this program lies in, "" when that cannot be told.
static void own_folder(char *buf, size_t size)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[n > 0 ? n : 0] = '\0';
    snprintf(buf, size, "%s", n > 0 ? dirname(path) : "");
}

void farm_program(char *buf, size_t size, const char *name, const char *build_folder)
{
    char own[4000];
    const char *folder = getenv("SONIC_BINDIR");
    own_folder(own, sizeof(own));
    if (folder && folder[0]) {
        snprintf(buf, size, "%s/%s", folder, name);
        return;
    }
    snprintf(buf, size, "%s/%s", own, name);
    if (access(buf, X_OK) == 0)
        return;
    snprintf(buf, size, "%s/../../%s/%s", own, build_folder, name);
    if (access(buf, X_OK) != 0)
        snprintf(buf, size, "%s", name);
}

static void default_models(char *buf, size_t size)
{
    char own[4000];
    const char *given = getenv("SONIC_MODELS_DIR");
    own_folder(own, sizeof(own));
    if (given && given[0]) {
        snprintf(buf, size, "%s", given);
        return;
    }
    snprintf(buf, size, "%s/../../models", own); // the build's, when this runs from there
    if (access(buf, R_OK) != 0)
        snprintf(buf, size, "%s/../share/sonic/models", own);
}

static bool take(struct farm_options *o, int option, char *why, size_t size)
{
    switch (option) {
    case 'm':
        snprintf(o->models, sizeof(o->models), "%s", optarg);
        return true;
    case 'd':
        if (o->ndevices < FARM_DEVICES_MAX) {
            o->devices[o->ndevices++] = optarg;
            return true;
        }
        snprintf(why, size, "more than %d devices", FARM_DEVICES_MAX);
        return false;
    case 'D':
        snprintf(o->dir, sizeof(o->dir), "%s", optarg);
        if (strlen(optarg) < sizeof(o->dir))
            return true;
        snprintf(why, size, "--dir %s: is too long for the sockets in it; %zu characters at most",
                 optarg, sizeof(o->dir) - 1);
        return false;
    case 'L':
        o->listen = optarg;
        return true;
    case 'M':
        o->memory = optarg;
        return true;
    case 'r':
        o->redis = optarg;
        return true;
    case 'f':
        o->farm = optarg;
        return true;
    case 'l':
        o->log = optarg;
        return true;
    default: // 'i'
        o->insecure = true;
        return true;
    }
}

static bool finish(struct farm_options *o, char *why, size_t size)
{
    if (o->ndevices == 0)
        o->devices[o->ndevices++] = "cpu";
    if (!o->dir[0])
        endpoint_run_dir(o->dir, sizeof(o->dir));
    if (!o->models[0])
        default_models(o->models, sizeof(o->models));
    if (access(o->models, R_OK) != 0) {
        snprintf(why, size,
                 "there is no model repository at %s: build one (make models), or name "
                 "it with --models",
                 o->models);
        return false;
    }
    char *whole = realpath(o->models, NULL);
    if (whole)
        snprintf(o->models, sizeof(o->models), "%s", whole);
    free(whole);
    return true;
}

bool farm_options_parse(int argc, char **argv, struct farm_options *o, int *exit_status, char *why,
                        size_t size)
{
    int option;
    memset(o, 0, sizeof(*o));
    *exit_status = EXIT_USAGE;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+", OPTIONS, NULL)) != -1) {
        if (option == 'h' || option == 'V') {
            fputs(option == 'h' ? HELP : "sonic-farm " SONIC_VERSION "\n", stdout);
            *exit_status = EXIT_OK;
            return false;
        }
        if (option == 'e')
            break;
        if (option == '?') {
            snprintf(why, size,
                     "%s: no such option, or its value is missing; see sonic-farm --help",
                     argv[optind - 1]);
            return false;
        }
        if (!take(o, option, why, size))
            return false;
    }
    if (option == 'e') {
        o->command = argv + optind;
        if (optind == argc) {
            snprintf(why, size, "--exec: there is no command after it");
            return false;
        }
    } else if (optind < argc) {
        snprintf(why, size, "\"%s\" is no option; see sonic-farm --help", argv[optind]);
        return false;
    }
    return finish(o, why, size);
}
