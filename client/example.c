// SPDX-License-Identifier: Apache-2.0
// The smallest asynchronous client: 100 FACILE requests of 1,000 channels each, results as they
// come. Build: cc example.c $(pkg-config --cflags --libs sonic)
#include <sonic.h>
#include <stdio.h>
#include <stdlib.h>

static void on_result(const sonic_result_t *result, void *user)
{
    const float *energy = result->noutputs ? result->outputs[0].data : NULL;
    if (result->status == SONIC_OK)
        printf("request %d: first energy %.3f GeV (batch %u)\n", *(int *)user, energy[0],
               result->exec_rows);
    else
        printf("request %d: %s: %s\n", *(int *)user, sonic_status_string(result->status),
               result->text);
}

int main(void)
{
    enum { REQUESTS = 100, ROWS = 1000, CHANNEL = 47 };
    float *channels = calloc((size_t)ROWS * CHANNEL, sizeof(float));
    int numbers[REQUESTS];
    sonic_t *sonic;
    if (!channels || sonic_open(&sonic, NULL) != 0)
        return 1;
    sonic_tensor_t input = {SONIC_TYPE_FP32, 2, {ROWS, CHANNEL}, channels, 4 * ROWS * CHANNEL};
    for (int i = 0; i < REQUESTS; i++) {
        numbers[i] = i;
        sonic_request_t request = {.model = "facile",
                                   .ninputs = 1,
                                   .inputs = &input,
                                   .callback = on_result,
                                   .user = &numbers[i]};
        if (sonic_submit(sonic, &request, NULL) != 0)
            fprintf(stderr, "%s\n", sonic_error(sonic));
    }
    while (sonic_pending(sonic) > 0 && sonic_process(sonic, 10000) > 0)
        ;
    sonic_close(sonic);
    free(channels);
    return 0;
}
