// SPDX-License-Identifier: Apache-2.0
#include "common/model_repository.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/name.h"
#include "common/pbtxt.h"

static int fail_errno(const char *path, int e, char *why, size_t size)
{
    snprintf(why, size, "%s: cannot be read: %s", path, strerror(e));
    return -e;
}

// The whole file, malloc'd. A negative errno with words. Not blocking, so that a pipe under this
// name is an error and not a wait.
static int read_file(const char *path, char **text, size_t *len, char *why, size_t size)
{
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(path, errno, why, size);
    *len = 0;
    *text = malloc(PBTXT_BYTES_MAX + 1);
    if (!*text) {
        rc = fail_errno(path, ENOMEM, why, size);
    } else if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        snprintf(why, size, "%s: is not a file", path);
        rc = -EINVAL;
    }
    while (rc == 0 && *len <= PBTXT_BYTES_MAX) {
        ssize_t n = read(fd, *text + *len, PBTXT_BYTES_MAX + 1 - *len);
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            rc = fail_errno(path, errno, why, size);
        *len += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    if (rc != 0)
        free(*text);
    return rc;
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

// A version's folder is a number without a sign or a leading zero. 0: it is none.
static uint32_t version_of(const char *dir, const char *name)
{
    char path[4096], *end;
    unsigned long v = strtoul(name, &end, 10);
    if (name[0] < '1' || name[0] > '9' || *end || v > UINT32_MAX)
        return 0;
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path) || !is_folder(path))
        return 0;
    return (uint32_t)v;
}

// The version that the policy wants, in its words.
static void print_policy(const struct model_config *c, char *buf, size_t size)
{
    size_t used = (size_t)snprintf(buf, size, "%s", c->nversions ? "specific" : "latest");
    for (uint32_t i = 0; i < c->nversions && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, "%s %u", i ? "," : "", c->versions[i]);
}

// Sets the config's version: the highest numeric folder that its policy serves.
static int find_version(const char *dir, struct model_config *c, char *why, size_t size)
{
    uint32_t highest = 0;
    char policy[256];
    DIR *d = opendir(dir);
    if (!d)
        return fail_errno(dir, errno, why, size);
    c->version = 0;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        uint32_t v = version_of(dir, e->d_name);
        highest = v > highest ? v : highest;
        if (v > c->version && version_served(c, v))
            c->version = v;
    }
    closedir(d);
    if (c->version)
        return 0;
    print_policy(c, policy, sizeof(policy));
    if (highest)
        snprintf(why, size,
                 "%s: version_policy (%s) serves none of its versions, the highest of which is %u: "
                 "change one of them",
                 dir, policy, highest);
    else
        snprintf(why, size, "%s: it has no version: put the model into a folder such as %s/1", dir,
                 dir);
    return -ENOENT;
}

static int no_such_model(const char *root, const char *name, const char *dir, char *why,
                         size_t size)
{
    char **names;
    size_t n;
    if (is_folder(dir)) {
        snprintf(why, size, "%s: its config.pbtxt is missing", dir);
        return -ENOENT;
    }
    int rc = model_repository_list(root, &names, &n, why, size);
    if (rc != 0)
        return rc;
    size_t used = (size_t)snprintf(why, size, "%s: there is no model \"%s\"; there %s", root, name,
                                   n ? "are: " : "is none (a folder with a config.pbtxt)");
    for (size_t i = 0; i < n && used < size; i++)
        used += (size_t)snprintf(why + used, size - used, "%s%s", i ? ", " : "", names[i]);
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
        snprintf(why, size, "\"%s\" is no name of a model (1 to 64 of a-z 0-9 . _ -)", name);
        return -EINVAL;
    }
    if (snprintf(dir, sizeof(dir), "%s/%s", root, name) >= (int)sizeof(dir)) {
        snprintf(why, size, "%s: the path is too long", root);
        return -ENAMETOOLONG;
    }
    snprintf(path, sizeof(path), "%s/config.pbtxt", dir);
    int rc = read_file(path, &text, &len, why, size);
    if (rc == -ENOENT)
        return no_such_model(root, name, dir, why, size);
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
    rc = find_version(dir, &e->config, why, size);
    if (rc != 0)
        return rc;
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
    if (!more[*n])
        return false;
    (*n)++;
    return true;
}

static void free_names(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

// One allocation of pointers and characters; NULL without memory.
static char **pack_names(char *const *names, size_t n)
{
    size_t bytes = n * sizeof(char *) + 1;
    for (size_t i = 0; i < n; i++)
        bytes += strlen(names[i]) + 1;
    char **packed = malloc(bytes);
    char *at = packed ? (char *)(packed + n) : NULL;
    for (size_t i = 0; packed && i < n; i++) {
        size_t len = strlen(names[i]) + 1;
        packed[i] = memcpy(at, names[i], len);
        at += len;
    }
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
    free_names(found, *n);
    if (*names)
        return 0;
    snprintf(why, size, "%s: out of memory", root);
    return -ENOMEM;
}
