// SPDX-License-Identifier: Apache-2.0
#include "client/submit/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/exitcode.h"

static const char HELP[] =
    "usage: sonic-submit --model MODEL --input FILE... --output FILE [options]\n"
    "       sonic-submit models | status | placement [--broker ENDPOINT]\n"
    "\n"
    "Sends the rows of .npy files through a model of the farm and writes the results as .npy.\n"
    "\n"
    "  --model NAME[:VERSION]  the model\n"
    "  --input FILE...         .npy files; @LIST names a file with one path a line, - is standard\n"
    "                          input; NAME=FILE for a model with several inputs\n"
    "  --output FILE           where results go, - is standard output; a folder for several "
    "inputs;\n"
    "                          NAME=FILE, or FILE (then FILE.NAME.npy), for several outputs\n"
    "  --batch N               rows a request (default: what the model's owner recommends)\n"
    "  --window N              requests in flight at most (default 4096)\n"
    "  --priority N            1 = most urgent (default: the model's)\n"
    "  --deadline TIME         a request not started within TIME fails, such as 500ms or 30s\n"
    "  --tenant NAME           fair share to count against (default: your user name)\n"
    "  --shard I/N             only the I-th of N parts (0 to N-1); auto: from Slurm or HTCondor\n"
    "  --resume                go on with an interrupted job; finished chunks are not computed "
    "again\n"
    "  --restart               begin an interrupted job anew\n"
    "  --force                 replace an output that is there already\n"
    "  --json                  one JSON line with the figures on standard output at the end\n"
    "  --quiet                 no progress\n"
    "  --timeout S             give up when no broker answers for so long (default 60, 0 = never)\n"
    "  --broker ENDPOINT       default: $SONIC_BROKER, else the farm of this machine\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done, 1 internal error, 2 usage, 3 unusable input, 4 no broker,\n"
    "5 unknown or unfit model, 6 some requests failed, 7 output cannot be written,\n"
    "8 refused by the broker, 130 interrupted.\n";

// getopt_long hands out plain words as 1.
enum {
    WORD = 1,
    OPT_MODEL,
    OPT_INPUT,
    OPT_OUTPUT,
    OPT_BATCH,
    OPT_WINDOW,
    OPT_PRIORITY,
    OPT_DEADLINE,
    OPT_TENANT,
    OPT_SHARD,
    OPT_RESUME,
    OPT_RESTART,
    OPT_FORCE,
    OPT_JSON,
    OPT_QUIET,
    OPT_TIMEOUT,
    OPT_BROKER,
    OPT_HELP,
    OPT_VERSION
};

static const struct option OPTIONS[] = {
    {"model", required_argument, NULL, OPT_MODEL},
    {"input", required_argument, NULL, OPT_INPUT},
    {"output", required_argument, NULL, OPT_OUTPUT},
    {"batch", required_argument, NULL, OPT_BATCH},
    {"window", required_argument, NULL, OPT_WINDOW},
    {"priority", required_argument, NULL, OPT_PRIORITY},
    {"deadline", required_argument, NULL, OPT_DEADLINE},
    {"tenant", required_argument, NULL, OPT_TENANT},
    {"shard", required_argument, NULL, OPT_SHARD},
    {"resume", no_argument, NULL, OPT_RESUME},
    {"restart", no_argument, NULL, OPT_RESTART},
    {"force", no_argument, NULL, OPT_FORCE},
    {"json", no_argument, NULL, OPT_JSON},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"broker", required_argument, NULL, OPT_BROKER},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

struct parser {
    struct options *o;
    const char *job_option; // one seen that only a job takes
    char *why;
    size_t size;
};

static bool fail(struct parser *p, const char *option, const char *value, const char *want)
{
    snprintf(p->why, p->size, "--%s \"%s\": %s; see sonic-submit --help", option, value, want);
    return false;
}

