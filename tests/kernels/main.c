// SPDX-License-Identifier: Apache-2.0
// check_kernels: each kernel of the overlay against plain C on a device, in checkasm's manner; the
// same binary is their bench.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/bench.h"
#include "tests/kernels/cases.h"

#define SKIPPED 77

static const char usage[] =
    "check_kernels [options] OVERLAY.cl [OVERLAY_WIDE.cl]\n"
    "  --platform NAME   the first OpenCL platform with NAME in its name (default: the first)\n"
    "  --options TEXT    build options (default: -cl-std=CL1.2)\n"
    "  --kernel NAME     this kernel alone\n"
    "  --seed N, --cases N   where to begin, and how many cases of each kernel (200)\n"
    "  --small           small shapes and buffers without canaries: under Oclgrind\n"
    "  --bench           time the kernels instead\n";

struct run {
    const char *platform, *options, *kernel;
    char **sources;
    uint64_t seed;
    int cases;
    bool small, bench;
};

static bool parse(struct run *r, int argc, char **argv)
{
    static const struct option longs[] = {{"platform", 1, NULL, 'p'}, {"options", 1, NULL, 'o'},
                                          {"kernel", 1, NULL, 'k'},   {"seed", 1, NULL, 's'},
                                          {"cases", 1, NULL, 'n'},    {"small", 0, NULL, 'S'},
                                          {"bench", 0, NULL, 'b'},    {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        switch (c) {
        case 'p':
            r->platform = optarg;
            break;
        case 'o':
            r->options = optarg;
            break;
        case 'k':
            r->kernel = optarg;
            break;
        case 's':
            r->seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            r->cases = atoi(optarg);
            break;
        case 'S':
            r->small = true;
            break;
        case 'b':
            r->bench = true;
            break;
        default:
            return false;
        }
    r->sources = argv + optind;
    return *r->sources;
}

// Each case has a seed of its own, so that a failed one can be repeated alone.
static int check(struct device *d, const struct run *r)
{
    int failed = 0;
    for (uint32_t i = 0; i < kernel_cases_count; i++) {
        const struct kernel_case *k = &kernel_cases[i];
        if (r->kernel && strcmp(r->kernel, k->kernel) != 0)
            continue;
        int bad = 0;
        for (int n = 0; n < r->cases && bad < 3; n++) {
            uint64_t seed = r->seed + (uint64_t)n;
            struct test t = {
                .device = d, .random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .small = r->small};
            if (k->run(&t))
                continue;
            bad++;
            printf("%s: %s\n  %s\n  again: --kernel %s --seed %llu --cases 1\n", k->kernel, t.why,
                   t.what, k->kernel, (unsigned long long)seed);
        }
        printf("%-16s %s\n", k->kernel, bad ? "FAILED" : "ok");
        failed += bad > 0;
    }
    return failed;
}

int main(int argc, char **argv)
{
    static char why[65536];
    struct run r = {.platform = "", .options = "-cl-std=CL1.2", .seed = 1, .cases = 200};
    bool absent;
    if (!parse(&r, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    struct device *d =
        device_open(r.platform, r.sources, r.options, r.small, &absent, why, sizeof why);
    if (!d) {
        printf("check_kernels: %s\n", why);
        return absent ? SKIPPED : 1;
    }
    printf("%s, options \"%s\", seed %llu, %d cases each\n", device_name(d), r.options,
           (unsigned long long)r.seed, r.cases);
    int failed = r.bench ? bench(d) : check(d, &r);
    device_close(d);
    return failed > 0;
}
