// SPDX-License-Identifier: Apache-2.0
// A model as its config.pbtxt declares it (Triton's field names), independent of any runtime.
// Workers read it from disk, offer it over the wire, and brokers check requests against it.
#ifndef SONIC_COMMON_MODEL_CONFIG_H
#define SONIC_COMMON_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/tensor.h"
#include "common/wire.h"

// instance_group kinds of Triton, plus FPGA as SONIC's own.
enum instance_kind { INSTANCE_AUTO, INSTANCE_CPU, INSTANCE_GPU, INSTANCE_FPGA };

#define MODEL_GPUS_MAX 16

struct model_instances {
    enum instance_kind kind;
    uint32_t count; // 0: the worker's own rule
    uint32_t ngpus; // 0: on every GPU
    uint32_t gpus[MODEL_GPUS_MAX];
};

struct model_parameter {
    char key[SONIC_NAME_MAX + 1];
    char value[256];
};

#define MODEL_PARAMETERS_MAX 32
#define MODEL_INSTANCE_GROUPS_MAX 8
#define MODEL_VERSIONS_MAX 16
// One dimension, rows of an execution, and a delay or deadline (a day): beyond what makes sense,
// and so far within 64 bits that sums of them cannot wrap.
#define MODEL_DIM_MAX (1ll << 40)
#define MODEL_BATCH_MAX (1u << 24)
#define MODEL_TIME_US_MAX 86400000000ll

struct model_config {
    char name[SONIC_NAME_MAX + 1];
    uint32_t version;      // of the folder that version_policy selected
    char backend[32];      // "onnxruntime", "opencl", "null", "delay"
    char file[128];        // default_model_filename, a name without a folder; "": model.onnx
    uint32_t batch_max;    // max_batch_size; 0: no batch dimension
    uint32_t default_rows; // parameters sonic_default_batch, else model_rows_that_fit
    uint64_t queue_delay_us;
    uint32_t npreferred;
    uint32_t preferred[SONIC_PREFERRED_MAX];
    uint8_t priority_levels; // 0: one level
    uint8_t default_priority;
    uint64_t default_deadline_us;
    uint32_t queue_max;
    uint32_t ninputs, noutputs;
    struct tensor_spec inputs[SONIC_TENSORS_MAX];
    struct tensor_spec outputs[SONIC_TENSORS_MAX];
    // The same as the runtime sees them: different where config.pbtxt says reshape.
    struct tensor_spec runtime_inputs[SONIC_TENSORS_MAX];
    struct tensor_spec runtime_outputs[SONIC_TENSORS_MAX];
    uint32_t version_latest; // version_policy latest { num_versions }
    uint32_t nversions;      // version_policy specific { versions }, 0: latest
    uint32_t versions[MODEL_VERSIONS_MAX];
    uint32_t ngroups;
    struct model_instances groups[MODEL_INSTANCE_GROUPS_MAX];
    uint32_t nparameters;
    struct model_parameter parameters[MODEL_PARAMETERS_MAX];
};

// The value of parameters { key }, or NULL.
const char *model_config_parameter(const struct model_config *c, const char *key);

// How many instances its groups ask for on a device of this kind (INSTANCE_AUTO: one that takes
// any), of this number among GPUs (-1: it has none): those without a count, and a model without
// groups, `otherwise`. 0: no group is for such a device.
uint32_t model_config_instances(const struct model_config *c, enum instance_kind kind, int gpu,
                                uint32_t otherwise);

// Checks a request's (or a result's) tensors against declared specs: count, dtype, rank, dims and
// that all have the same number of rows, 1..batch_max. Sets *rows (1 for an unbatched model) and
// *bytes (sum). On false, `why` (size bytes) says which tensor is wrong, what came, what is wanted.
bool model_check_tensors(const struct model_config *c, const struct tensor_spec *specs,
                         uint32_t nspecs, const struct tensor *tensors, uint32_t ntensors,
                         uint32_t *rows, uint64_t *bytes, char *why, size_t size);

// Whether one row of a spec can travel: what is fixed of it is within SONIC_FRAME_BYTES_MAX.
bool model_row_fits(const struct tensor_spec *spec);
// batch_max (at least 1), or as many rows as every declared tensor can have in one frame.
uint32_t model_rows_that_fit(const struct model_config *c);

// To and from the wire's model item. from_wire trusts nothing: names, types, dims, counts
// and bounds are verified, and false comes with words in `why`. to_wire borrows the config's
// strings.
void model_config_to_wire(const struct model_config *c, struct wire_join_item *item);
bool model_config_from_wire(const struct wire_join_item *item, struct model_config *c, char *why,
                            size_t size);
// The same item layout serves CATALOG.
void model_config_to_catalog(const struct model_config *c, struct wire_catalog_item *item);
bool model_config_from_catalog(const struct wire_catalog_item *item, struct model_config *c,
                               char *why, size_t size);
// Whether two workers offer the same thing: names, types, shapes, batch. `why` names the
// difference.
bool model_config_agrees(const struct model_config *a, const struct model_config *b, char *why,
                         size_t size);

#endif