static bool add_file(struct file_option **files, size_t *n, const char *text)
{
    struct file_option *more = realloc(*files, (*n + 1) * sizeof(*more));
    if (!more)
        return false;
    *files = more;
    struct file_option *f = &more[(*n)++];
    memset(f, 0, sizeof(*f));
    f->path = text;
    const char *equals = strchr(text, '=');
    size_t len = equals ? (size_t)(equals - text) : 0;
    // A path with '=' in it has a '/' before; a tensor's name has none.
    if (len > 0 && len < sizeof(f->tensor) && !memchr(text, '/', len)) {
        memcpy(f->tensor, text, len);
        f->path = equals + 1;
    }
    return true;
}

// The paths in a list file, one a line. They stay allocated until the process ends.
static bool add_list(struct parser *p, const char *path)
{
    FILE *list = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    bool ok = list != NULL;
    size_t before = p->o->ninputs;
    if (!ok)
        return fail(p, "input", path, "this list of files cannot be read");
    while (ok && (n = getline(&line, &room, list)) >= 0) {
        line[strcspn(line, "\r\n")] = '\0';
        char *copy = line[0] ? strdup(line) : NULL;
        if (line[0])
            ok = copy && add_file(&p->o->inputs, &p->o->ninputs, copy);
    }
    free(line);
    fclose(list);
    if (ok && p->o->ninputs == before)
        return fail(p, "input", path, "this list names no file");
    return ok;
}

static bool add_input(struct parser *p, const char *text)
{
    if (text[0] == '@')
        return add_list(p, text + 1);
    return add_file(&p->o->inputs, &p->o->ninputs, text);
}

static bool number(struct parser *p, const char *option, const char *value, uint64_t min,
                   uint64_t max, uint64_t *out)
{
    char *end, want[80];
    unsigned long long v = strtoull(value, &end, 10);
    snprintf(want, sizeof(want), "a whole number from %llu to %llu is wanted",
             (unsigned long long)min, (unsigned long long)max);
    if (value[0] < '0' || value[0] > '9' || *end || v < min || v > max)
        return fail(p, option, value, want);
    *out = v;
    return true;
}

static bool u32(struct parser *p, const char *option, const char *value, uint64_t min, uint64_t max,
                uint32_t *out)
{
    uint64_t v;
    if (!number(p, option, value, min, max, &v))
        return false;
    *out = (uint32_t)v;
    return true;
}

// "30", "30s", "500ms", "200us".
static bool duration_us(struct parser *p, const char *option, const char *value, uint64_t *out)
{
    char *end;
    double v = strtod(value, &end);
    double unit = strcmp(end, "us") == 0 ? 1 : strcmp(end, "ms") == 0 ? 1e3 : 1e6;
    bool known = *end == '\0' || strcmp(end, "s") == 0 || unit < 1e6;
    if (end == value || !known || !(v * unit >= 1) || v * unit > 1e12)
        return fail(p, option, value, "a time such as 30s, 500ms or 200us is wanted");
    *out = (uint64_t)(v * unit);
    return true;
}

static bool take_model(struct parser *p, char *value)
{
    char *colon = strchr(value, ':');
    p->o->model = value;
    if (!colon)
        return true;
    *colon = '\0';
    return u32(p, "model", colon + 1, 1, UINT32_MAX, &p->o->version);
}

static bool take(struct parser *p, int option, char *value)
{
    struct options *o = p->o;
    uint64_t seconds;
    for (const struct option *k = OPTIONS; k->name; k++)
        if (k->val == option && option != OPT_BROKER && option != OPT_TIMEOUT)
            p->job_option = k->name;
    switch (option) {
    case OPT_MODEL:
        return take_model(p, value);
    case OPT_INPUT:
        return add_input(p, value);
    case OPT_OUTPUT:
        return add_file(&o->outputs, &o->noutputs, value);
    case OPT_BATCH:
        return u32(p, "batch", value, 1, 1u << 30, &o->batch);
    case OPT_WINDOW:
        return u32(p, "window", value, 1, 1u << 20, &o->window);
    case OPT_PRIORITY:
        return u32(p, "priority", value, 1, 8, &o->priority);
    case OPT_DEADLINE:
        return duration_us(p, "deadline", value, &o->deadline_us);
    case OPT_TENANT:
        o->tenant = value;
        return true;
    case OPT_SHARD:
        return shard_parse(value, &o->shard, p->why, p->size);
    case OPT_RESUME:
        o->resume = true;
        return true;
    case OPT_RESTART:
        o->restart = true;
        return true;
    case OPT_FORCE:
        o->force = true;
        return true;
    case OPT_JSON:
        o->json = true;
        return true;
    case OPT_QUIET:
        o->quiet = true;
        return true;
    case OPT_BROKER:
        o->endpoint = value;
        return true;
    default: // OPT_TIMEOUT
        if (!number(p, "timeout", value, 0, 1u << 20, &seconds))
            return false;
        o->timeout_ms = seconds * 1000;
        return true;
    }
}

