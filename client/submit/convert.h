// SPDX-License-Identifier: Apache-2.0
// From the element type of a file to the one that a model takes.
#ifndef SONIC_CLIENT_SUBMIT_CONVERT_H
#define SONIC_CLIENT_SUBMIT_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Whether values of `from` may be sent as `to`: integers and bool as any float or as integers
// (checked value by value), floats as floats; never floats as integers.
bool convert_possible(unsigned from, unsigned to);
// Whether bytes must be touched at all.
bool convert_needed(unsigned from, bool big_endian, unsigned to);
// Converts n elements. False when an integer does not fit, *at is the element.
bool convert(void *dst, unsigned to, const void *src, unsigned from, bool big_endian, size_t n,
             size_t *at);

#endif
