/* Timing of calls on one core: the calls, between two probes of the core's peak.
 *
 * A call is a function with integers (pointers among them) and up to two floats. Under the
 * calling conventions of Linux on 64-bit processors, integers and floats are passed apart,
 * each in order, and what a function does not take it does not see, so one type serves all.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <time.h>

typedef float vector __attribute__((vector_size(VECTOR_BYTES), aligned(4)));
#define LANES (VECTOR_BYTES / 4)
#define CHAINS 10

struct call {
    void (*function)();
    int64_t integers[12];
    float floats[2];
};

struct sample {
    double seconds;
    double before;
    double after;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Chains of dependent multiply-adds that are independent of one another, so many that the
 * latency of each is hidden; operations per second. */
double probe(int64_t rounds)
{
    vector chain[CHAINS];
    const vector factor = (vector){0} + 0.999f;
    const vector term = (vector){0} + 0.001f;
    for (int i = 0; i < CHAINS; i++)
        chain[i] = (vector){0} + (float)(i + 1);
    const double start = now();
    for (int64_t round = 0; round < rounds; round++)
        for (int i = 0; i < CHAINS; i++) {
            chain[i] = chain[i] * factor + term;
            __asm__ volatile("" : "+" VECTOR_REGISTER(chain[i]));
        }
    const double end = now();
    return 2.0 * LANES * CHAINS * (double)rounds / (end - start);
}

void run(const struct call *calls, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const struct call *c = &calls[i];
        const int64_t *n = c->integers;
        ((void (*)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                   int64_t, int64_t, float, float))c->function)(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7],
                                                                n[8], n[9], n[10], n[11], c->floats[0],
                                                                c->floats[1]);
    }
}

void sample(const struct call *calls, int64_t count, int64_t repeats, int64_t rounds, struct sample *result)
{
    run(calls, count); /* warm: the operands in the caches that hold them */
    result->before = probe(rounds);
    const double start = now();
    for (int64_t i = 0; i < repeats; i++)
        run(calls, count);
    result->seconds = (now() - start) / (double)repeats;
    result->after = probe(rounds);
}

/* Each call by itself, as they follow one another: its operands are where the last one left them. */
void each(const struct call *calls, int64_t count, double *seconds)
{
    double before = now();
    for (int64_t i = 0; i < count; i++) {
        run(calls + i, 1);
        const double after = now();
        seconds[i] = after - before;
        before = after;
    }
}

/* Bytes per second of reading a block again and again. */
double bandwidth(const char *block, int64_t bytes, int64_t repeats)
{
    const double start = now();
    for (int64_t i = 0; i < repeats; i++) {
        vector sum[4] = {{0}};
        for (int64_t at = 0; at < bytes; at += 4 * VECTOR_BYTES)
            for (int part = 0; part < 4; part++)
                sum[part] += *(const vector *)(block + at + part * VECTOR_BYTES);
        for (int part = 0; part < 4; part++)
            __asm__ volatile("" ::VECTOR_REGISTER(sum[part]));
    }
    return (double)bytes * (double)repeats / (now() - start);
}
