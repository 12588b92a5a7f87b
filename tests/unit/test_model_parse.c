// SPDX-License-Identifier: Apache-2.0
// config.pbtxt: what is honoured, what is reported with its line, and the words of each refusal.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model_repository.h"

static struct model_config config; // large
static char warnings[4096];

static void collect(const char *line, void *user)
{
    size_t used = strlen(warnings);
    (void)user;
    snprintf(warnings + used, sizeof(warnings) - used, "%s\n", line);
}

static int parse(const char *text, char *why, size_t size)
{
    warnings[0] = '\0';
    return model_config_parse(text, strlen(text), "m/config.pbtxt", &config, collect, NULL, why,
                              size);
}

static void good(const char *text)
{
    char why[512] = "";
    if (parse(text, why, sizeof(why)) != 0)
        fail_msg("%s", why);
}

// A sound model with `extra` as its first line.
static const char *with(const char *extra)
{
    static char text[4096];
    snprintf(text, sizeof(text),
             "%s\nbackend: \"null\"\nmax_batch_size: 8\n"
             "input { name: \"x\" data_type: TYPE_FP32 dims: [ 4 ] }\n"
             "output { name: \"y\" data_type: TYPE_FP32 dims: [ 4 ] }\n",
             extra);
    return text;
}

// A configuration as Triton's users have it on disk.
static const char TRITON[] =
    "# Triton's own fields, with comments where people put them\n"
    "name: \"facile\"\n"
    "platform: \"onnxruntime_onnx\"\n"
    "max_batch_size : 65536\n"
    "input [\n"
    "  {\n"
    "    name: \"channels\"   # per channel\n"
    "    data_type: TYPE_FP32\n"
    "    dims: [ 47 ]\n"
    "  },\n"
    "  {\n"
    "    name: \"image\"\n"
    "    data_type: TYPE_UINT16\n"
    "    format: FORMAT_NHWC\n"
    "    dims: [ 48, 48 ]\n"
    "    reshape { shape: [ 48, 48, 1 ] }\n"
    "  }\n"
    "]\n"
    "output <\n"
    "  name: 'energy' data_type: TYPE_FP32; dims: 1\n"
    "  reshape: { shape: [ ] }\n"
    "  label_filename: \"labels.txt\"\n"
    ">\n"
    "instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_GPU gpus: [ 0, 1 ] } ]\n"
    "dynamic_batching {\n"
    "  preferred_batch_size: [ 16000, 0x8000 ]\n"
    "  max_queue_delay_microseconds: 100\n"
    "  priority_levels: 3\n"
    "  default_priority_level: 2\n"
    "  default_queue_policy {\n"
    "    timeout_action: DELAY\n"
    "    default_timeout_microseconds: 5000000\n"
    "    allow_timeout_override: true\n"
    "    max_queue_size: 64\n"
    "  }\n"
    "}\n"
    "version_policy: { latest { num_versions: 2 } }\n"
    "optimization { execution_accelerators {\n"
    "  gpu_execution_accelerator : [ { name : \"tensorrt\" } ]\n"
    "}}\n"
    "parameters { key: \"sonic_default_batch\" value { string_value: \"16000\" } }\n"
    "parameters: { key: \"note\" value: { string_value: \"two \" 'parts' } }\n";

static void test_honours_what_triton_users_have(void **state)
{
    (void)state;
    good(TRITON);
    assert_string_equal(config.name, "facile");
    assert_string_equal(config.backend, "onnxruntime");
    assert_int_equal(config.version, 0);
    assert_int_equal(config.batch_max, 65536);
    assert_int_equal(config.default_rows, 16000);
    assert_int_equal(config.queue_delay_us, 100);
    assert_int_equal(config.npreferred, 2);
    assert_int_equal(config.preferred[0], 16000);
    assert_int_equal(config.preferred[1], 0x8000);
    assert_int_equal(config.priority_levels, 3);
    assert_int_equal(config.default_priority, 2);
    assert_int_equal(config.default_deadline_us, 5000000);
    assert_int_equal(config.queue_max, 64);
    assert_int_equal(config.ninputs, 2);
    assert_string_equal(config.inputs[0].name, "channels");
    assert_int_equal(config.inputs[0].dtype, SONIC_FP32);
    assert_int_equal(config.inputs[0].dims[0], 47);
    assert_memory_equal(&config.inputs[0], &config.runtime_inputs[0], sizeof(struct tensor_spec));
    assert_int_equal(config.inputs[1].dtype, SONIC_UINT16);
    assert_int_equal(config.inputs[1].ndim, 2);
    assert_int_equal(config.runtime_inputs[1].ndim, 3);
    assert_int_equal(config.runtime_inputs[1].dims[2], 1);
    assert_string_equal(config.runtime_inputs[1].name, "image");
    assert_int_equal(config.noutputs, 1);
    assert_string_equal(config.outputs[0].name, "energy");
    assert_int_equal(config.outputs[0].ndim, 1);
    assert_int_equal(config.runtime_outputs[0].ndim, 0);
    assert_int_equal(config.ngroups, 2);
    assert_int_equal(config.groups[0].kind, INSTANCE_CPU);
    assert_int_equal(config.groups[0].count, 2);
    assert_int_equal(config.groups[1].kind, INSTANCE_GPU);
    assert_int_equal(config.groups[1].ngpus, 2);
    assert_int_equal(config.groups[1].gpus[1], 1);
    assert_int_equal(config.groups[1].count, 0);
    assert_string_equal(model_config_parameter(&config, "note"), "two parts");
    assert_null(model_config_parameter(&config, "nothing"));
}

