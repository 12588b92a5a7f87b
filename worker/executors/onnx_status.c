// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/executors/onnx.h"

const OrtApi *onnx_api;

int onnx_ok(OrtStatus *status, const char *what, char *why, size_t size)
{
    if (!status)
        return 0;
    snprintf(why, size, "%s: %s", what, onnx_api->GetErrorMessage(status));
    onnx_api->ReleaseStatus(status);
    // Some of its words are several lines, and end with a new one.
    for (char *at = strchr(why, '\n'); at; at = strchr(at, '\n'))
        *at = at[1] ? ' ' : '\0';
    return -EIO;
}
