/* Laying out, filling and judging the memory of one call; and what C code takes for granted. */
#include "call.h"
#include "io.h"

#define GUARD 0xA5
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

void lay(struct place *place, const struct kernel *kernel, unsigned long off)
{
    unsigned char *next = memory;
    unsigned long i, output = 0;

    place->kernel = kernel;
    for (i = 0; i < kernel->operand_count; i++) {
        if (i == kernel->in_place)
            continue;
        if (kernel->operands[i].output)
            output = i;
        unsigned long size = kernel->operands[i].bytes;
        unsigned long behind = kernel->operands[i].aligned ? 0 : off;
        unsigned char *start = next + GUARD_BYTES + behind;
        place->operands[i] = start;
        place->ends[i] = start + size;
        next += GUARD_BYTES + (behind + size + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    }
    if (kernel->in_place < kernel->operand_count) {
        place->operands[kernel->in_place] = place->operands[output];
        place->ends[kernel->in_place] = place->ends[output];
    }
    place->arena = next + GUARD_BYTES;
    place->end = place->arena + kernel->arena_bytes + GUARD_BYTES;
}

void fence(const struct place *place)
{
    unsigned long i;

    memset(memory, GUARD, (unsigned long)(place->end - memory));
    for (i = 0; i < place->kernel->operand_count; i++)
        if (place->kernel->operands[i].output)
            memset(place->operands[i], UNWRITTEN, place->kernel->operands[i].bytes);
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
    void *arena = place->kernel->arena_bytes ? place->arena : 0;
    return place->kernel->call(place->operands, arena) ? FAULT_STATUS : FAULT_NONE;
}

static int all(const unsigned char *from, const unsigned char *to, unsigned char value)
{
    while (from < to)
        if (*from++ != value)
            return 0;
    return 1;
}

static int untouched(const unsigned char *from, const unsigned char *to)
{
    return all(from, to, GUARD);
}

enum fault refuse(struct place *place)
{
    const struct kernel *kernel = place->kernel;
    unsigned long i;
    int right = 1;

    for (i = 0; i < kernel->operand_count && right; i++) {
        void *kept = place->operands[i];
        if (!kernel->operands[i].bytes)
            continue;
        place->operands[i] = 0;
        right = kernel->call(place->operands, place->arena) == -1;
        place->operands[i] = kept;
    }
    if (kernel->arena_bytes && right)
        right = kernel->call(place->operands, 0) == -1;
    for (i = 0; i < kernel->operand_count && right; i++)
        if (kernel->operands[i].output)
            right = all(place->operands[i], place->ends[i], UNWRITTEN);
    return right ? FAULT_NONE : FAULT_NULL;
}

enum fault look(const struct place *place)
{
    const unsigned char *guard = memory;
    unsigned long i;

    for (i = 0; i < place->kernel->operand_count; i++) {
        if (i == place->kernel->in_place)
            continue;
        if (!untouched(guard, place->operands[i]))
            return FAULT_OUTSIDE;
        guard = place->ends[i];
    }
    if (!untouched(guard, place->arena) ||
        !untouched(place->arena + place->kernel->arena_bytes, place->end))
        return FAULT_OUTSIDE;
    return FAULT_NONE;
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