static bool take_word(struct parser *p, char *word)
{
    static const char *const commands[] = {NULL, "models", "status", "placement"};
    bool first = p->o->command == COMMAND_JOB && !p->o->model && !p->o->ninputs;
    for (unsigned i = 1; i < 4 && first; i++)
        if (strcmp(word, commands[i]) == 0) {
            p->o->command = (enum command)i;
            return true;
        }
    if (p->o->ninputs > 0) // --input a.npy b.npy c.npy
        return add_input(p, word);
    if (p->o->command != COMMAND_JOB)
        snprintf(p->why, p->size, "\"%s\": one command at a time; see sonic-submit --help", word);
    else
        snprintf(p->why, p->size,
                 "\"%s\" is neither a command (models, status, placement) nor an "
                 "option; see sonic-submit --help",
                 word);
    return false;
}

static bool check(struct parser *p)
{
    const struct options *o = p->o;
    const char *missing = !o->model      ? "model"
                          : !o->ninputs  ? "input"
                          : !o->noutputs ? "output"
                                         : NULL;
    if (o->command != COMMAND_JOB && p->job_option) {
        snprintf(p->why, p->size,
                 "--%s belongs to a job; models, status and placement take --broker and --timeout",
                 p->job_option);
        return false;
    }
    if (o->command != COMMAND_JOB)
        return true;
    if (missing) {
        snprintf(p->why, p->size,
                 "--%s is missing: sonic-submit --model facile --input events.npy "
                 "--output energies.npy",
                 missing);
        return false;
    }
    if (o->resume && o->restart) {
        snprintf(p->why, p->size, "--resume and --restart exclude each other");
        return false;
    }
    for (size_t i = 0; i < o->noutputs; i++)
        if (o->json && strcmp(o->outputs[i].path, "-") == 0) {
            snprintf(p->why, p->size, "--json and --output - both want standard output");
            return false;
        }
    return true;
}

bool options_parse(int argc, char **argv, struct options *o, int *exit_status, char *why,
                   size_t size)
{
    struct parser p = {o, NULL, why, size};
    int option;
    memset(o, 0, sizeof(*o));
    o->timeout_ms = 60000;
    *exit_status = EXIT_OK;
    opterr = 0;
    bool ok = true;
    // A leading '-' hands out words in their order, so that more inputs may follow --input.
    while (ok && (option = getopt_long(argc, argv, "-", OPTIONS, NULL)) != -1) {
        if (option == OPT_HELP || option == OPT_VERSION) {
            fputs(option == OPT_HELP ? HELP : "sonic-submit " SONIC_VERSION "\n", stdout);
            return false;
        }
        if (option == '?' || option == ':') {
            snprintf(why, size,
                     "%s: no such option, or its value is missing; see sonic-submit "
                     "--help",
                     argv[optind - 1]);
            ok = false;
        } else {
            ok = option == WORD ? take_word(&p, optarg) : take(&p, option, optarg);
        }
    }
    while (ok && optind < argc)
        ok = take_word(&p, argv[optind++]);
    if (ok && check(&p))
        return true;
    *exit_status = EXIT_USAGE;
    return false;
}

void options_deinit(struct options *o)
{
    free(o->inputs);
    free(o->outputs);
}
