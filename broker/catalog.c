// SPDX-License-Identifier: Apache-2.0
#include "broker/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/model_repository.h"

struct catalog {
    struct farm *farm;
    size_t n;
    struct {
        struct model_config *config;
        farm_model_id id;
        bool kept; // of our own repository
    } models[SONIC_MODELS_MAX];
};

struct catalog *catalog_new(struct farm *farm)
{
    struct catalog *c = calloc(1, sizeof(*c));
    if (c)
        c->farm = farm;
    return c;
}

void catalog_free(struct catalog *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++)
        free(c->models[i].config);
    free(c);
}

static void farm_config_of(const struct model_config *config, struct farm_model_config *out)
{
    memset(out, 0, sizeof(*out));
    memcpy(out->name, config->name, sizeof(out->name));
    out->version = config->version;
    out->batch_max = config->batch_max ? config->batch_max : 1;
    out->queue_delay_us = config->queue_delay_us;
    out->npreferred = config->npreferred;
    memcpy(out->preferred, config->preferred, sizeof(out->preferred));
    out->priority_levels = config->priority_levels ? config->priority_levels : 1;
    out->default_priority = config->default_priority;
    out->default_deadline_us = config->default_deadline_us;
    out->queue_max = config->queue_max;
}

static const struct model_config *find(const struct catalog *c, const struct model_config *config,
                                       farm_model_id *id)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct model_config *known = c->models[i].config;
        if (known->version == config->version && strcmp(known->name, config->name) == 0) {
            *id = c->models[i].id;
            return known;
        }
    }
    return NULL;
}

// When no more models fit: the place of one that a worker once declared and nobody has any more.
static farm_model_id take_place(struct catalog *c, const struct model_config *config,
                                const struct farm_model_config *farm_config)
{
    for (size_t i = 0; i < c->n; i++)
        if (!c->models[i].kept && farm_model_replace(c->farm, c->models[i].id, farm_config)) {
            *c->models[i].config = *config;
            return c->models[i].id;
        }
    return FARM_NONE;
}

farm_model_id catalog_add(struct catalog *c, const struct model_config *config, char *why,
                          size_t size)
{
    farm_model_id id;
    const struct model_config *known = find(c, config, &id);
    if (known)
        return model_config_agrees(known, config, why, size) ? id : FARM_NONE;
    struct farm_model_config farm_config;
    farm_config_of(config, &farm_config);
    if (c->n == SONIC_MODELS_MAX && (id = take_place(c, config, &farm_config)) != FARM_NONE)
        return id;
    struct model_config *copy = malloc(sizeof(*copy));
    id = copy && c->n < SONIC_MODELS_MAX ? farm_model_add(c->farm, &farm_config) : FARM_NONE;
    if (id == FARM_NONE) {
        free(copy);
        snprintf(why, size, "this farm knows %u models already and takes no more",
                 SONIC_MODELS_MAX);
        return FARM_NONE;
    }
    *copy = *config;
    c->models[c->n].config = copy;
    c->models[c->n].id = id;
    c->models[c->n].kept = false;
    c->n++;
    return id;
}

static void warn(const char *line, void *user)
{
    (void)user;
    log_warn("config", "text=\"%s\"", line);
}

int catalog_read(struct catalog *c, const char *root, char *why, size_t size)
{
    char **names;
    size_t n;
    int rc = model_repository_list(root, &names, &n, why, size);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        struct model_entry entry;
        char reason[SONIC_TEXT_MAX];
        if (model_repository_read(root, names[i], &entry, warn, NULL, reason, sizeof(reason)) !=
                0 ||
            catalog_add(c, &entry.config, reason, sizeof(reason)) == FARM_NONE)
            log_error("model_skipped", "model=%s why=\"%s\"", names[i], reason);
        else
            c->models[c->n - 1].kept = true;
    }
    free(names);
    return 0;
}

const struct model_config *catalog_model(const struct catalog *c, farm_model_id id)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->models[i].id == id)
            return c->models[i].config;
    return NULL;
}

const struct model_config *catalog_at(const struct catalog *c, size_t i)
{
    return i < c->n ? c->models[i].config : NULL;
}

void catalog_names(const struct catalog *c, char *buf, size_t size)
{
    size_t used = 0;
    if (size)
        buf[0] = '\0';
    for (size_t i = 0; i < c->n && used < size; i++) {
        int n = snprintf(buf + used, size - used, "%s%s", i ? ", " : "", c->models[i].config->name);
        used += n > 0 ? (size_t)n : 0;
    }
}
