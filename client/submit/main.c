// SPDX-License-Identifier: Apache-2.0
// sonic-submit: which files become which jobs, and the questions about the farm.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/sonic.h"
#include "client/submit/job.h"
#include "client/submit/options.h"
#include "client/submit/plan.h"
#include "common/exitcode.h"
#include "common/tensor.h"

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    if (stop++) // asked twice: at once
        _exit(128 + number);
}

// The inputs are mapped: bytes that somebody cut off while they were read cannot be told from here
// on. Only what is safe in a handler: words and the end. Part and ledger stay, for --resume.
static void on_cut_input(int number)
{
    static const char words[] =
        "sonic-submit: an input file became shorter while it was read; write it "
        "again, then --restart\n";
    (void)number;
    ssize_t ignored = write(STDERR_FILENO, words, sizeof(words) - 1);
    (void)ignored;
    _exit(EXIT_BAD_INPUT);
}

static void watch_signals(void)
{
    struct sigaction cut = {.sa_handler = on_cut_input};
    sigaction(SIGBUS, &cut, NULL);
    struct sigaction action = {.sa_handler = on_signal}; // no SA_RESTART: waits must end
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); // a closed standard output is an error like any other
}

// ---- questions ----------------------------------------------------------------------------------

static int failure(sonic_t *s, int rc, char *why, size_t size)
{
    snprintf(why, size, "%s", sonic_error(s));
    return rc == -EPROTO ? EXIT_REFUSED : rc == -ETIMEDOUT ? EXIT_NOT_REACHED : EXIT_INTERNAL;
}

static int timeout_of(const struct options *o)
{
    return o->timeout_ms ? (int)o->timeout_ms : -1;
}

static int print_text(sonic_t *s, const struct options *o, const char *what, char *why, size_t size)
{
    char *text = NULL;
    int rc = sonic_query(s, what, &text, timeout_of(o));
    if (rc != 0)
        return failure(s, rc, why, size);
    fputs(text, stdout);
    free(text);
    return EXIT_OK;
}

static void io_text(char *buf, size_t size, const sonic_model_t *m, const sonic_io_t *io,
                    unsigned n)
{
    size_t used = 0;
    buf[0] = '\0';
    for (unsigned i = 0; i < n && used < size; i++) {
        char shape[160];
        struct tensor_spec spec = {.dtype = (uint8_t)io[i].type, .ndim = (uint8_t)io[i].ndim};
        memcpy(spec.dims, io[i].dims, io[i].ndim * sizeof(spec.dims[0]));
        tensor_spec_print(shape, sizeof(shape), &spec, m->batch_max > 0);
        int k = snprintf(buf + used, size - used, "%s%s %s", i ? ", " : "", io[i].name, shape);
        used += k > 0 ? (size_t)k : 0;
    }
}

static int print_models(sonic_t *s, const struct options *o, char *why, size_t size)
{
    sonic_model_t *models = NULL;
    size_t n = 0;
    int rc = sonic_models(s, &models, &n, timeout_of(o));
    if (rc != 0)
        return failure(s, rc, why, size);
    printf("%-20s %7s %9s %8s  %-36s %s\n", "MODEL", "version", "max batch", "default", "inputs",
           "outputs");
    for (size_t i = 0; i < n; i++) {
        char in[512], out[512];
        io_text(in, sizeof(in), &models[i], models[i].inputs, models[i].ninputs);
        io_text(out, sizeof(out), &models[i], models[i].outputs, models[i].noutputs);
        printf("%-20s %7u %9u %8u  %-36s %s\n", models[i].name, models[i].version,
               models[i].batch_max, models[i].default_rows, in, out);
    }
    free(models);
    return EXIT_OK;
}

// ---- jobs ---------------------------------------------------------------------------------------

