// SPDX-License-Identifier: Apache-2.0
// libsonic: asynchronous inference requests to a SONIC farm.
//
// A handle belongs to one thread at a time and starts no thread of its own (libzmq's I/O thread
// apart). Submitting never waits; results arrive in any order through callbacks that run inside
// sonic_process. The library keeps every request until its answer is in, sends it again when a
// broker was restarted or the link broke, and drops duplicate answers.
//
// Functions return 0 or a positive value on success and a negative errno on failure; sonic_error
// then says what happened and what to do about it.
#ifndef SONIC_H
#define SONIC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SONIC_API __attribute__((visibility("default")))

typedef struct sonic sonic_t;

// Element types; the numbers are the wire's.
typedef enum {
    SONIC_TYPE_BOOL = 1,
    SONIC_TYPE_UINT8,
    SONIC_TYPE_UINT16,
    SONIC_TYPE_UINT32,
    SONIC_TYPE_UINT64,
    SONIC_TYPE_INT8,
    SONIC_TYPE_INT16,
    SONIC_TYPE_INT32,
    SONIC_TYPE_INT64,
    SONIC_TYPE_FP16,
    SONIC_TYPE_BF16,
    SONIC_TYPE_FP32,
    SONIC_TYPE_FP64
} sonic_type_t;

// How a request ended. Numbers are the wire's.
typedef enum {
    SONIC_OK = 0,
    SONIC_BUSY = 1,
    SONIC_MODEL_UNKNOWN = 3,
    SONIC_BAD_REQUEST = 4,
    SONIC_DEADLINE = 5,
    SONIC_CANCELLED = 6,
    SONIC_EXEC_FAILED = 7,
    SONIC_POISON = 8,
    SONIC_NOT_LOADED = 9,
    SONIC_QUEUE_FULL = 10,
    SONIC_BAD_VERSION = 11,
    SONIC_PROTOCOL = 12,
    SONIC_LOST = 13,
    SONIC_DEVICE_FAULT = 14
} sonic_status_t;

#define SONIC_MAX_DIMS 8
#define SONIC_MAX_TENSORS 16

typedef struct {
    sonic_type_t type;
    unsigned ndim;
    uint64_t dims[SONIC_MAX_DIMS]; // dims[0] = rows, for a model with a batch dimension
    const void *data;              // little-endian, row-major
    size_t bytes;                  // checked against type x dims
} sonic_tensor_t;

typedef struct {
    const char *
        endpoint; // "ipc:///run/user/1000/sonic/client.sock", "tcp://host:7100"; NULL: SONIC_BROKER
    const char *tenant;       // fair share that requests count against; NULL: the user's name
    const char *software;     // for the farm's status; NULL: "libsonic/VERSION"
    uint32_t window_requests; // most requests in flight; 0: 4,096
    uint64_t window_bytes;    // most input bytes in flight; 0: 64 MiB
    // Requests end SONIC_LOST when no broker is heard for so long since the first was submitted; 0:
    // keep trying.
    uint64_t lost_after_ms;
} sonic_options_t;

// Connects in the background: a broker that is not there yet is not an error. *s is the caller's,
// also on failure: sonic_error says why, sonic_close frees it.
SONIC_API int sonic_open(sonic_t **s, const sonic_options_t *options);
// Gives up everything still in flight (callbacks run with SONIC_CANCELLED) and frees the handle.
SONIC_API void sonic_close(sonic_t *s);

typedef struct {
    uint64_t id;
    sonic_status_t status;
    const char *text; // reason, "" when OK
    unsigned noutputs;
    const sonic_tensor_t *outputs; // valid during the callback only
    uint32_t queue_us, exec_us, exec_rows;
    uint64_t latency_us; // from sonic_submit to now
    unsigned attempts;   // times it was sent
} sonic_result_t;

typedef void (*sonic_callback_t)(const sonic_result_t *result, void *user);

