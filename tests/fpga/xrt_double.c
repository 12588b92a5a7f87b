// SPDX-License-Identifier: Apache-2.0
// A card under Xilinx' own XRT, of the tests' own, that computes. XRT's "noop" shim takes the place
// of the driver and does nothing; loaded before everything else (LD_PRELOAD), this library puts
// itself into the place of the shim's functions. They call each other inside the shim (it is linked
// -Bsymbolic): so their first bytes are overwritten by a jump. x86-64 only, tests only.
//
// The card has memory banks apart from the host's memory: nothing is there that nobody has brought.
// Its compute units are threads, one command at a time each, and see only the banks that the
// .xclbin wires them to. What they compute: xrt_kernels.h.
//
// SONIC_XRT_FAULT="WHAT@N[+]": the N-th command of a process (+: and each after it) is not computed
// and ends as WHAT: error, abort or timeout (the states that XRT knows), never (it does not end) or
// exit (of the process). It is told on standard error.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/fpga/xrt_kernels.h"
#include "worker/executors/opencl/process/xclbin.h"

#define EXPORT __attribute__((visibility("default")))
#define BUFFERS_MAX 4096u
#define BANKS_MAX 8u
#define UNITS_MAX 8u
#define QUEUE_MAX 256u
#define NO_BUFFER 0xffffffffu
#define FLAG_COMMAND (1u << 31) // a command's packet, in the host's memory alone
#define BANK_MASK 0xffffffu
#define PAGE 4096u

// ---- the card -----------------------------------------------------------------------------------

struct buffer {
    unsigned char *host, *device;
    bool own_host;
    size_t bytes;
    unsigned flags;
    uint64_t address;
};

struct unit {
    pthread_t thread;
    char kernel[65], name[65];
    uint32_t commands[QUEUE_MAX]; // buffers that hold them
    uint32_t first, n;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct xclbin xclbin;
    void *image;
    struct buffer buffers[BUFFERS_MAX];
    uint64_t used[BANKS_MAX];
    struct unit units[UNITS_MAX];
    uint32_t nunits, ncommands, nended;
} card = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void die(const char *what)
{
    fprintf(stderr, "xrt_double: %s\n", what);
    abort();
}

static struct buffer *get(uint32_t handle)
{
    if (handle >= BUFFERS_MAX || !card.buffers[handle].bytes)
        die("there is no such buffer");
    return &card.buffers[handle];
}

// The bank's place in the card's addresses, by the .xclbin.
static uint64_t bank_field(uint32_t bank, uint32_t at)
{
    uint64_t v;
    if (bank >= card.xclbin.banks.n || bank >= BANKS_MAX)
        die("there is no such bank");
    memcpy(&v, card.xclbin.banks.items + bank * 40u + at, sizeof(v));
    return v;
}

static bool place(struct buffer *b, uint32_t bank)
{
    size_t bytes = (b->bytes + PAGE - 1) / PAGE * PAGE;
    if (card.used[bank] + bytes > bank_field(bank, 8) * 1024)
        return false;
    b->address = bank_field(bank, 16) + card.used[bank];
    card.used[bank] += bytes;
    b->device = malloc(b->bytes);
    if (!b->device)
        return false;
    memset(b->device, 0x77, b->bytes); // what a card's memory is after power-up: not zeros
    return true;
}

static uint32_t make_buffer(void *host, size_t bytes, unsigned flags)
{
    uint32_t i = 0;
    pthread_mutex_lock(&card.lock);
    while (i < BUFFERS_MAX && card.buffers[i].bytes)
        i++;
    if (i == BUFFERS_MAX)
        die("too many buffers");
    struct buffer *b = &card.buffers[i];
    *b = (struct buffer){.host = host, .own_host = !host, .bytes = bytes, .flags = flags};
    if (!host && posix_memalign((void **)&b->host, PAGE, bytes) == 0)
        memset(b->host, 0, bytes);
    if (!b->host || (!(flags & FLAG_COMMAND) && !place(b, flags & BANK_MASK))) {
        memset(b, 0, sizeof(*b));
        i = NO_BUFFER;
    }
    pthread_mutex_unlock(&card.lock);
    return i;
}

