/* One kernel's operands and arena in the runner's memory, between guards. */
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
    FAULT_NULL = 6     /* it did not refuse a null pointer */
};

struct place {
    const struct kernel *kernel;
    void *operands[MAX_OPERANDS];
    unsigned char *ends[MAX_OPERANDS];
    unsigned char *arena;
    unsigned char *end;
};

/* Divide the memory among the operands, each `off` bytes behind the beginning of a line. */
void lay(struct place *place, const struct kernel *kernel, unsigned long off);
/* Fill the guards, and the outputs with NaNs. */
void fence(const struct place *place);
/* Read the inputs from a file. */
enum fault load(struct place *place, const char *path);
/* Whether a null pointer is refused in every place, with nothing written. */
enum fault refuse(struct place *place);
enum fault call(struct place *place);
/* Whether the guards are as they were. */
enum fault look(const struct place *place);
enum fault save(const struct place *place, const char *path);

int same(const char *a, const char *b);
/* Whether all of `size` bytes were transferred. */
int whole(long handle, unsigned char *at, unsigned long size, int writing);

#endif
