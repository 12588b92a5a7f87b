// SPDX-License-Identifier: Apache-2.0
// Which chunks of a job are finished: an append-only file beside the output. Its head is the job's
// fingerprint (what is computed from what), then a 16-byte record a finished chunk. A record is
// written only after the chunk's bytes are on disk, so a job that is killed at any point resumes
// from what is true; a torn record at the end is ignored.
#ifndef SONIC_CLIENT_SUBMIT_LEDGER_H
#define SONIC_CLIENT_SUBMIT_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ledger {
    int fd;
    char path[4200];
    uint64_t chunks, finished; // finished: committed or pending
    uint8_t *bitmap;           // of chunks
    uint64_t *pending;         // finished, their records not written yet
    size_t npending, pending_size;
};

// Starts a new ledger at `path` (replacing an old one). 0 or a negative errno with words.
int ledger_create(struct ledger *l, const char *path, const char *fingerprint, uint64_t chunks,
                  char *why, size_t size);
// Opens the ledger of an interrupted job. -EINVAL with words that name the first line in which the
// fingerprints differ; -ENOENT when there is none.
int ledger_resume(struct ledger *l, const char *path, const char *fingerprint, uint64_t chunks,
                  char *why, size_t size);
bool ledger_has(const struct ledger *l, uint64_t chunk);
// Notes a chunk as finished; its record is written by the next commit. False: out of memory.
bool ledger_note(struct ledger *l, uint64_t chunk);
// Writes the pending records. The caller has synced the outputs before. 0 or a negative errno.
int ledger_commit(struct ledger *l);
// Closes; `remove`: the job is whole, the file goes.
void ledger_close(struct ledger *l, bool remove);

#endif