static void test_reports_what_is_not_honoured_with_its_line(void **state)
{
    (void)state;
    good(TRITON);
    assert_string_equal(
        warnings,
        "m/config.pbtxt:14: format is not honoured by SONIC\n"
        "m/config.pbtxt:22: label_filename is not honoured by SONIC\n"
        "m/config.pbtxt:31: timeout_action is taken as REJECT: a request past its deadline is "
        "refused\n"
        "m/config.pbtxt:33: allow_timeout_override is not honoured by SONIC\n"
        "m/config.pbtxt:37: num_versions over 1: only the highest version is served\n"
        "m/config.pbtxt:38: optimization is not honoured by SONIC\n");
    good(with("version_policy { all { } }"));
    assert_string_equal(warnings, "m/config.pbtxt:1: all versions: only the highest is served\n");
    good(with("version_policy { specific { versions: [ 3, 1 ] } }"));
    assert_string_equal(
        warnings, "m/config.pbtxt:1: specific versions: only the highest of them is served\n");
    assert_int_equal(config.nversions, 2);
    assert_int_equal(config.versions[0], 3);
    good(with("version_policy { latest { num_versions: 1 } }"));
    assert_string_equal(warnings, "");
    good(with("default_model_filename: 'm.onnx'"));
    assert_string_equal(warnings, "");
    assert_string_equal(config.file, "m.onnx");
}

static void test_every_top_field_of_triton_is_known(void **state)
{
    (void)state;
    static const char *const fields[] = {"cc_model_filenames { key: 'a' value: 'b' }",
                                         "metric_tags { key: 'a' value: 'b' }",
                                         "model_warmup [ { name: 'w' } ]",
                                         "model_operations { op_library_filename: 'x.so' }",
                                         "model_transaction_policy { decoupled: false }",
                                         "model_repository_agents { }",
                                         "sequence_batching { max_sequence_idle_microseconds: 5 }",
                                         "ensemble_scheduling { }",
                                         "batch_input [ ]",
                                         "response_cache { enable: true }",
                                         "model_metrics { }",
                                         "runtime: 'libx.so'"};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        good(with(fields[i]));
        if (strcmp(fields[i], "batch_input [ ]") != 0)
            assert_non_null(strstr(warnings, "m/config.pbtxt:1: "));
    }
}

static void test_defaults(void **state)
{
    (void)state;
    good(with(""));
    assert_string_equal(config.name, "");
    assert_string_equal(config.backend, "null");
    assert_int_equal(config.default_rows, 8);
    assert_int_equal(config.ngroups, 0);
    assert_int_equal(config.nversions, 0);
    good("backend: 'opencl' input { name: 'x' data_type: TYPE_INT8 dims: -1 } "
         "output { name: 'y' data_type: TYPE_BOOL dims: [ 2 ] }");
    assert_int_equal(config.batch_max, 0);
    assert_int_equal(config.default_rows, 1);
    assert_int_equal(config.inputs[0].dims[0], -1);
}

// A frame holds 256 MiB: clients that are not told how many rows to send must not ask for more.
static void test_default_rows_fit_into_a_frame(void **state)
{
    (void)state;
    good("backend: 'null' max_batch_size: 4096 "
         "input { name: 'x' data_type: TYPE_FP32 dims: [ 224, 224, 3 ] } "
         "output { name: 'y' data_type: TYPE_FP32 dims: [ 2 ] }");
    assert_int_equal(config.default_rows, SONIC_FRAME_BYTES_MAX / (224 * 224 * 3 * 4));
}

