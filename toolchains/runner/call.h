/* One kernel's operands and arena in the runner's memory, between canaries or pages. */
#ifndef KERNFIT_CALL_H
#define KERNFIT_CALL_H

#include "table.h"

/* What can go wrong; exit statuses of the runner too. */
enum fault {
    FAULT_NONE = 0,
    FAULT_WORDS = 2,   /* of the command line */
    FAULT_FILES = 3,   /* input or output failed */
    FAULT_STATUS = 4,  /* the kernel returned other than 0 */
    FAULT_OUTSIDE = 5, /* it wrote outside its buffers */
    FAULT_NULL = 6,    /* it did not refuse a null pointer */
    FAULT_GUARD = 7,   /* it read or wrote outside a buffer, and which was printed */
    FAULT_PLACE = 8,   /* its result depends on where its buffers lie */
    FAULT_PAGES = 9    /* the system takes no pages away */
};

/* One operand's memory, or the arena's, and the canaries from `from` and up to `to`. */
struct block {
    unsigned char *from, *start, *end, *to;
};

/* The arena's block is behind those of the operands. */
struct place {
    const struct kernel *kernel;
    void *operands[MAX_OPERANDS];
    struct block blocks[MAX_OPERANDS + 1];
};

enum side { AT_END, AT_BEGINNING };

/* Divide the memory among the operands, each `off` bytes behind the beginning of a line. One
 * that may be in place is given the output's buffer: the harder case. */
void lay(struct place *place, const struct kernel *kernel, unsigned long off);
/* The same with a page on both sides of each that nobody may read or write: every buffer ends,
 * or begins, right at one. An arena ends there with its line. 0 if the system takes no pages away;
 * what was taken away stays so, and the other side finds it as it is. */
int lay_apart(struct place *place, const struct kernel *kernel, enum side side);
/* On which side of which buffer an address lies in such a page; null if in none. */
const char *outside(const struct place *place, const unsigned char *address, const char **name);
/* Fill the canaries and the arena, and the outputs with NaNs. */
void fence(const struct place *place);
/* Read the inputs from a file; one that is in place over the output's NaNs. */
enum fault load(struct place *place, const char *path);
/* Whether a null pointer is refused in every place, with nothing written. */
enum fault refuse(struct place *place);
enum fault call(struct place *place);
/* Whether the canaries are as they were. */
enum fault look(const struct place *place);
/* The FNV-1a hash of the outputs (Fowler, Noll, Vo; draft-eastlake-fnv). */
uint64_t sum_of(const struct place *place);
enum fault save(const struct place *place, const char *path);

int same(const char *a, const char *b);
/* Whether all of `size` bytes were transferred. */
int whole(long handle, unsigned char *at, unsigned long size, int writing);

#endif
