// SPDX-License-Identifier: Apache-2.0
#include "client/submit/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/submit/progress.h"

void report_open(struct report *r, uint64_t now_us)
{
    memset(r, 0, sizeof(*r));
    r->start_us = r->end_us = now_us;
}

void report_deinit(struct report *r)
{
    free(r->latency_us);
    r->latency_us = NULL;
}

// A sample that does not fit memory is left out of the percentiles, nothing more.
static void add_latency(struct report *r, uint64_t us)
{
    if (r->nlatencies == r->latencies_size) {
        size_t n = r->latencies_size ? 2 * r->latencies_size : 4096;
        uint32_t *more = realloc(r->latency_us, n * sizeof(*more));
        if (!more)
            return;
        r->latency_us = more;
        r->latencies_size = n;
    }
    r->latency_us[r->nlatencies++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

void report_result(struct report *r, const sonic_result_t *result, uint64_t first_row,
                   uint32_t rows, uint64_t bytes_in)
{
    r->requests++;
    r->retried += result->attempts > 1;
    r->input_bytes += bytes_in;
    r->by_status[(unsigned)result->status % 32]++;
    if (result->status != SONIC_OK) {
        r->failed_items += rows;
        if (r->nexamples < REPORT_EXAMPLES)
            snprintf(r->examples[r->nexamples++], sizeof(r->examples[0]),
                     "rows %" PRIu64 " to %" PRIu64 ": %s: %s", first_row, first_row + rows - 1,
                     sonic_status_string(result->status), result->text);
        return;
    }
    r->items += rows;
    r->executions += result->exec_rows ? (double)rows / result->exec_rows : 1;
    for (unsigned i = 0; i < result->noutputs; i++)
        r->output_bytes += result->outputs[i].bytes;
    add_latency(r, result->latency_us);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(const struct report *r, double share)
{
    if (r->nlatencies == 0)
        return 0;
    size_t i = (size_t)(share * (double)(r->nlatencies - 1) + 0.5);
    return r->latency_us[i] / 1e3;
}

struct figures {
    double seconds, rate, batch, p50_ms, p99_ms;
};

static struct figures figures(struct report *r)
{
    struct figures f = {.seconds = (double)(r->end_us - r->start_us) / 1e6};
    if (r->nlatencies)
        qsort(r->latency_us, r->nlatencies, sizeof(r->latency_us[0]), by_value);
    f.rate = f.seconds > 0 ? (double)r->items / f.seconds : 0;
    f.batch = r->executions > 0 ? (double)r->items / r->executions : 0;
    f.p50_ms = percentile_ms(r, 0.5);
    f.p99_ms = percentile_ms(r, 0.99);
    return f;
}

void report_print(struct report *r, const char *model, const char (*outputs)[4096], unsigned n)
{
    struct figures f = figures(r);
    char rate[24];
    progress_count(rate, sizeof(rate), f.rate);
    fprintf(stderr,
            "%s: %" PRIu64 " items in %.2f s, %s items/s, mean batch %.1f, p50 %.2f ms, p99 %.2f "
            "ms",
            model, r->items, f.seconds, rate, f.batch, f.p50_ms, f.p99_ms);
    for (unsigned i = 0; outputs && i < n; i++)
        fprintf(stderr, "%s%s", i ? ", " : " -> ", outputs[i]);
    fputc('\n', stderr);
    if (r->resumed_items)
        fprintf(stderr, "%s: %" PRIu64 " items were finished before and not computed again\n",
                model, r->resumed_items);
    for (unsigned s = 1; s < 32; s++)
        if (r->by_status[s])
            fprintf(stderr, "%s: %" PRIu64 " requests failed: %s\n", model, r->by_status[s],
                    sonic_status_string((sonic_status_t)s));
    for (size_t i = 0; i < r->nexamples; i++)
        fprintf(stderr, "  %s\n", r->examples[i]);
}

static void json_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

void report_json(struct report *r, const char *model, const char (*outputs)[4096], unsigned n,
                 const char *state)
{
    struct figures f = figures(r);
    printf("{\"model\": ");
    json_string(model);
    for (unsigned i = 0; i < n; i++) {
        printf(i ? ", " : ", \"outputs\": [");
        json_string(outputs[i]);
    }
    printf("], \"state\": ");
    json_string(state);
    printf(", \"items\": %" PRIu64 ", \"resumed_items\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"requests\": %" PRIu64 ", \"retried\": %" PRIu64,
           r->items, r->resumed_items, r->failed_items, r->requests, r->retried);
    printf(", \"seconds\": %.6f, \"items_per_s\": %.3f, \"mean_batch\": %.3f, \"p50_ms\": %.3f, "
           "\"p99_ms\": %.3f, \"input_bytes\": %" PRIu64 ", \"output_bytes\": %" PRIu64 "}\n",
           f.seconds, f.rate, f.batch, f.p50_ms, f.p99_ms, r->input_bytes, r->output_bytes);
    fflush(stdout);
}
