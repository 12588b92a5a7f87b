// SPDX-License-Identifier: Apache-2.0
#include "common/model_repository.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/name.h"

#define CONFIG_BYTES_MAX (1u << 20)

// The whole file, malloc'd. A negative errno with words.
static int read_file(const char *path, char **text, size_t *len, char *why, size_t size)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        int e = errno;
        snprintf(why, size, "%s: %s", path, strerror(e));
        return -e;
    }
    *text = malloc(CONFIG_BYTES_MAX + 1);
    *len = *text ? fread(*text, 1, CONFIG_BYTES_MAX + 1, file) : 0;
    bool failed = !*text || ferror(file);
    fclose(file);
    if (failed || *len > CONFIG_BYTES_MAX) {
        snprintf(why, size, "%s: %s", path, failed ? "cannot be read" : "is over 1 MiB");
        free(*text);
        return -EIO;
    }
    return 0;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool version_served(const struct model_config *c, uint32_t version)
{
    for (uint32_t i = 0; i < c->nversions; i++)
        if (c->versions[i] == version)
            return true;
    return c->nversions == 0;
}

// The highest numeric folder that the policy serves; 0 when there is none.
static uint32_t find_version(const char *dir, const struct model_config *c)
{
    uint32_t best = 0;
    DIR *d = opendir(dir);
    if (!d)
        return 0;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        char *end, path[4096];
        unsigned long v = strtoul(e->d_name, &end, 10);
        if (e->d_name[0] < '1' || e->d_name[0] > '9' || *end || v > UINT32_MAX)
            continue;
        if (snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < (int)sizeof(path) &&
            is_folder(path) && version_served(c, (uint32_t)v) && v > best)
            best = (uint32_t)v;
    }
    closedir(d);
    return best;
}

static int no_such_model(const char *root, const char *name, char *why, size_t size)
{
    char **names;
    size_t n;
    char reason[512];
    int used = snprintf(why, size, "%s: there is no model \"%s\"", root, name);
    if (model_repository_list(root, &names, &n, reason, sizeof(reason)) != 0) {
        snprintf(why, size, "%s", reason);
        return -ENOENT;
    }
    for (size_t i = 0; i < n && used > 0 && (size_t)used < size; i++)
        used +=
            snprintf(why + used, size - (size_t)used, "%s%s", i ? ", " : "; there are: ", names[i]);
    free(names);
    return -ENOENT;
}

int model_repository_read(const char *root, const char *name, struct model_entry *e,
                          model_warn_fn warn, void *user, char *why, size_t size)
{
    char dir[3072], path[3100];
    char *text = NULL;
    size_t len = 0;
    if (!name_is_model(name, strlen(name))) {
        snprintf(why, size, "\"%s\" is no name of a model (a-z 0-9 . _ -)", name);
        return -EINVAL;
    }
    if (snprintf(dir, sizeof(dir), "%s/%s", root, name) >= (int)sizeof(dir)) {
        snprintf(why, size, "%s: the path is too long", root);
        return -ENAMETOOLONG;
    }
    snprintf(path, sizeof(path), "%s/config.pbtxt", dir);
    int rc = read_file(path, &text, &len, why, size);
    if (rc == -ENOENT)
        return no_such_model(root, name, why, size);
    if (rc != 0)
        return rc;
    rc = model_config_parse(text, len, path, &e->config, warn, user, why, size);
    free(text);
    if (rc != 0)
        return rc;
    if (!e->config.name[0])
        memcpy(e->config.name, name, strlen(name) + 1);
    if (strcmp(e->config.name, name) != 0) {
        snprintf(why, size, "%s: the name in it is \"%s\", the folder is \"%s\": make them equal",
                 path, e->config.name, name);
        return -EINVAL;
    }
    e->config.version = find_version(dir, &e->config);
    if (e->config.version == 0) {
        snprintf(why, size,
                 "%s: there is no version folder that version_policy serves, such as "
                 "%s/1",
                 dir, dir);
        return -ENOENT;
    }
    snprintf(e->dir, sizeof(e->dir), "%s/%u", dir, e->config.version);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Adds a name to the growing list. False: out of memory.
static bool add_name(char ***names, size_t *n, const char *name)
{
    char **more = realloc(*names, (*n + 1) * sizeof(*more));
    if (!more)
        return false;
    *names = more;
    more[*n] = strdup(name);
    return more[(*n)++] != NULL;
}

// One allocation of pointers and characters out of the list, which is freed.
static char **pack_names(char **names, size_t n)
{
    size_t bytes = n * sizeof(char *) + 1;
    for (size_t i = 0; i < n; i++)
        bytes += strlen(names[i]) + 1;
    char **packed = malloc(bytes);
    char *at = packed ? (char *)(packed + n) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (packed) {
            size_t len = strlen(names[i]) + 1;
            packed[i] = memcpy(at, names[i], len);
            at += len;
        }
        free(names[i]);
    }
    free(names);
    return packed;
}

int model_repository_list(const char *root, char ***names, size_t *n, char *why, size_t size)
{
    DIR *d = opendir(root);
    char **found = NULL;
    bool ok = true;
    *n = 0;
    if (!d) {
        int e = errno;
        snprintf(why, size, "%s: cannot be read as a model repository: %s", root, strerror(e));
        return -e;
    }
    for (struct dirent *e = readdir(d); e && ok; e = readdir(d)) {
        char path[4096];
        struct stat st;
        if (!name_is_model(e->d_name, strlen(e->d_name)) ||
            snprintf(path, sizeof(path), "%s/%s/config.pbtxt", root, e->d_name) >=
                (int)sizeof(path) ||
            stat(path, &st) != 0)
            continue;
        ok = add_name(&found, n, e->d_name);
    }
    closedir(d);
    if (*n)
        qsort(found, *n, sizeof(*found), by_name);
    *names = ok ? pack_names(found, *n) : NULL;
    if (*names)
        return 0;
    snprintf(why, size, "%s: out of memory", root);
    return -ENOMEM;
}
