// SPDX-License-Identifier: Apache-2.0
// Stands for the toolkit's header of this name where a kernel is compiled for the host.
#include "tests/kernels/cuda_on_host.h"
