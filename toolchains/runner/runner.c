/* runner KERNEL IN OUT: read the operands of one kernel, call it, write its results.
 * runner vector: print the length of a vector in bits, read from the processor, in hexadecimal.
 * runner: do nothing, to see whether it can be run at all.
 *
 * Needs no C library. Tensors lie off any vector's alignment, as the header allows, and
 * between guards, whose bytes must be untouched afterwards.
 *
 * Exit status: 0 done, 2 wrong words, 3 input or output failed, 4 the kernel returned
 * other than 0, 5 the kernel wrote outside its buffers, 6 it did not refuse a null pointer.
 */
#include "io.h"
#include "marks.h"
#include "table.h"

#define GUARD 0xA5
#define ELEMENT_BYTES 8 /* of the largest element */

void *memcpy(void *restrict to, const void *restrict from, unsigned long size)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    while (size--)
        *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, unsigned long size)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    if (t < f) {
        while (size--)
            *t++ = *f++;
    } else {
        while (size--)
            t[size] = f[size];
    }
    return to;
}

void *memset(void *to, int value, unsigned long size)
{
    unsigned char *t = to;
    while (size--)
        *t++ = (unsigned char)value;
    return to;
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* Whether all of `size` bytes were transferred. */
static int whole(long handle, unsigned char *at, unsigned long size, int writing)
{
    while (size) {
        long done = writing ? io_write(handle, at, size) : io_read(handle, at, size);
        if (done <= 0)
            return 0;
        at += done;
        size -= (unsigned long)done;
    }
    return 1;
}

static int untouched(const unsigned char *from, const unsigned char *to)
{
    while (from < to)
        if (*from++ != GUARD)
            return 0;
    return 1;
}

static int run(const struct kernel *kernel, const char *in, const char *out)
{
    void *operands[MAX_OPERANDS];
    unsigned char *ends[MAX_OPERANDS];
    unsigned char *next = memory;
    unsigned long i;
    int status = 0;

    for (i = 0; i < kernel->operand_count; i++) {
        unsigned long size = kernel->operands[i].bytes;
        unsigned char *start = next + GUARD_BYTES + ELEMENT_BYTES;
        operands[i] = start;
        ends[i] = start + size;
        next += GUARD_BYTES + (ELEMENT_BYTES + size + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    }
    unsigned char *arena = next + GUARD_BYTES;
    unsigned char *end = arena + kernel->arena_bytes + GUARD_BYTES;
    memset(memory, GUARD, (unsigned long)(end - memory));

    long handle = io_open(in, 0);
    if (handle < 0)
        return 3;
    for (i = 0; i < kernel->operand_count; i++) {
        if (kernel->operands[i].output)
            memset(operands[i], 0xFF, kernel->operands[i].bytes);
        else if (!whole(handle, operands[i], kernel->operands[i].bytes, 0))
            return 3;
    }

    void *first = operands[0];
    operands[0] = 0;
    if (kernel->call(operands, arena) != -1)
        return 6;
    operands[0] = first;
    io_mark(MARK_BEGIN);
    status = kernel->call(operands, kernel->arena_bytes ? arena : 0);
    io_mark(MARK_END);
    if (status != 0)
        return 4;

    unsigned char *guard = memory;
    for (i = 0; i < kernel->operand_count; i++) {
        if (!untouched(guard, operands[i]))
            status = 5;
        guard = ends[i];
    }
    if (!untouched(guard, arena) || !untouched(arena + kernel->arena_bytes, end))
        status = 5;

    handle = io_open(out, 1);
    if (handle < 0)
        return 3;
    for (i = 0; i < kernel->operand_count; i++)
        if (kernel->operands[i].output &&
            !whole(handle, operands[i], kernel->operands[i].bytes, 1))
            return 3;
    return status;
}

/* In hexadecimal: a division would need a library on some processors. */
static void print_number(unsigned long number)
{
    unsigned char digits[2 * sizeof number + 1];
    unsigned long at = sizeof digits;
    digits[--at] = '\n';
    do
        digits[--at] = (unsigned char)"0123456789abcdef"[number & 15];
    while (number >>= 4);
    whole(1, digits + at, sizeof digits - at, 1);
}

/* Called by the start-up code with the words of the command line. */
void runner_main(long count, char **words)
{
    unsigned long i;
    if (count == 1)
        io_exit(0);
    if (count == 2 && same(words[1], "vector")) {
        print_number(io_vector_bits());
        io_exit(0);
    }
    if (count == 4)
        for (i = 0; i < kernel_count; i++)
            if (same(words[1], kernels[i].name))
                io_exit(run(&kernels[i], words[2], words[3]));
    io_exit(2);
}
