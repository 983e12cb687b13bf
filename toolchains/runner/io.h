/* All that the runner needs from the world. A board without Linux gives it by semihosting. */
#ifndef KERNFIT_IO_H
#define KERNFIT_IO_H

#include <stdint.h>

/* A handle for reading, or for writing a new file; negative if that fails. */
long io_open(const char *path, int writing);
void io_close(long handle);
/* Up to `size` bytes; how many there were, or negative. */
long io_read(long handle, void *buffer, unsigned long size);
long io_write(long handle, const void *buffer, unsigned long size);
/* Tells a counter, if there is one, that a kernel begins or ends (marks.h). */
void io_mark(long descriptor);
/* The length of the running processor's vectors, where they have no fixed one; else 0. */
unsigned long io_vector_bits(void);
/* From here on the program stays on one core. */
void io_pin(void);
/* How long the program has computed, in nanoseconds from any beginning; 0 without a clock. */
uint64_t io_nanoseconds(void);
/* Take away the right to read and write whole pages; negative if that fails. */
long io_forbid(void *from, unsigned long size);
/* From here on a forbidden access calls `told` with its address; if that returns, the program
 * ends as if nobody had asked. */
void io_on_fault(void (*told)(const unsigned char *address));
void io_exit(int status) __attribute__((noreturn));

#endif