static void test_refusals_say_where_and_what(void **state)
{
    (void)state;
    static const struct {
        const char *line, *why; // `line` is the first of a sound model
    } cases[] = {
        {"max_batchsize: 4", "1:1: there is no field \"max_batchsize\" here; did you mean "
                             "max_batch_size?"},
        {"  nmae: 'x'", "1:3: there is no field \"nmae\" here; did you mean name?"},
        {"colour: 4", "1:1: there is no field \"colour\" here; there are: name, platform, backend, "
                      "max_batch_size, input, output, instance_group, dynamic_batching, "
                      "version_policy, parameters, "
                      "default_model_filename"},
        {"input { dimz: 4 }", "1:9: there is no field \"dimz\" here; did you mean dims?"},
        {"dynamic_batching { prefered_batch_size: 4 }",
         "1:20: there is no field \"prefered_batch_size\" here; did you mean "
         "preferred_batch_size?"},
        {"name: 'A b'", "1:1: a model's name is 1 to 64 of a-z 0-9 . _ - without a leading dot"},
        {"name: '../x'", "1:1: a model's name is 1 to 64 of a-z 0-9 . _ - without a leading dot"},
        {"name: x", "1:1: name takes text in quotes"},
        {"name: 'x' name: 'y'", "1:11: name is given a second time"},
        {"backend: 'x'", "2:1: backend is given a second time"},
        {"platform: 'tensorrt_plan'", "1:1: platform \"tensorrt_plan\" is not served; "
                                      "\"onnxruntime_onnx\" is, or name a backend instead"},
        {"platform: 'onnxruntime_onnx'",
         "1:1: platform stands for backend \"onnxruntime\", backend is \"null\""},
        {"input: 5", "1:1: input takes { ... }"},
        {"input { name: 'a' dims: 4 }", "1:1: input needs a name, a data_type and dims"},
        {"input { name: 'a' data_type: TYPE_STRING dims: 4 }",
         "1:19: TYPE_STRING tensors are not served: send numbers"},
        {"input { name: 'a' data_type: FP32 dims: 4 }",
         "1:19: data_type is FP32; TYPE_BOOL, TYPE_INT8 to 64, TYPE_UINT8 to 64, TYPE_FP16 to 64 "
         "and TYPE_BF16 are possible"},
        {"input { name: 'a' data_type: TYPE_FP32 dims: [ 4, 0 ] }",
         "1:51: a dimension is -1 (any) or at least 1"},
        {"input { name: 'a' data_type: TYPE_FP32 dims: [ -2 ] }",
         "1:48: dims is -2; -1 to 1099511627776 is possible"},
        {"input { name: 'a' data_type: TYPE_FP32 dims: [ 1.5 ] }",
         "1:48: dims takes a whole number"},
        {"input { name: 'a' data_type: TYPE_FP32 dims: [ 1,1,1,1,1,1,1,1 ] }",
         "1:62: more than 7 dimensions"},
        {"input { name: 'a' data_type: TYPE_FP32 dims: [ 1000000, 1000000, 1000000, 1000000 ] }",
         "1:1: one row of \"a\" is more than a message can carry (268435456 bytes)"},
        {"input { name: 'a b' data_type: TYPE_FP32 dims: 4 }",
         "1:9: a tensor's name is printable, without spaces or quotes"},
        {"input { name: 'a' data_type: TYPE_FP32 dims: 4 reshape { shape: [ 5 ] } }",
         "1:1: reshape of \"a\" needs fixed dims with the same number of elements"},
        {"input { name: 'a' data_type: TYPE_FP32 dims: -1 reshape { shape: [ -1, 1 ] } }",
         "1:1: reshape of \"a\" needs fixed dims with the same number of elements"},
        // elements that agree only because their product wraps
        {"input { name: 'a' data_type: TYPE_INT8 dims: 1 reshape { shape: [ 1099511627776, "
         "1099511627776 ] } }",
         "1:1: reshape of \"a\" needs fixed dims with the same number of elements"},
        {"input { name: 'x' data_type: TYPE_FP32 dims: 4 }",
         "4:1: there are two inputs named \"x\""},
        {"instance_group { kind: KIND_TPU }",
         "1:18: kind is KIND_TPU; possible are: KIND_AUTO, KIND_CPU, KIND_GPU, KIND_FPGA"},
        {"instance_group { kind: 'KIND_CPU' }",
         "1:18: kind takes one of these words, without quotes: KIND_AUTO, KIND_CPU, KIND_GPU, "
         "KIND_FPGA"},
        {"instance_group { count: 5000 }", "1:18: count is 5000; 0 to 4096 is possible"},
        {"dynamic_batching { preferred_batch_size: [ 4, 9 ] }",
         "1:47: preferred_batch_size 9 is over max_batch_size 8"},
        {"dynamic_batching { preferred_batch_size: 0 }",
         "1:20: preferred_batch_size is 0; 1 to max_batch_size is possible"},
        {"dynamic_batching { max_queue_delay_microseconds: 99999999999999999999 }",
         "1:20: max_queue_delay_microseconds is 99999999999999999999; 0 to 86400000000 is "
         "possible"},
        {"dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
         "1:39: default_priority_level 3 is over priority_levels 2"},
        {"dynamic_batching { default_queue_policy { timeout_action: LATER } }",
         "1:43: timeout_action is LATER; possible are: REJECT, DELAY"},
        {"version_policy { latest { num_versions: 1 } specific { versions: 1 } }",
         "1:1: version_policy takes one of latest, all, specific"},
        {"version_policy { specific { } }",
         "1:18: specific needs versions, such as specific { versions: [1] }"},
        {"version_policy { specific { versions: 0 } }",
         "1:29: versions is 0; 1 to 4294967295 is possible"},
        {"parameters { value { string_value: 'x' } }",
         "1:1: parameters needs a key and a value { string_value }"},
        {"parameters { key: 'a' } parameters { key: 'a' }", "1:25: there are two parameters \"a\""},
        {"parameters { key: 'sonic_default_batch' value { string_value: '9' } }",
         "1:1: parameter sonic_default_batch is \"9\"; 1 to 8 is possible"},
        {"parameters { key: 'sonic_default_batch' value { string_value: '-1' } }",
         "1:1: parameter sonic_default_batch is \"-1\"; 1 to 8 is possible"},
        {"parameters { key: 'sonic_default_batch' }",
         "1:1: parameter sonic_default_batch is \"\"; 1 to 8 is possible"},
        {"default_model_filename: 'a/m.onnx'",
         "1:1: default_model_filename is \"a/m.onnx\"; a file in the version's folder is wanted, "
         "without a path"},
        {"instance_group { gpus: -1 }", "1:18: gpus is -1; 0 to 2147483647 is possible"},
        {"name: \"x", "1:7: this string is not closed on its line"},
        {"input {", "1:7: the file ends before this bracket is closed"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[512] = "", want[512];
        snprintf(want, sizeof(want), "m/config.pbtxt:%s", cases[i].why);
        if (parse(with(cases[i].line), why, sizeof(why)) != -EINVAL)
            fail_msg("taken: %s", cases[i].line);
        assert_string_equal(why, want);
    }
}

static void test_refuses_what_is_missing(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "m/config.pbtxt:1:1: platform or backend is missing, such as backend: "
             "\"onnxruntime\""},
        {"backend: 'null'", "m/config.pbtxt:1:1: input is missing"},
        {"backend: 'null' input { name: 'x' data_type: TYPE_FP32 dims: 4 }",
         "m/config.pbtxt:1:1: output is missing"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[512] = "";
        assert_int_equal(parse(cases[i].text, why, sizeof(why)), -EINVAL);
        assert_string_equal(why, cases[i].why);
    }
}

