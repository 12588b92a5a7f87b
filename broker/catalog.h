// SPDX-License-Identifier: Apache-2.0
// The models that this broker has heard of: from its own repository (--models) or from workers. The
// first declaration of a model holds as long as the broker lives; another must agree with it.
#ifndef SONIC_BROKER_CATALOG_H
#define SONIC_BROKER_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/core/farm.h"
#include "common/model_config.h"

struct catalog;

struct catalog *catalog_new(struct farm *farm);
void catalog_free(struct catalog *c);
// Reads a model repository. 0, or a negative errno with `why`; a single broken model is only
// logged.
int catalog_read(struct catalog *c, const char *root, char *why, size_t size);
// Adds a declaration. Its id; FARM_NONE with `why` when it disagrees with the known one or the
// catalogue is full.
farm_model_id catalog_add(struct catalog *c, const struct model_config *config, char *why,
                          size_t size);
// By farm id; NULL when there is none.
const struct model_config *catalog_model(const struct catalog *c, farm_model_id id);
// i = 0, 1, ...; NULL past the end.
const struct model_config *catalog_at(const struct catalog *c, size_t i);
// "deepcalo, facile" for messages to people.
void catalog_names(const struct catalog *c, char *buf, size_t size);

#endif
