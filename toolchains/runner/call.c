/* Laying out, filling and judging the memory of one call; and what C code takes for granted. */
#include "call.h"
#include "io.h"

#define CANARY 0xA5
#define UNWRITTEN 0xFF

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

int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

int whole(long handle, unsigned char *at, unsigned long size, int writing)
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

/* A block of `size` bytes from `start` on, with canaries down from it and up to `to`. */
static void set(struct place *place, unsigned long number, unsigned char *from, unsigned char *start,
                unsigned long size, unsigned char *to)
{
    struct block *block = &place->blocks[number];

    block->from = from;
    block->start = start;
    block->end = start + size;
    block->to = to;
    if (number < place->kernel->operand_count)
        place->operands[number] = start;
}

/* One that is in place has the output's memory, and no canaries of its own. */
static void overlay(struct place *place)
{
    const struct kernel *kernel = place->kernel;
    unsigned long i;

    if (kernel->in_place >= kernel->operand_count)
        return;
    for (i = 0; i < kernel->operand_count; i++)
        if (kernel->operands[i].output) {
            const struct block *output = &place->blocks[i];
            unsigned long size = (unsigned long)(output->end - output->start);
            set(place, kernel->in_place, output->start, output->start, size, output->end);
        }
}

void lay(struct place *place, const struct kernel *kernel, unsigned long off)
{
    unsigned char *next = memory;
    unsigned long i;

    place->kernel = kernel;
    for (i = 0; i < kernel->operand_count; i++) {
        if (i == kernel->in_place)
            continue;
        unsigned long size = kernel->operands[i].bytes;
        unsigned long behind = kernel->operands[i].aligned ? 0 : off;
        unsigned char *start = next + GUARD_BYTES + behind;
        unsigned char *to = next + GUARD_BYTES + (behind + size + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
        set(place, i, next, start, size, to);
        next = to;
    }
    unsigned char *arena = next + GUARD_BYTES;
    set(place, i, next, arena, kernel->arena_bytes, arena + kernel->arena_bytes + GUARD_BYTES);
    overlay(place);
}

int lay_apart(struct place *place, const struct kernel *kernel, enum side side)
{
    unsigned char *low = memory + PAGE_BYTES;
    unsigned long i;

    place->kernel = kernel;
    for (i = 0; i <= kernel->operand_count; i++) {
        if (i == kernel->in_place && i < kernel->operand_count)
            continue;
        int is_arena = i == kernel->operand_count;
        unsigned long size = is_arena ? kernel->arena_bytes : kernel->operands[i].bytes;
        unsigned char *high = low + (size + GUARD_BYTES + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        unsigned long rest = is_arena || kernel->operands[i].aligned ? size % LINE_BYTES : 0;
        unsigned char *last = high - size - (rest ? LINE_BYTES - rest : 0);
        if (io_forbid(low - PAGE_BYTES, PAGE_BYTES) < 0 || io_forbid(high, PAGE_BYTES) < 0)
            return 0;
        if (side == AT_END)
            set(place, i, last - GUARD_BYTES, last, size, high);
        else
            set(place, i, low, low, size, low + size + GUARD_BYTES);
        low = high + 2 * PAGE_BYTES;
    }
    overlay(place);
    return 1;
}

const char *outside(const struct place *place, const unsigned char *address, const char **name)
{
    unsigned long i, count = place->kernel->operand_count;

    for (i = 0; i <= count; i++) {
        const struct block *block = &place->blocks[i];
        *name = i < count ? place->kernel->operands[i].name : "arena";
        if (i == place->kernel->in_place && i < count)
            continue;
        if (address >= block->end && address < block->to + 2 * PAGE_BYTES)
            return "behind its end";
        if (address < block->start && address >= block->from - PAGE_BYTES)
            return "before its beginning";
    }
    return 0;
}

void fence(const struct place *place)
{
    const struct kernel *kernel = place->kernel;
    unsigned long i;

    for (i = 0; i <= kernel->operand_count; i++) {
        const struct block *block = &place->blocks[i];
        unsigned long size = (unsigned long)(block->end - block->start);
        memset(block->from, CANARY, (unsigned long)(block->start - block->from));
        memset(block->end, CANARY, (unsigned long)(block->to - block->end));
        if (i == kernel->operand_count)
            memset(block->start, CANARY, size);
        else if (kernel->operands[i].output)
            memset(block->start, UNWRITTEN, size);
    }
}

enum fault load(struct place *place, const char *path)
{
    const struct kernel *kernel = place->kernel;
    unsigned long i;
    int read = 1;
    long handle = io_open(path, 0);

    if (handle < 0)
        return FAULT_FILES;
    for (i = 0; i < kernel->operand_count && read; i++)
        if (!kernel->operands[i].output)
            read = whole(handle, place->operands[i], kernel->operands[i].bytes, 0);
    io_close(handle);
    return read ? FAULT_NONE : FAULT_FILES;
}

enum fault call(struct place *place)
{
    const struct kernel *kernel = place->kernel;
    void *arena = kernel->arena_bytes ? place->blocks[kernel->operand_count].start : 0;
    return kernel->call(place->operands, arena) ? FAULT_STATUS : FAULT_NONE;
}

static int all(const unsigned char *from, const unsigned char *to, unsigned char value)
{
    while (from < to)
        if (*from++ != value)
            return 0;
    return 1;
}

enum fault refuse(struct place *place)
{
    const struct kernel *kernel = place->kernel;
    void *arena = place->blocks[kernel->operand_count].start;
    unsigned long i;
    int right = 1;

    for (i = 0; i < kernel->operand_count && right; i++) {
        void *kept = place->operands[i];
        if (!kernel->operands[i].bytes)
            continue;
        place->operands[i] = 0;
        right = kernel->call(place->operands, arena) == -1;
        place->operands[i] = kept;
    }
    if (kernel->arena_bytes && right)
        right = kernel->call(place->operands, 0) == -1;
    for (i = 0; i < kernel->operand_count && right; i++)
        if (kernel->operands[i].output)
            right = all(place->blocks[i].start, place->blocks[i].end, UNWRITTEN);
    return right ? FAULT_NONE : FAULT_NULL;
}

enum fault look(const struct place *place)
{
    unsigned long i;

    for (i = 0; i <= place->kernel->operand_count; i++) {
        const struct block *block = &place->blocks[i];
        if (!all(block->from, block->start, CANARY) || !all(block->end, block->to, CANARY))
            return FAULT_OUTSIDE;
    }
    return FAULT_NONE;
}

uint64_t sum_of(const struct place *place)
{
    uint64_t sum = 0xcbf29ce484222325u;
    unsigned long i;

    for (i = 0; i < place->kernel->operand_count; i++)
        if (place->kernel->operands[i].output)
            for (const unsigned char *at = place->blocks[i].start; at < place->blocks[i].end; at++)
                sum = (sum ^ *at) * 0x100000001b3u;
    return sum;
}

enum fault save(const struct place *place, const char *path)
{
    const struct kernel *kernel = place->kernel;
    unsigned long i;
    int written = 1;
    long handle = io_open(path, 1);

    if (handle < 0)
        return FAULT_FILES;
    for (i = 0; i < kernel->operand_count && written; i++)
        if (kernel->operands[i].output)
            written = whole(handle, place->operands[i], kernel->operands[i].bytes, 1);
    io_close(handle);
    return written ? FAULT_NONE : FAULT_FILES;
}