// ---- compute units ------------------------------------------------------------------------------

// XRT's ert.h: state in the low four bits of the first word, then the mask of compute units, more
// of them if bits 10 and 11 say so, and the unit's registers.
enum { STATE_COMPLETED = 4, STATE_ERROR = 5, STATE_ABORT = 6, STATE_TIMEOUT = 8 };
#define ARG_AT 4u // words; tests/fpga/xclbin.py lays the arguments out
#define ARG_STEP 4u

static const uint32_t *registers(const uint32_t *packet)
{
    return packet + 2 + (packet[0] >> 10 & 3);
}

static unsigned char *device_memory(const struct unit *u, uint32_t arg, uint64_t address,
                                    size_t *bytes)
{
    for (uint32_t i = 0; i < BUFFERS_MAX; i++) {
        const struct buffer *b = &card.buffers[i];
        if (!b->device || address < b->address || address >= b->address + b->bytes)
            continue;
        if (!xclbin_reaches(&card.xclbin, u->kernel, u->name, arg, b->flags & BANK_MASK))
            die("a kernel's buffer lies in a bank that its unit is not wired to");
        *bytes = b->bytes - (address - b->address);
        return b->device + (address - b->address);
    }
    die("a kernel's argument is no address of the card's memory");
    return NULL;
}

static void compute(const struct unit *u, const uint32_t *packet)
{
    struct xrt_arg args[XRT_ARGS_MAX];
    const struct xrt_kernel *kernel = xrt_kernel_find(u->kernel);
    if (!kernel)
        die("the .xclbin has a kernel that xrt_kernels.c has not");
    for (uint32_t k = 0; k < kernel->nargs; k++) {
        uint64_t value;
        memcpy(&value, registers(packet) + ARG_AT + k * ARG_STEP, sizeof(value));
        args[k] = (struct xrt_arg){.value = (uint32_t)value};
        if (kernel->pointers & 1u << k)
            args[k].memory = device_memory(u, k, value, &args[k].bytes);
    }
    kernel->run(args);
}

// The state that the n-th command ends in; 0: never.
static uint32_t end_state(uint32_t n, bool *computes)
{
    const char *fault = getenv("SONIC_XRT_FAULT");
    const char *at = fault ? strchr(fault, '@') : NULL;
    uint32_t from = at ? (uint32_t)atoi(at + 1) : 0;
    *computes = !at || n < from || (n > from && !strchr(at, '+'));
    if (*computes)
        return STATE_COMPLETED;
    fprintf(stderr, "xrt_double: command %u: %s\n", n, fault);
    if (strncmp(fault, "exit", 4) == 0)
        _Exit(1);
    return strncmp(fault, "error", 5) == 0     ? STATE_ERROR
           : strncmp(fault, "abort", 5) == 0   ? STATE_ABORT
           : strncmp(fault, "timeout", 7) == 0 ? STATE_TIMEOUT
                                               : 0;
}

static void *unit_main(void *user)
{
    struct unit *u = user;
    bool computes;
    pthread_mutex_lock(&card.lock);
    for (;;) {
        while (u->n == 0)
            pthread_cond_wait(&card.changed, &card.lock);
        uint32_t *packet = (uint32_t *)(void *)get(u->commands[u->first])->host;
        uint32_t state = end_state(++card.ncommands, &computes);
        u->first = (u->first + 1) % QUEUE_MAX;
        u->n--;
        pthread_mutex_unlock(&card.lock);
        if (computes)
            compute(u, packet);
        pthread_mutex_lock(&card.lock);
        if (state == 0)
            continue;
        __atomic_store_n(packet, (*packet & ~0xfu) | state, __ATOMIC_RELEASE);
        card.nended++;
        pthread_cond_broadcast(&card.changed);
    }
    return NULL;
}

