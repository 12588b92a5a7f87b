// SPDX-License-Identifier: Apache-2.0
// What the management library says of a GPU, on a library of the tests' own
// (tests/gpu/stub_nvml.c).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/executors/cuda/process/nvml.h"

#define BUS "0000:65:00.0"

static const unsigned char UUID[NVML_UUID_BYTES] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                                    0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
static const unsigned char OTHER[NVML_UUID_BYTES] = {1};
static const unsigned char NONE[NVML_UUID_BYTES];
static char why[512];

static int clean(void **state)
{
    (void)state;
    setenv("SONIC_NVML", TEST_STUB_NVML, 1);
    unsetenv("SONIC_STUB_FAULTS");
    unsetenv("SONIC_STUB_MIG");
    why[0] = '\0';
    return 0;
}

static struct nvml *opened(const unsigned char *uuid, const char *bus)
{
    struct nvml *n = nvml_open(uuid, bus, why, sizeof(why));
    if (!n)
        fail_msg("%s", why);
    return n;
}

static void refused(const unsigned char *uuid, const char *bus, const char *words)
{
    assert_null(nvml_open(uuid, bus, why, sizeof(why)));
    if (!strstr(why, words))
        fail_msg("\"%s\" is not in: %s", words, why);
}

static void a_whole_gpu_tells_all(void **state)
{
    struct device_sensors s;
    struct nvml *n = opened(UUID, "");
    (void)state;
    assert_int_equal(nvml_read(n, &s, why, sizeof(why)), 0);
    assert_int_equal(s.known, SENSOR_BUSY | SENSOR_MEMORY | SENSOR_POWER | SENSOR_TEMPERATURE);
    assert_int_equal(s.busy_percent, 87);
    assert_true(s.memory_bytes == 80ull << 30 && s.memory_used_bytes == 3ull << 30);
    assert_int_equal(s.power_mw, 312500);
    assert_int_equal(s.temperature_c, 61);
    nvml_close(n);
}

// Its memory is its own, power and temperature are the board's, and how busy it is nobody says.
static void a_part_of_a_gpu_tells_its_own_memory(void **state)
{
    struct device_sensors s;
    (void)state;
    setenv("SONIC_STUB_MIG", "1", 1);
    struct nvml *n = opened(UUID, BUS);
    assert_int_equal(nvml_read(n, &s, why, sizeof(why)), 0);
    assert_int_equal(s.known, SENSOR_MEMORY | SENSOR_POWER | SENSOR_TEMPERATURE);
    assert_true(s.memory_bytes == 10ull << 30);
    assert_int_equal(s.power_mw, 312500);
    nvml_close(n);
}

static void the_bus_finds_a_gpu_without_a_known_uuid(void **state)
{
    (void)state;
    nvml_close(opened(OTHER, BUS));
    nvml_close(opened(NONE, BUS));
    refused(OTHER, "0000:66:00.0", "0000:66:00.0: Not Found");
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    setenv("SONIC_STUB_FAULTS", "nvmlInit_v2=9", 1);
    refused(UUID, BUS, "Another Error");
    setenv("SONIC_NVML", "/nonexistent/libnvidia-ml.so.1", 1);
    refused(UUID, BUS, "/nonexistent/libnvidia-ml.so.1");
    setenv("SONIC_NVML", TEST_OTHER_LIBRARY, 1);
    refused(UUID, BUS, "has no nvmlErrorString: install a newer driver");
}

static void one_value_that_fails_leaves_the_others(void **state)
{
    struct device_sensors s;
    (void)state;
    setenv("SONIC_STUB_FAULTS", "nvmlDeviceGetPowerUsage=999", 1);
    struct nvml *n = opened(UUID, BUS);
    assert_int_equal(nvml_read(n, &s, why, sizeof(why)), 0);
    assert_int_equal(s.known, SENSOR_BUSY | SENSOR_MEMORY | SENSOR_TEMPERATURE);
    nvml_close(n);
}

static void a_gpu_off_the_bus_tells_nothing(void **state)
{
    static const char *const STEPS[] = {"nvmlDeviceGetUtilizationRates=15",
                                        "nvmlDeviceGetMemoryInfo=15", "nvmlDeviceGetPowerUsage=15",
                                        "nvmlDeviceGetTemperature=15"};
    struct device_sensors s;
    (void)state;
    for (size_t i = 0; i < sizeof(STEPS) / sizeof(STEPS[0]); i++) {
        setenv("SONIC_STUB_FAULTS", STEPS[i], 1);
        struct nvml *n = opened(UUID, BUS);
        assert_int_equal(nvml_read(n, &s, why, sizeof(why)), -ENODEV);
        assert_int_equal(s.known, 0);
        assert_string_equal(why, "GPU is lost");
        nvml_close(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_whole_gpu_tells_all, clean),
        cmocka_unit_test_setup(a_part_of_a_gpu_tells_its_own_memory, clean),
        cmocka_unit_test_setup(the_bus_finds_a_gpu_without_a_known_uuid, clean),
        cmocka_unit_test_setup(what_is_missing_is_named, clean),
        cmocka_unit_test_setup(one_value_that_fails_leaves_the_others, clean),
        cmocka_unit_test_setup(a_gpu_off_the_bus_tells_nothing, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
