/* threads KERNEL IN ...: every function of a library's table, from four threads at once, each
 * with buffers and an arena of its own. What each computes must be what one alone computed before.
 *
 * This program has a C library and POSIX threads, as the runner has not.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

#define THREADS 4
#define ROUNDS 8

struct caller {
    const struct kernel *kernel;
    const char *in;
    unsigned char *out; /* all outputs of a round, one behind the other */
    pthread_barrier_t *begin;
    int failed;
};

static unsigned long output_bytes(const struct kernel *kernel)
{
    unsigned long i, total = 0;
    for (i = 0; i < kernel->operand_count; i++)
        total += kernel->operands[i].output ? kernel->operands[i].bytes : 0;
    return total;
}

static unsigned char *lines(unsigned long size)
{
    return aligned_alloc(64, (size / 64 + 1) * 64);
}

/* The inputs anew, and a call: 0 if all went well. */
static int call(const struct caller *caller, void **operands, void *arena, unsigned char *out)
{
    const struct kernel *kernel = caller->kernel;
    const unsigned char *in = (const unsigned char *)caller->in;
    unsigned long i;

    for (i = 0; i < kernel->operand_count; i++)
        if (!kernel->operands[i].output) {
            memcpy(operands[i], in, kernel->operands[i].bytes);
            in += kernel->operands[i].bytes;
        }
    if (kernel->call(operands, kernel->arena_bytes ? arena : NULL))
        return 1;
    for (i = 0; i < kernel->operand_count; i++)
        if (kernel->operands[i].output) {
            memcpy(out, operands[i], kernel->operands[i].bytes);
            out += kernel->operands[i].bytes;
        }
    return 0;
}

static void *computed(void *given)
{
    struct caller *caller = given;
    const struct kernel *kernel = caller->kernel;
    unsigned long i, round, output = 0, size = output_bytes(kernel);
    unsigned char *arena = lines(kernel->arena_bytes);
    void *operands[MAX_OPERANDS];

    for (i = 0; i < kernel->operand_count; i++) {
        operands[i] = lines(kernel->operands[i].bytes);
        output = kernel->operands[i].output ? i : output;
    }
    if (kernel->in_place < kernel->operand_count)
        operands[kernel->in_place] = operands[output];
    if (caller->begin)
        pthread_barrier_wait(caller->begin);
    for (round = 0; round < (caller->begin ? ROUNDS : 1); round++)
        caller->failed |= call(caller, operands, arena, caller->out + round * size);
    return NULL;
}

static char *whole_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    long size;
    char *data;

    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET))
        exit(3);
    data = malloc((size_t)size + 1);
    if (!data || fread(data, 1, (size_t)size, file) != (size_t)size)
        exit(3);
    fclose(file);
    return data;
}

static int differ(const struct kernel *kernel, const char *path)
{
    unsigned long size = output_bytes(kernel);
    pthread_barrier_t begin;
    pthread_t threads[THREADS];
    struct caller alone = {kernel, whole_file(path), malloc(size + 1), NULL, 0}, callers[THREADS];
    int i, round, wrong;

    computed(&alone);
    wrong = alone.failed;
    pthread_barrier_init(&begin, NULL, THREADS);
    for (i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){kernel, alone.in, malloc(ROUNDS * size + 1), &begin, 0};
        if (pthread_create(&threads[i], NULL, computed, &callers[i]))
            exit(3);
    }
    for (i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        wrong |= callers[i].failed;
        for (round = 0; round < ROUNDS; round++)
            wrong |= memcmp(callers[i].out + (unsigned long)round * size, alone.out, size) != 0;
    }
    return wrong;
}

int main(int count, char **words)
{
    unsigned long k;
    int i, wrong = 0, found = 0;

    for (i = 1; i + 1 < count; i += 2)
        for (k = 0; k < kernel_count; k++)
            if (!strcmp(kernels[k].name, words[i])) {
                found++;
                if (differ(&kernels[k], words[i + 1])) {
                    printf("%s\n", words[i]);
                    wrong = 1;
                }
            }
    return wrong ? 1 : found == (count - 1) / 2 ? 0 : 2;
}