static int find_model(sonic_t *s, const struct options *o, sonic_model_t *model, char *why,
                      size_t size)
{
    sonic_model_t *models = NULL;
    size_t n = 0;
    const sonic_model_t *found = NULL;
    int rc = sonic_models(s, &models, &n, timeout_of(o));
    if (rc != 0)
        return failure(s, rc, why, size);
    for (size_t i = 0; i < n; i++)
        if (strcmp(models[i].name, o->model) == 0 &&
            (o->version == 0 ? !found || models[i].version > found->version
                             : models[i].version == o->version))
            found = &models[i];
    if (found)
        *model = *found;
    int used = snprintf(why, size, "no model \"%s\"%s in this farm; there %s", o->model,
                        o->version ? " of that version" : "", n ? "are: " : "are none");
    for (size_t i = 0; i < n && used > 0 && (size_t)used < size; i++)
        used += snprintf(why + used, size - (size_t)used, "%s%s", i ? ", " : "", models[i].name);
    free(models);
    return found ? EXIT_OK : EXIT_MODEL;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

// Which of the model's tensors is called this; -1: none.
static int find_io(const sonic_io_t *io, unsigned n, const char *name)
{
    for (unsigned i = 0; i < n; i++)
        if (strcmp(io[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int bad_files(char *why, size_t size, const char *text, const char *what)
{
    snprintf(why, size, "%s%s", text, what);
    return EXIT_USAGE;
}

static bool is_tensor(const struct file_option *f, const char *kind, const sonic_io_t *io,
                      unsigned n, char *why, size_t size)
{
    if (!f->tensor[0] || find_io(io, n, f->tensor) >= 0)
        return true;
    char names[2048] = "";
    for (unsigned i = 0; i < n; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "", io[i].name);
    }
    snprintf(why, size,
             "--%s %s=%s: this model has no %s \"%s\" but %s (a file with = in its name: say "
             "./%s=%s)",
             kind, f->tensor, f->path, kind, f->tensor, names, f->tensor, f->path);
    return false;
}

static bool are_tensors(const struct options *o, const sonic_model_t *m, char *why, size_t size)
{
    for (size_t i = 0; i < o->ninputs; i++)
        if (!is_tensor(&o->inputs[i], "input", m->inputs, m->ninputs, why, size))
            return false;
    for (size_t i = 0; i < o->noutputs; i++)
        if (!is_tensor(&o->outputs[i], "output", m->outputs, m->noutputs, why, size))
            return false;
    return true;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

// The inputs of a model with several, each as NAME=FILE.
static int named_inputs(const struct options *o, const sonic_model_t *m, struct job_files *f,
                        char *why, size_t size)
{
    for (size_t i = 0; i < o->ninputs; i++) {
        int k = find_io(m->inputs, m->ninputs, o->inputs[i].tensor);
        if (k < 0) {
            snprintf(why, size,
                     "--input %s: model %s has %u inputs, say NAME=FILE for each (the "
                     "first is %s)",
                     o->inputs[i].path, m->name, m->ninputs, m->inputs[0].name);
            return EXIT_USAGE;
        }
        f->inputs[k] = o->inputs[i].path;
    }
    for (unsigned k = 0; k < m->ninputs; k++)
        if (!f->inputs[k])
            return bad_files(why, size, "there is no file for input ", m->inputs[k].name);
    return EXIT_OK;
}

// Where an input's results go when --output is a folder: under the input's own name.
static void in_folder(char *out, size_t size, const char *folder, const char *input)
{
    const char *slash = strrchr(input, '/');
    size_t len = strlen(folder);
    snprintf(out, size, "%s%s%s", folder, len && folder[len - 1] == '/' ? "" : "/",
             slash ? slash + 1 : input);
}

static int name_outputs(const struct options *o, const sonic_model_t *m, const char *input,
                        struct job_files *f, char *why, size_t size)
{
    char base[4096], shard[64], named[4096];
    const struct file_option *single =
        o->noutputs == 1 && !o->outputs[0].tensor[0] ? &o->outputs[0] : NULL;
    for (unsigned i = 0; i < m->noutputs; i++) {
        const char *path = NULL;
        for (size_t k = 0; k < o->noutputs; k++)
            if (strcmp(o->outputs[k].tensor, m->outputs[i].name) == 0)
                path = o->outputs[k].path;
        if (!path && !single)
            return bad_files(why, size, "there is no --output NAME=FILE for output ",
                             m->outputs[i].name);
        snprintf(base, sizeof(base), "%s", path ? path : single->path);
        if (is_folder(base))
            in_folder(base, sizeof(base), path ? path : single->path, input);
        if (strcmp(base, "-") == 0 && (m->noutputs > 1 || o->resume))
            return bad_files(why, size, "standard output takes one output, and is not resumed", "");
        if (strcmp(base, "-") != 0 && !path && m->noutputs > 1) {
            plan_name(named, sizeof(named), base, m->outputs[i].name);
            memcpy(base, named, sizeof(base));
        }
        if (strcmp(base, "-") != 0 && o->shard.count) {
            snprintf(shard, sizeof(shard), "shard-%05u-of-%05u", o->shard.index, o->shard.count);
            plan_name(named, sizeof(named), base, shard);
            memcpy(base, named, sizeof(base));
        }
        memcpy(f->outputs[i], base, sizeof(base));
    }
    return EXIT_OK;
}

// A finished output that --resume finds again is a job that needs nothing.
static bool finished_before(const struct options *o, const sonic_model_t *m,
                            const struct job_files *f)
{
    for (unsigned i = 0; i < m->noutputs; i++)
        if (access(f->outputs[i], F_OK) != 0)
            return false;
    return o->resume && !o->force;
}

static int run_job(sonic_t **s, const struct options *o, const sonic_model_t *m,
                   struct job_files *f, char *why, size_t size)
{
    int rc = name_outputs(o, m, f->inputs[0], f, why, size);
    if (rc != EXIT_OK)
        return rc;
    f->title = m->name;
    for (unsigned i = 0; i < m->noutputs; i++)
        for (unsigned k = 0; k < m->ninputs; k++)
            if (same_file(f->outputs[i], f->inputs[k]))
                return bad_files(why, size, "the output would replace the input: ", f->inputs[k]);
    if (finished_before(o, m, f)) {
        if (!o->quiet)
            fprintf(stderr, "%s is there already: nothing to resume\n", f->outputs[0]);
        return EXIT_OK;
    }
    return job_run(s, o, m, f, &stop, why, size);
}

static int run_jobs(sonic_t **s, const struct options *o, char *why, size_t size)
{
    static sonic_model_t model;
    static struct job_files files;
    int worst = find_model(*s, o, &model, why, size);
    if (worst != EXIT_OK)
        return worst;
    if (!are_tensors(o, &model, why, size))
        return EXIT_USAGE;
    if (model.ninputs > 1) {
        int rc = named_inputs(o, &model, &files, why, size);
        return rc ? rc : run_job(s, o, &model, &files, why, size);
    }
    if (o->ninputs > 1 && !(o->noutputs == 1 && is_folder(o->outputs[0].path)))
        return bad_files(why, size, "several input files need a folder that exists as --output: ",
                         o->outputs[0].path);
    for (size_t i = 0; i < o->ninputs; i++) {
        files.inputs[0] = o->inputs[i].path;
        int rc = run_job(s, o, &model, &files, why, size);
        if (rc != EXIT_OK)
            worst = rc;
        if (rc != EXIT_OK && rc != EXIT_JOB_FAILED)
            break;
    }
    return worst;
}

int main(int argc, char **argv)
{
    struct options o;
    char why[8192] = "";
    int status;
    sonic_t *s = NULL;
    if (!options_parse(argc, argv, &o, &status, why, sizeof(why))) {
        if (status != EXIT_OK)
            fprintf(stderr, "sonic-submit: %s\n", why);
        options_deinit(&o);
        return status;
    }
    watch_signals();
    sonic_options_t so = {.endpoint = o.endpoint,
                          .tenant = o.tenant,
                          .software = "sonic-submit/" SONIC_VERSION,
                          .window_requests = o.window,
                          .lost_after_ms = o.timeout_ms};
    if (sonic_open(&s, &so) != 0) {
        snprintf(why, sizeof(why), "%s", sonic_error(s));
        status = EXIT_USAGE;
    } else if (o.command == COMMAND_JOB) {
        status = run_jobs(&s, &o, why, sizeof(why));
    } else if (o.command == COMMAND_MODELS) {
        status = print_models(s, &o, why, sizeof(why));
    } else {
        status = print_text(s, &o, o.command == COMMAND_STATUS ? "status" : "placement", why,
                            sizeof(why));
    }
    sonic_close(s);
    if (status != EXIT_OK && status != EXIT_JOB_FAILED && status != EXIT_INTERRUPTED)
        fprintf(stderr, "sonic-submit: %s\n", why);
    options_deinit(&o);
    return status;
}