// Of the units in the mask the one with the least to do.
static struct unit *choose(const uint32_t *packet)
{
    struct unit *best = NULL;
    for (uint32_t i = 0; i < card.nunits; i++)
        if (packet[1] & 1u << i && (!best || card.units[i].n < best->n))
            best = &card.units[i];
    if (!best || best->n == QUEUE_MAX)
        die("a command for no unit, or too many");
    return best;
}

// ---- in the place of the shim's functions -------------------------------------------------------

static void *real_load; // the shim's own, which notes the .xclbin for XRT
static void set_jump(void *function, void *to, unsigned char saved[12]);
static void unset_jump(void *function, const unsigned char saved[12]);
static unsigned char load_bytes[12];

static void start_units(void)
{
    for (uint32_t i = 0; i < card.xclbin.units.n && i < UNITS_MAX; i++) {
        struct unit *u = &card.units[i];
        char text[65] = "";
        memcpy(text, card.xclbin.units.items + i * 80u + 16u, 64);
        const char *colon = strchr(text, ':');
        if (!colon)
            die("a compute unit without a name");
        memcpy(u->kernel, text, (size_t)(colon - text));
        memcpy(u->name, colon + 1, strlen(colon));
        card.nunits++;
        if (pthread_create(&u->thread, NULL, unit_main, u) != 0)
            die("no thread");
    }
}

static int load_xclbin(void *handle, const void *axlf)
{
    char why[200];
    uint64_t bytes;
    int (*load)(void *, const void *);
    memcpy(&bytes, (const char *)axlf + 304, sizeof(bytes));
    card.image = malloc(bytes);
    if (!card.image)
        return -ENOMEM;
    memcpy(card.image, axlf, bytes);
    if (card.nunits || xclbin_read(&card.xclbin, card.image, bytes, "", why, sizeof(why)) != 0)
        die("a second .xclbin, or a bad one");
    unset_jump(real_load, load_bytes);
    memcpy(&load, &real_load, sizeof(load));
    int rc = load(handle, axlf);
    start_units();
    return rc;
}

static uint32_t alloc_bo(void *handle, size_t bytes, int unused, unsigned flags)
{
    (void)handle;
    (void)unused;
    return make_buffer(NULL, bytes, flags);
}

static uint32_t alloc_user_ptr_bo(void *handle, void *host, size_t bytes, unsigned flags)
{
    (void)handle;
    return make_buffer(host, bytes, flags);
}

static void free_bo(void *handle, uint32_t bo)
{
    (void)handle;
    pthread_mutex_lock(&card.lock);
    struct buffer *b = get(bo);
    free(b->device);
    if (b->own_host)
        free(b->host);
    memset(b, 0, sizeof(*b));
    pthread_mutex_unlock(&card.lock);
}

static void *map_bo(void *handle, uint32_t bo, bool write)
{
    (void)handle;
    (void)write;
    return get(bo)->host;
}

static int sync_bo(void *handle, uint32_t bo, int from_device, size_t bytes, size_t offset)
{
    struct buffer *b = get(bo);
    (void)handle;
    if (!b->device || offset > b->bytes || bytes > b->bytes - offset)
        die("a copy beyond its buffer");
    if (from_device)
        memcpy(b->host + offset, b->device + offset, bytes);
    else
        memcpy(b->device + offset, b->host + offset, bytes);
    return 0;
}

static size_t write_bo(void *handle, uint32_t bo, const void *from, size_t bytes, size_t at)
{
    struct buffer *b = get(bo);
    (void)handle;
    if (at > b->bytes || bytes > b->bytes - at)
        die("a write beyond its buffer");
    memmove(b->host + at, from, bytes);
    return 0;
}

static size_t read_bo(void *handle, uint32_t bo, void *to, size_t bytes, size_t at)
{
    struct buffer *b = get(bo);
    (void)handle;
    if (at > b->bytes || bytes > b->bytes - at)
        die("a read beyond its buffer");
    memmove(to, b->host + at, bytes);
    return 0;
}