// `n` times "before N after", comma-free, as one line.
static const char *many(size_t n, const char *format)
{
    static char text[8192];
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, format, (int)i + 1);
    return text;
}

static void refused_with(const char *line, const char *words)
{
    static char text[16384];
    char why[512] = "";
    snprintf(text, sizeof(text), "backend: 'null' max_batch_size: 64 %s", line);
    assert_int_equal(parse(text, why, sizeof(why)), -EINVAL);
    if (!strstr(why, words))
        fail_msg("\"%s\" is not in \"%s\"", words, why);
}

static void test_counts_are_bounded(void **state)
{
    (void)state;
    refused_with(many(SONIC_TENSORS_MAX + 1, "input { name: 'x%d' data_type: TYPE_FP32 dims: 4 } "),
                 "more than 16 inputs");
    refused_with(many(MODEL_INSTANCE_GROUPS_MAX + 1, "instance_group { count: %d } "),
                 "more than 8 instance groups");
    refused_with(many(MODEL_PARAMETERS_MAX + 1, "parameters { key: 'k%d' } "),
                 "more than 32 parameters");
    static char line[9000];
    snprintf(line, sizeof(line), "dynamic_batching { %s }",
             many(SONIC_PREFERRED_MAX + 1, "preferred_batch_size: %d "));
    refused_with(line, "more than 16 preferred sizes");
    snprintf(line, sizeof(line), "version_policy { specific { %s } }",
             many(MODEL_VERSIONS_MAX + 1, "versions: %d "));
    refused_with(line, "more than 16 versions");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_honours_what_triton_users_have),
        cmocka_unit_test(test_reports_what_is_not_honoured_with_its_line),
        cmocka_unit_test(test_every_top_field_of_triton_is_known),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_default_rows_fit_into_a_frame),
        cmocka_unit_test(test_refusals_say_where_and_what),
        cmocka_unit_test(test_refuses_what_is_missing),
        cmocka_unit_test(test_counts_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
