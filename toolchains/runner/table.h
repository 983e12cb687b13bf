/* What the runner knows of a library; the table itself is generated. */
#ifndef KERNFIT_TABLE_H
#define KERNFIT_TABLE_H

#include <stdint.h>

struct operand {
    const char *name;
    unsigned long bytes;
    int output;
    int aligned; /* it begins a line, whatever the others do */
};

struct kernel {
    const char *name;
    int32_t (*call)(void **operands, void *arena);
    const struct operand *operands;
    unsigned long operand_count;
    unsigned long in_place; /* the operand in the output's own buffer; operand_count if none is */
    unsigned long arena_bytes;
};

extern const struct kernel kernels[];
extern const unsigned long kernel_count;

/* Memory for the operands and the arena of the largest kernel, with what guards them; it begins a page. */
extern unsigned char memory[];

#ifndef MAX_OPERANDS /* of one kernel; the build says so where there are more */
#define MAX_OPERANDS 256
#endif
#define GUARD_BYTES 192
#define LINE_BYTES 64
#define PAGE_BYTES 65536UL /* the largest page of any system that emulates */

#endif
