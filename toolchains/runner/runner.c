/* runner KERNEL IN OUT: read the operands of one kernel, call it, write its results; `run` is
 *     the whole network, where the library is one.
 * runner guard KERNEL IN OUT IN2 OUT2: the same, and then IN2 to OUT2 with every buffer at a page
 *     that must not be touched, twice, once on each side; these two results must be the same.
 * runner time NANOSECONDS KERNEL IN OUT ...: time kernels against each other; see timing.c.
 * runner vector: print the length of a vector in bits, read from the processor.
 * runner: do nothing, to see whether it can be run at all.
 *
 * Needs no C library. Numbers are hexadecimal. Tensors that are not timed lie off any
 * vector's alignment, as the header allows, and all between canaries, bytes that must be
 * untouched afterwards.
 *
 * Exit statuses are those of call.h.
 */
#include "call.h"
#include "io.h"
#include "marks.h"
#include "timing.h"

#define ELEMENT_BYTES 8 /* of the largest element */

static struct place guarded;

static void print(const char *text)
{
    unsigned long size = 0;
    while (text[size])
        size++;
    whole(1, (unsigned char *)text, size, 1);
}

static void tell(const unsigned char *address)
{
    const char *name, *side = outside(&guarded, address, &name);
    if (!side)
        return;
    print(name);
    print(", ");
    print(side);
    print("\n");
    io_exit(FAULT_GUARD);
}

/* A call with every buffer at a page. */
static enum fault guard(const struct kernel *kernel, const char *in, enum side side)
{
    enum fault fault;

    if (!lay_apart(&guarded, kernel, side))
        return FAULT_PAGES;
    fence(&guarded);
    if ((fault = load(&guarded, in)) || (fault = call(&guarded)))
        return fault;
    return look(&guarded);
}

static enum fault guard_both(const struct kernel *kernel, const char *in, const char *out)
{
    enum fault fault;
    uint64_t sum;

    io_on_fault(tell);
    if ((fault = guard(kernel, in, AT_END)) || (fault = save(&guarded, out)))
        return fault;
    sum = sum_of(&guarded);
    if ((fault = guard(kernel, in, AT_BEGINNING)))
        return fault;
    return sum_of(&guarded) == sum ? FAULT_NONE : FAULT_PLACE;
}

static enum fault run(const struct kernel *kernel, const char *in, const char *out)
{
    struct place place;
    enum fault fault, saved;

    lay(&place, kernel, ELEMENT_BYTES);
    fence(&place);
    if ((fault = refuse(&place)))
        return fault;
    if ((fault = load(&place, in))) /* after it: an input that is in place lies over the output */
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
    int guards = count == 7 && same(words[1], "guard");
    if (count == 4 || guards)
        for (i = 0; i < kernel_count; i++)
            if (same(words[1 + guards], kernels[i].name)) {
                enum fault fault = run(&kernels[i], words[2 + guards], words[3 + guards]);
                if (!fault && guards)
                    fault = guard_both(&kernels[i], words[5], words[6]);
                io_exit(fault);
            }
    io_exit(FAULT_WORDS);
}
