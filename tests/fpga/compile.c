// SPDX-License-Identifier: Apache-2.0
// compile SOURCE BINARY: what a vendor's compiler does, by the runtime: builds OpenCL C for the
// first device of the first platform and writes the program's binary.
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
#include <stdlib.h>

static void must(cl_int e, const char *what)
{
    if (e == CL_SUCCESS)
        return;
    fprintf(stderr, "compile: %s: OpenCL error %d\n", what, (int)e);
    exit(1);
}

static FILE *must_open(const char *path, const char *mode)
{
    FILE *f = fopen(path, mode);
    if (!f) {
        perror(path);
        exit(1);
    }
    return f;
}

int main(int argc, char **argv)
{
    static char text[1 << 20];
    const char *source = text;
    cl_platform_id platform;
    cl_device_id device;
    cl_int e;
    size_t n = 0;
    if (argc != 3) {
        fprintf(stderr, "usage: compile SOURCE BINARY\n");
        return 2;
    }
    FILE *f = must_open(argv[1], "rb");
    size_t len = fread(text, 1, sizeof(text), f);
    fclose(f);
    must(clGetPlatformIDs(1, &platform, NULL), "platform");
    must(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL), "device");
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &e);
    must(e, "context");
    cl_program program = clCreateProgramWithSource(context, 1, &source, &len, &e);
    must(e, argv[1]);
    must(clBuildProgram(program, 1, &device, "", NULL, NULL), "build");
    must(clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof(n), &n, NULL), "size");
    unsigned char *binary = malloc(n);
    must(binary ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY, "binary");
    must(clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof(binary), &binary, NULL), "binary");
    f = must_open(argv[2], "wb");
    if (fwrite(binary, 1, n, f) != n || fclose(f) != 0) {
        perror(argv[2]);
        return 1;
    }
    free(binary);
    return 0;
}
