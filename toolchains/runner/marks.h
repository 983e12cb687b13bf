/* Descriptors that no process has: the runner closes them where counting begins and ends. */
#ifndef KERNFIT_MARKS_H
#define KERNFIT_MARKS_H

#define MARK_BEGIN 0x4b460001
#define MARK_END 0x4b460002

#endif