struct properties { // struct xclBOProperties of XRT's xrt.h
    uint32_t handle, flags;
    uint64_t bytes, address;
    uint32_t reserved;
};

static int get_bo_properties(void *handle, uint32_t bo, struct properties *p)
{
    const struct buffer *b = get(bo);
    (void)handle;
    p->handle = bo;
    p->flags = b->flags;
    p->bytes = b->bytes;
    p->address = b->address;
    return 0;
}

static int exec_buf(void *handle, uint32_t bo)
{
    (void)handle;
    pthread_mutex_lock(&card.lock);
    struct unit *u = choose((const uint32_t *)(void *)get(bo)->host);
    u->commands[(u->first + u->n++) % QUEUE_MAX] = bo;
    pthread_cond_broadcast(&card.changed);
    pthread_mutex_unlock(&card.lock);
    return 0;
}

// 1 when a command has ended since; 0 after the time.
static int exec_wait(void *handle, int timeout_ms)
{
    struct timespec until;
    int rc = 0;
    (void)handle;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000 + 1;
    pthread_mutex_lock(&card.lock);
    while (card.nended == 0 && rc == 0)
        rc = pthread_cond_timedwait(&card.changed, &card.lock, &until);
    int ended = card.nended > 0;
    card.nended -= (uint32_t)ended;
    pthread_mutex_unlock(&card.lock);
    return ended;
}

// ---- getting there ------------------------------------------------------------------------------

static void writable(void *function, int protection)
{
    uintptr_t page = (uintptr_t)function & ~(uintptr_t)(PAGE - 1);
    if (mprotect((void *)page, 2 * PAGE, protection) != 0)
        die("the shim's code cannot be written");
}

static void unset_jump(void *function, const unsigned char saved[12])
{
    writable(function, PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(function, saved, 12);
    writable(function, PROT_READ | PROT_EXEC);
}

// movabs $to, %rax; jmp *%rax
static void set_jump(void *function, void *to, unsigned char saved[12])
{
    unsigned char code[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
    memcpy(code + 2, &to, sizeof(to));
    memcpy(saved, function, sizeof(code));
    writable(function, PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(function, code, sizeof(code));
    writable(function, PROT_READ | PROT_EXEC);
}

static void take_over(void *shim)
{
#define OURS(name, function)                                                                       \
    {                                                                                              \
        name, (void (*)(void))(function)                                                           \
    }
    static const struct {
        const char *name;
        void (*function)(void);
    } OURS[] = {
        OURS("xclAllocBO", alloc_bo),       OURS("xclAllocUserPtrBO", alloc_user_ptr_bo),
        OURS("xclFreeBO", free_bo),         OURS("xclMapBO", map_bo),
        OURS("xclSyncBO", sync_bo),         OURS("xclWriteBO", write_bo),
        OURS("xclReadBO", read_bo),         OURS("xclGetBOProperties", get_bo_properties),
        OURS("xclExecBuf", exec_buf),       OURS("xclExecWait", exec_wait),
        OURS("xclLoadXclBin", load_xclbin), // last: its bytes are kept
    };
#undef OURS
    for (size_t i = 0; i < sizeof(OURS) / sizeof(OURS[0]); i++) {
        void *to;
        real_load = dlsym(shim, OURS[i].name);
        if (!real_load)
            die("the shim has no such function");
        memcpy(&to, &OURS[i].function, sizeof(to));
        set_jump(real_load, to, load_bytes);
    }
}

// XRT opens the shim by its path; everything else passes through.
EXPORT void *dlopen(const char *file, int flags)
{
    static bool taken;
    void *(*next)(const char *, int);
    void *symbol = dlsym(RTLD_NEXT, "dlopen");
    memcpy(&next, &symbol, sizeof(next));
    void *handle = next(file, flags);
    if (handle && file && strstr(file, "libxrt_noop.so") && !taken) {
        taken = true;
        take_over(handle);
    }
    return handle;
}
