// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/executors/cuda/process/onnx.h"

#define PREFIX "sonic_cuda_"

struct reader {
    const struct model_config *config;
    char *why;
    size_t size;
};

// One of `words` (ends with NULL) as its index, the first by default. -1: none of them, with words.
static int word(const struct reader *r, const char *key, const char *const *words)
{
    const char *text = model_config_parameter(r->config, key);
    int used = 0;
    for (int i = 0; words[i]; i++)
        if (!text || strcmp(text, words[i]) == 0)
            return i;
    used = snprintf(r->why, r->size, "model %s: %s is \"%s\"; possible are", r->config->name, key,
                    text);
    for (int i = 0; words[i] && used > 0 && (size_t)used < r->size; i++)
        used += snprintf(r->why + used, r->size - (size_t)used, " %s", words[i]);
    return -1;
}

static bool flag(const struct reader *r, const char *key, bool *out)
{
    static const char *const words[] = {"0", "1", NULL};
    int i = word(r, key, words);
    *out = i == 1;
    return i >= 0;
}

static bool take_words(const struct reader *r, struct onnx_settings *o)
{
    static const char *const providers[] = {"cuda", "tensorrt", NULL};
    static const char *const nodes[] = {"warn", "refuse", NULL};
    static const char *const searches[] = {"HEURISTIC", "EXHAUSTIVE", "DEFAULT", NULL};
    int provider = word(r, PREFIX "provider", providers);
    int node = provider < 0 ? -1 : word(r, PREFIX "cpu_nodes", nodes);
    int search = node < 0 ? -1 : word(r, PREFIX "cudnn_search", searches);
    o->tensorrt = provider == 1;
    o->refuses_cpu_nodes = node == 1;
    o->search = searches[search < 0 ? 0 : search];
    return search >= 0 && flag(r, PREFIX "tf32", &o->tf32) &&
           flag(r, PREFIX "graphs", &o->graphs) && flag(r, PREFIX "tensorrt_fp16", &o->fp16);
}

// TensorRT's provider captures one graph and replays it whatever is bound: another slot's rows.
static bool fit_together(const struct reader *r, const struct onnx_settings *o)
{
    if (!o->tensorrt || !o->graphs)
        return true;
    snprintf(
        r->why, r->size,
        "model %s: sonic_cuda_graphs is for sonic_cuda_provider \"cuda\" alone: TensorRT keeps "
        "one graph, not one for each slot and number of rows; remove one of the two",
        r->config->name);
    return false;
}

static bool take_file(const struct reader *r, struct onnx_settings *o)
{
    const char *file = model_config_parameter(r->config, PREFIX "model");
    const char *by_default = r->config->file[0] ? r->config->file : "model.onnx";
    snprintf(o->file, sizeof(o->file), "%s", file ? file : by_default);
    if (!strchr(o->file, '/') && (!file || file[0]))
        return true;
    snprintf(r->why, r->size,
             "model %s: sonic_cuda_model is \"%s\"; a file in the version's folder is wanted, "
             "without a path",
             r->config->name, file);
    return false;
}

static bool take_arena(const struct reader *r, struct onnx_settings *o)
{
    const char *text = model_config_parameter(r->config, PREFIX "memory_mib");
    char *end;
    if (!text)
        return true;
    o->arena_mib = strtoul(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && !*end && o->arena_mib >= 1 && o->arena_mib <= 1u << 24)
        return true;
    snprintf(r->why, r->size, "model %s: sonic_cuda_memory_mib is \"%s\"; 1 to %u MiB are possible",
             r->config->name, text, 1u << 24);
    return false;
}

static void take_engines(const struct reader *r, struct onnx_settings *o)
{
    const char *folder = model_config_parameter(r->config, PREFIX "tensorrt_cache");
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (folder)
        snprintf(o->engines, sizeof(o->engines), "%s", folder);
    else if (cache && cache[0] == '/')
        snprintf(o->engines, sizeof(o->engines), "%s/sonic-tensorrt", cache);
    else if (home && home[0] == '/')
        snprintf(o->engines, sizeof(o->engines), "%s/.cache/sonic-tensorrt", home);
}

static bool know_all(const struct reader *r)
{
    static const char *const known[] = {
        "model",      "provider", "tf32",   "graphs",         "cpu_nodes",     "cudnn_search",
        "memory_mib", "buckets",  "kernel", "tensorrt_cache", "tensorrt_fp16",
    };
    for (uint32_t i = 0; i < r->config->nparameters; i++) {
        const char *key = r->config->parameters[i].key;
        bool good = strncmp(key, PREFIX, sizeof(PREFIX) - 1) != 0;
        for (size_t k = 0; k < sizeof(known) / sizeof(known[0]) && !good; k++)
            good = strcmp(key + sizeof(PREFIX) - 1, known[k]) == 0;
        if (good)
            continue;
        snprintf(r->why, r->size, "model %s: there is no parameter %s; docs/gpu.md lists them",
                 r->config->name, key);
        return false;
    }
    return true;
}

int onnx_settings_read(struct onnx_settings *o, const struct model_config *c, char *why,
                       size_t size)
{
    struct reader r = {c, why, size};
    *o = (struct onnx_settings){0};
    take_engines(&r, o);
    return know_all(&r) && take_words(&r, o) && fit_together(&r, o) && take_file(&r, o) &&
                   take_arena(&r, o)
               ? 0
               : -EINVAL;
}
