/* A plugin of QEMU that counts how often each block of one function's instructions is run.
 *
 * Words: from=ADDRESS,to=ADDRESS,out=FILE, in decimal. Counted is what runs between the
 * runner's marks. Each line of FILE is a block: its address, how many instructions it has,
 * and how often it ran.
 *
 * No package ships the header of QEMU's plugin interface, version 1 (QEMU 4.2 to 8.2,
 * docs/devel/tcg-plugins.rst), so what is used of it is declared here; and so is what is used
 * of the C library that QEMU has loaded, so that this compiles in no time, without headers.
 *
 * On x86-64 it also clears the upper halves of the host's vector registers before each block. QEMU's
 * own code for guest vectors of 256 bits fills them, and its helpers for floating-point numbers, made of
 * SSE instructions, then wait for them at each step: on AMD's Zen 3 a check took six times as long.
 */
#include <stddef.h>
#include <stdint.h>

#include "marks.h"

#define SHOWN __attribute__((visibility("default")))
#define CHAINS 65536
#define COUNTER_FAILED 10 /* no status of the runner's */

typedef uint64_t plugin;
struct qemu_info_t;
struct qemu_plugin_tb;
enum operation { INLINE_ADD_U64 = 0 };
enum registers { NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin, void (*)(plugin, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum operation, void *, uint64_t);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), enum registers,
                                          void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin, void (*)(plugin, unsigned, int64_t, uint64_t, uint64_t,
                                                           uint64_t, uint64_t, uint64_t, uint64_t,
                                                           uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);

void *calloc(size_t count, size_t size);
int creat(const char *path, unsigned mode);
int dprintf(int handle, const char *format, ...);
int close(int handle);
char *strdup(const char *text);
int strncmp(const char *a, const char *b, size_t size);
unsigned long long strtoull(const char *text, char **end, int base);
void exit(int status) __attribute__((noreturn));

SHOWN int qemu_plugin_version = 1;

/* Blocks stay where they are, for QEMU's code adds to `runs`: in chains, found by their addresses. */
static struct block {
    uint64_t address, instructions, runs;
    struct block *next;
} *chains[CHAINS];
static uint64_t from, to;
static const char *out = "";

static __attribute__((noreturn)) void fail(const char *why)
{
    dprintf(2, "counter: %s\n", why);
    exit(COUNTER_FAILED);
}

#if defined(__x86_64__)
static int has_upper_halves(void)
{
    static int found = -1; /* CPUID, which takes a virtual machine long, is asked once */
    unsigned a = 1, b, c = 0, d;

    if (found < 0) {
        __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        found = (c >> 27 & 1) && (c >> 28 & 1); /* the system saves them, and there is AVX (leaf 1) */
    }
    return found;
}

static void clear_upper_halves(unsigned cpu, void *nothing)
{
    (void)cpu, (void)nothing;
    __asm__ volatile("vzeroupper");
}

static void clear_upper_halves_before(struct qemu_plugin_tb *tb)
{
    if (has_upper_halves())
        qemu_plugin_register_vcpu_tb_exec_cb(tb, clear_upper_halves, NO_REGISTERS, NULL);
}
#else
static void clear_upper_halves_before(struct qemu_plugin_tb *tb)
{
    (void)tb;
}
#endif

static struct block *block_at(uint64_t address, uint64_t instructions)
{
    struct block **place = &chains[address / 2 % CHAINS];

    while (*place && ((*place)->address != address || (*place)->instructions != instructions))
        place = &(*place)->next;
    if (!*place) {
        *place = calloc(1, sizeof(struct block));
        if (!*place)
            fail("no memory");
        (*place)->address = address;
        (*place)->instructions = instructions;
    }
    return *place;
}

static void translated(plugin self, struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb), instructions = qemu_plugin_tb_n_insns(tb);

    (void)self;
    if (address < from || address >= to)
        return;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &block_at(address, instructions)->runs, 1);
    clear_upper_halves_before(tb);
}

static void forget_runs(void)
{
    for (unsigned i = 0; i < CHAINS; i++)
        for (struct block *each = chains[i]; each; each = each->next)
            each->runs = 0;
}

static void write_runs(void)
{
    int file = creat(out, 0644);

    if (file < 0)
        fail("its file cannot be written");
    for (unsigned i = 0; i < CHAINS; i++)
        for (const struct block *each = chains[i]; each; each = each->next)
            if (each->runs &&
                dprintf(file, "%llu %llu %llu\n", (unsigned long long)each->address,
                        (unsigned long long)each->instructions, (unsigned long long)each->runs) < 0)
                fail("its file cannot be written");
    close(file);
}

static void called(plugin self, unsigned cpu, int64_t number, uint64_t descriptor, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)self, (void)cpu, (void)number, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if ((uint32_t)descriptor == MARK_BEGIN)
        forget_runs();
    else if ((uint32_t)descriptor == MARK_END)
        write_runs();
}

SHOWN int qemu_plugin_install(plugin self, const struct qemu_info_t *info, int count, char **words)
{
    int i;

    (void)info;
    for (i = 0; i < count; i++) {
        if (!strncmp(words[i], "from=", 5))
            from = strtoull(words[i] + 5, NULL, 10);
        else if (!strncmp(words[i], "to=", 3))
            to = strtoull(words[i] + 3, NULL, 10);
        else if (!strncmp(words[i], "out=", 4))
            out = strdup(words[i] + 4);
        else
            fail("an unknown word");
    }
    qemu_plugin_register_vcpu_tb_trans_cb(self, translated);
    qemu_plugin_register_vcpu_syscall_cb(self, called);
    return 0;
}
