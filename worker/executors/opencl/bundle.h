// SPDX-License-Identifier: Apache-2.0
// A bundle's manifest (docs/bundle.md): programs, buffers, launches, and how tensors become
// buffers. Read by the worker, which converts, and by the device process, which executes.
#ifndef SONIC_WORKER_EXECUTORS_OPENCL_BUNDLE_H
#define SONIC_WORKER_EXECUTORS_OPENCL_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/model_config.h"

#define BUNDLE_FOLDER "opencl" // in the model's version folder
#define BUNDLE_FILE "bundle.pbtxt"

// No device and no plan of a model needs more.
#define BUNDLE_PROGRAMS_MAX 8u
#define BUNDLE_UNITS_MAX 16u
#define BUNDLE_BUFFERS_MAX 1024u
#define BUNDLE_LAUNCHES_MAX 2048u
#define BUNDLE_ARGS_MAX 32u
#define BUNDLE_LANES_MAX 32u     // launches at the same time
#define BUNDLE_COLUMNS_MAX 4096u // of one tensor
#define BUNDLE_INDICES_MAX 16u
#define BUNDLE_ROWS_MAX (1u << 20)
#define BUNDLE_NAME_MAX 127u
#define BUNDLE_BUFFER_BYTES_MAX (UINT64_C(1) << 36)

struct bundle_program {
    char platform[BUNDLE_NAME_MAX + 1], device[BUNDLE_NAME_MAX + 1]; // parts of names, "": any
    char file[BUNDLE_NAME_MAX + 1];
    char options[1024];
    bool source, unchecked;
    uint32_t nunits;
    char units[BUNDLE_UNITS_MAX][BUNDLE_NAME_MAX + 1];
};

enum bundle_use { BUNDLE_INPUT, BUNDLE_OUTPUT, BUNDLE_WEIGHTS, BUNDLE_SCRATCH };

struct bundle_buffer {
    char name[BUNDLE_NAME_MAX + 1];
    enum bundle_use use;
    uint64_t bytes, offset;
    uint32_t nbanks, banks[BUNDLE_UNITS_MAX]; // none: where its units reach
};

struct bundle_column {
    uint32_t from, to;
    float scale, offset;
};

struct bundle_index {
    uint32_t from, count, to;
};

// Columns that lie side by side on both sides: their factors are io->scales and io->offsets from
// `first` on.
struct bundle_span {
    uint32_t from, to, count, first;
};

// A tensor and its buffer. Which of the fields are meaningful depends on the direction.
struct bundle_io {
    char tensor[SONIC_NAME_MAX + 1];
    uint32_t spec;     // of the config's inputs or outputs
    uint32_t elements; // of a row of it
    uint32_t buffer;
    uint8_t type; // enum sonic_dtype, as stored
    uint64_t stride;
    bool floor; // rounding
    float scale, offset, min, max;
    uint32_t ncolumns, nindices, nscales, nspans;
    struct bundle_column *columns;
    float *scales; // of an output, one an element; of an input, one a column; NULL: `scale` for all
    float *offsets; // of an input, one a column
    struct bundle_span *spans;
    struct bundle_index indices[BUNDLE_INDICES_MAX];
};

enum bundle_arg_kind {
    BUNDLE_ARG_BUFFER,
    BUNDLE_ARG_INT,
    BUNDLE_ARG_FLOAT,
    BUNDLE_ARG_LOCAL,
    BUNDLE_ARG_ROWS
};

struct bundle_arg {
    enum bundle_arg_kind kind;
    union {
        uint32_t buffer;
        int32_t integer;
        float real;
        uint32_t local_bytes;
    } is;
};

struct bundle_size {
    uint64_t size;
    bool rows; // times the rows of the run
};

struct bundle_launch {
    char kernel[BUNDLE_NAME_MAX + 1];
    uint32_t nargs, nglobal, nlocal;
    bool concurrent; // with the launch before it
    uint32_t lane;   // from 1 on, of those at the same time; 0: it runs alone
    struct bundle_arg args[BUNDLE_ARGS_MAX];
    struct bundle_size global[3]; // none: a single task
    uint64_t local[3];
};

struct bundle {
    char dir[4096];
    uint32_t rows;
    char weights[BUNDLE_NAME_MAX + 1];
    uint32_t nprograms, nbuffers, nlaunches, nlanes, ninputs, noutputs;
    struct bundle_program programs[BUNDLE_PROGRAMS_MAX];
    struct bundle_buffer *buffers;
    struct bundle_launch *launches;
    struct bundle_io inputs[SONIC_TENSORS_MAX], outputs[SONIC_TENSORS_MAX]; // in the config's order
};

// Whether the version folder has a bundle.
bool bundle_is_there(const char *version_dir);
// Reads the manifest of the bundle in a version folder and checks it against the declaration.
// Without a config (the device process) the tensors stay unchecked. 0, or a negative errno with
// "file:line:column: ..." in `why`; bundle_deinit either way.
int bundle_read(struct bundle *b, const char *version_dir, const struct model_config *config,
                char *why, size_t size);
void bundle_deinit(struct bundle *b);

// The INPUT and OUTPUT buffers of one slot lie one after another in memory that worker and device
// process share, each on a page. Where buffer i begins, and what they take together.
uint64_t bundle_slot_offset(const struct bundle *b, uint32_t i);
uint64_t bundle_slot_bytes(const struct bundle *b);

#endif
