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
#define MOST_BLOCKS 65536

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

int creat(const char *path, unsigned mode);
int dprintf(int handle, const char *format, ...);
int close(int handle);
char *strdup(const char *text);
int strncmp(const char *a, const char *b, size_t size);
unsigned long long strtoull(const char *text, char **end, int base);
void exit(int status) __attribute__((noreturn));

SHOWN int qemu_plugin_version = 1;

static struct block {
    uint64_t address, instructions, runs;
} blocks[MOST_BLOCKS];
static unsigned block_count;
static uint64_t from, to;
static const char *out = "";

static __attribute__((noreturn)) void fail(const char *why)
{
    dprintf(2, "counter: %s\n", why);
    exit(1);
}

#if defined(__x86_64__)
static int has_upper_halves(void)
{
    unsigned a = 1, b, c = 0, d;

    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (c >> 27 & 1) && (c >> 28 & 1); /* the system saves them, and there is AVX (CPUID, leaf 1) */
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

static void translated(plugin self, struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb), instructions = qemu_plugin_tb_n_insns(tb);
    unsigned i = 0;

    (void)self;
    if (address < from || address >= to)
        return;
    while (i < block_count && (blocks[i].address != address || blocks[i].instructions != instructions))
        i++;
    if (i == MOST_BLOCKS)
        fail("too many blocks");
    if (i == block_count) {
        blocks[i].address = address;
        blocks[i].instructions = instructions;
        block_count++;
    }
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &blocks[i].runs, 1);
    clear_upper_halves_before(tb);
}

static void called(plugin self, unsigned cpu, int64_t number, uint64_t descriptor, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    unsigned i;

    (void)self, (void)cpu, (void)number, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if ((uint32_t)descriptor == MARK_BEGIN) {
        for (i = 0; i < block_count; i++)
            blocks[i].runs = 0;
    } else if ((uint32_t)descriptor == MARK_END) {
        int file = creat(out, 0644);
        if (file < 0)
            fail("its file cannot be written");
        for (i = 0; i < block_count; i++)
            if (blocks[i].runs &&
                dprintf(file, "%llu %llu %llu\n", (unsigned long long)blocks[i].address,
                        (unsigned long long)blocks[i].instructions, (unsigned long long)blocks[i].runs) < 0)
                fail("its file cannot be written");
        close(file);
    }
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
