/* Timing kernels against each other. */
#ifndef KERNFIT_TIMING_H
#define KERNFIT_TIMING_H

#include <stdint.h>

#include "call.h"

/* Time kernels that compute the same, in turn, for about `budget` nanoseconds. The words name
 * for each of them the kernel, its file of inputs and the file for its output. */
enum fault time_kernels(uint64_t budget, unsigned long count, char **words);

#endif
