/* Kernels that compute the same, timed in rotating order, warm, in one process on one core.
 *
 * Their operands may be packed differently, so each reads its inputs anew before it is timed:
 * that takes the memory of one kernel, however many there are, and the same pages for all.
 * An operand in place is the result of the call before in all calls of a sample but the first: a
 * residual, which is what searches have, grows so by equal steps and stays far from overflow.
 * Outputs that are equal, which most are, are written once.
 *
 * For each kernel a line is printed: its name, its fault, which of the kernels had the same
 * output first, how often a sample repeats the call, and the nanoseconds of each sample. The
 * numbers are hexadecimal, and no number is divided: that would need a library on some
 * processors.
 */
#include "timing.h"
#include "io.h"

#define SAMPLE_NANOSECONDS 500000 /* a call to the clock takes 1000 of them on a slow board */
#define LEAST_ROUNDS 5
#define MOST_ROUNDS 61
#define MOST_REPEATS (1UL << 20) /* where a clock is too coarse to see a sample */
#define MOST_KERNELS 128
#define LINE_CHARACTERS (256 + 20 * (MOST_ROUNDS + 3))

struct contestant {
    const struct kernel *kernel;
    const char *in;
    enum fault fault;
    unsigned long first;
    unsigned long repeats;
    uint64_t sum;
    uint64_t samples[MOST_ROUNDS];
};

static struct contestant contestants[MOST_KERNELS];

/* Compute once, and write the output unless an earlier kernel had the same. */
static enum fault compute(unsigned long number, const char *out)
{
    struct contestant *contestant = &contestants[number];
    struct place place;
    enum fault fault;

    lay(&place, contestant->kernel, 0);
    fence(&place);
    if ((fault = load(&place, contestant->in)) || (fault = call(&place)) || (fault = look(&place)))
        return fault;
    contestant->sum = sum_of(&place);
    for (contestant->first = 0; contestant->first < number; contestant->first++) {
        const struct contestant *earlier = &contestants[contestant->first];
        if (earlier->fault == FAULT_NONE && earlier->sum == contestant->sum)
            return FAULT_NONE;
    }
    return save(&place, out);
}

/* Nanoseconds of as many calls as make a sample. The first is warm: one that is not timed
 * precedes it, unless a single call is sample enough. */
static uint64_t sample(struct contestant *contestant)
{
    struct place place;
    unsigned long i;
    uint64_t begin;

    lay(&place, contestant->kernel, 0);
    contestant->fault = load(&place, contestant->in);
    if (contestant->repeats > 1)
        call(&place);
    begin = io_nanoseconds();
    for (i = 0; i < contestant->repeats; i++)
        call(&place);
    return io_nanoseconds() - begin;
}

static char *put_number(char *at, uint64_t number)
{
    char digits[2 * sizeof number];
    unsigned count = 0;

    do
        digits[count++] = "0123456789abcdef"[number & 15];
    while (number >>= 4);
    *at++ = ' ';
    while (count)
        *at++ = digits[--count];
    return at;
}

static enum fault print(const struct contestant *contestant, unsigned long rounds)
{
    static char line[LINE_CHARACTERS];
    const char *name = contestant->kernel->name;
    char *at = line;
    unsigned long i;

    while (*name && at < line + 255)
        *at++ = *name++;
    at = put_number(at, contestant->fault);
    at = put_number(at, contestant->first);
    at = put_number(at, contestant->repeats);
    if (contestant->fault == FAULT_NONE)
        for (i = 0; i < rounds; i++)
            at = put_number(at, contestant->samples[i]);
    *at++ = '\n';
    return whole(1, (unsigned char *)line, (unsigned long)(at - line), 1) ? FAULT_NONE : FAULT_FILES;
}

enum fault time_kernels(uint64_t budget, unsigned long count, char **words)
{
    unsigned long i, j, rounds, first = 0;
    uint64_t begin;

    if (count == 0 || count > MOST_KERNELS)
        return FAULT_WORDS;
    io_pin();
    for (i = 0; i < count; i++) {
        struct contestant *contestant = &contestants[i];
        for (j = 0; j < kernel_count && !same(words[3 * i], kernels[j].name); j++)
            ;
        if (j == kernel_count)
            return FAULT_WORDS;
        contestant->kernel = &kernels[j];
        contestant->in = words[3 * i + 1];
        contestant->repeats = 1;
        contestant->fault = compute(i, words[3 * i + 2]);
        if (contestant->fault == FAULT_FILES)
            return FAULT_FILES;
        if (contestant->fault == FAULT_NONE)
            while (sample(contestant) < SAMPLE_NANOSECONDS && contestant->repeats < MOST_REPEATS)
                contestant->repeats <<= 1;
    }
    begin = io_nanoseconds();
    for (rounds = 0; rounds < MOST_ROUNDS; rounds++) {
        if (rounds >= LEAST_ROUNDS && io_nanoseconds() - begin >= budget)
            break;
        for (i = 0, j = first; i < count; i++, j = j + 1 < count ? j + 1 : 0)
            if (contestants[j].fault == FAULT_NONE)
                contestants[j].samples[rounds] = sample(&contestants[j]);
        first = first + 1 < count ? first + 1 : 0;
    }
    for (i = 0; i < count; i++)
        if (print(&contestants[i], rounds))
            return FAULT_FILES;
    return FAULT_NONE;
}