typedef struct {
    const char *model;
    uint32_t version; // 0: the one the farm serves
    unsigned ninputs;
    const sonic_tensor_t
        *inputs;          // in the model's declared order; the array is copied, the data is not
    unsigned priority;    // 1 = most urgent, 0 = the model's default
    uint64_t deadline_us; // from now, 0 = none
    sonic_callback_t callback;
    void *user;
} sonic_request_t;

// Queues a request and returns at once; *id (may be NULL) names it for sonic_cancel. The input data
// must stay unchanged until the callback has run: it is read when it is sent, perhaps twice.
// -EAGAIN: the library's own queue holds twice the window; call sonic_process first.
SONIC_API int sonic_submit(sonic_t *s, const sonic_request_t *request, uint64_t *id);
// Memory for inputs, page-aligned: workers on this host read it where it is, so that what is laid
// there is not copied on its way (floating-point inputs over 16 KiB; anything else, and memory over
// window_bytes in all, is sent like other memory). NULL: none. Given back before sonic_close, with
// the size that was asked for, when no request uses it any more.
SONIC_API void *sonic_alloc(sonic_t *s, size_t bytes);
SONIC_API void sonic_free(sonic_t *s, void *data, size_t bytes);
// Asks for a request to be forgotten. Its callback still runs, once: CANCELLED, or with its result.
SONIC_API int sonic_cancel(sonic_t *s, uint64_t id);

// Readable when sonic_process has something to do; also for the library's own timers.
SONIC_API int sonic_fd(const sonic_t *s);
// Sends, receives, runs callbacks; waits up to timeout_ms (0: not, -1: for ever) for the first
// event. Returns the number of callbacks run, 0 on timeout, or a negative errno (-EPROTO: the
// broker refused this client for good; sonic_error says why).
SONIC_API int sonic_process(sonic_t *s, int timeout_ms);
// Requests submitted whose callbacks have not run.
SONIC_API size_t sonic_pending(const sonic_t *s);
// Whether a broker has answered and is not lost.
SONIC_API int sonic_connected(const sonic_t *s);

// Submits one request and waits for it. Runs other requests' callbacks meanwhile. The inputs are
// copied, and are the caller's again on return. The outputs are copied into memory that *outputs
// owns: free with sonic_outputs_free. Returns 0 when the request was answered (look at *status),
// -ETIMEDOUT after timeout_ms (-1: never); the request is cancelled then.
SONIC_API int sonic_infer(sonic_t *s, const sonic_request_t *request, int timeout_ms,
                          sonic_status_t *status, sonic_tensor_t **outputs, unsigned *noutputs);
SONIC_API void sonic_outputs_free(sonic_tensor_t *outputs, unsigned noutputs);

typedef struct {
    char name[65];
    sonic_type_t type;
    unsigned ndim;
    int64_t dims[SONIC_MAX_DIMS]; // without the batch dimension; < 0: any size
} sonic_io_t;

typedef struct {
    char name[65];
    uint32_t version;
    uint32_t batch_max;    // 0: no batch dimension
    uint32_t default_rows; // rows a request that the model's owner recommends
    unsigned ninputs, noutputs;
    sonic_io_t inputs[SONIC_MAX_TENSORS], outputs[SONIC_MAX_TENSORS];
} sonic_model_t;

// The farm's models; *models is one array of *n that the caller frees with free(). Waits up to
// timeout_ms. -ETIMEDOUT: no broker answered.
SONIC_API int sonic_models(sonic_t *s, sonic_model_t **models, size_t *n, int timeout_ms);
// The farm's own words: "status" or "placement". *text is freed with free().
SONIC_API int sonic_query(sonic_t *s, const char *what, char **text, int timeout_ms);

// What the last failing call on this handle was about. Never NULL.
SONIC_API const char *sonic_error(const sonic_t *s);
// "OK", "BUSY", ...
SONIC_API const char *sonic_status_string(sonic_status_t status);
SONIC_API const char *sonic_version(void);

#ifdef __cplusplus
}
#endif

#endif
