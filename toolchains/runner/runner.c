/* runner KERNEL IN OUT: read the operands of one kernel, call it, write its results; `run` is
 *     the whole network, where the library is one.
 * runner time NANOSECONDS KERNEL IN OUT ...: time kernels against each other; see timing.c.
 * runner vector: print the length of a vector in bits, read from the processor.
 * runner: do nothing, to see whether it can be run at all.
 *
 * Needs no C library. Numbers are hexadecimal. Tensors that are not timed lie off any
 * vector's alignment, as the header allows, and all between guards, whose bytes must be
 * untouched afterwards.
 *
 * Exit statuses are those of call.h.
 */
#include "call.h"
#include "io.h"
#include "marks.h"
#include "timing.h"

#define ELEMENT_BYTES 8 /* of the largest element */

static enum fault run(const struct kernel *kernel, const char *in, const char *out)
{
    struct place place;
    enum fault fault, saved;

    lay(&place, kernel, ELEMENT_BYTES);
    fence(&place);
    if ((fault = load(&place, in)))
        return fault;
    if ((fault = refuse(&place)))
        return fault;
    io_mark(MARK_BEGIN);
    fault = call(&place);
    io_mark(MARK_END);
    if (fault)
        return fault;
    fault = look(&place);
    saved = save(&place, out);
    return saved ? saved : fault;
}

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

static uint64_t number_of(const char *word)
{
    uint64_t number = 0;
    for (; *word; word++)
        number = number << 4 | (uint64_t)(*word <= '9' ? *word - '0' : *word - 'a' + 10);
    return number;
}

/* Called by the start-up code with the words of the command line. */
void runner_main(long count, char **words)
{
    unsigned long i;
    if (count == 1)
        io_exit(FAULT_NONE);
    if (count == 2 && same(words[1], "vector")) {
        print_number(io_vector_bits());
        io_exit(FAULT_NONE);
    }
    if (count > 4 && same(words[1], "time")) {
        for (i = 3; i < (unsigned long)count; i += 3)
            ;
        if (i == (unsigned long)count)
            io_exit(time_kernels(number_of(words[2]), (i - 3) / 3, words + 3));
        io_exit(FAULT_WORDS);
    }
    if (count == 4)
        for (i = 0; i < kernel_count; i++)
            if (same(words[1], kernels[i].name))
                io_exit(run(&kernels[i], words[2], words[3]));
    io_exit(FAULT_WORDS);
}
