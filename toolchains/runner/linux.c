/* Start-up and the functions of io.h by Linux's system calls, per architecture.
 *
 * Numbers and registers: linux/arch/<arch>/include/uapi/asm/unistd.h and the manual page
 * syscall(2). At _start the stack pointer points to the number of words on the command
 * line, followed by pointers to them.
 */
#include "io.h"

#define AT_FDCWD (-100)
#define O_WRONLY 1
#define O_CREAT 0100
#define O_TRUNC 01000
#define CLOCK_THREAD_CPUTIME_ID 3
#define MOST_PROCESSORS 1024
#define PROT_NONE 0
#define SIGSEGV 11
#define SA_SIGINFO 4
#define SA_RESTORER 0x04000000
#define SA_NODEFER 0x40000000
#define SA_RESETHAND 0x80000000
#define SIGNAL_SET_BYTES 8

void runner_main(long count, char **words);

__attribute__((used, noreturn)) void runner_start(long *stack)
{
    runner_main(stack[0], (char **)(stack + 1));
    __builtin_unreachable();
}

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, EXIT = 60, CLOSE = 3, OPENAT = 257,
       CLOCK_GETTIME = 228, SCHED_SETAFFINITY = 203, SCHED_GETAFFINITY = 204,
       MPROTECT = 10, RT_SIGACTION = 13 };
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call runner_start\n");
static long system_call(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, EXIT = 93, CLOSE = 57, OPENAT = 56,
       CLOCK_GETTIME = 113, SCHED_SETAFFINITY = 122, SCHED_GETAFFINITY = 123,
       MPROTECT = 226, RT_SIGACTION = 134 };
__asm__(".globl _start\n_start: mov x0, sp\n bl runner_start\n");
static long system_call(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#elif defined(__arm__)
enum { READ = 3, WRITE = 4, EXIT = 1, CLOSE = 6, OPENAT = 322,
       CLOCK_GETTIME = 263, SCHED_SETAFFINITY = 241, SCHED_GETAFFINITY = 242,
       MPROTECT = 125, RT_SIGACTION = 174 };
__asm__(".globl _start\n_start: mov r0, sp\n bic sp, sp, #7\n bl runner_start\n");
static long system_call(long number, long a, long b, long c, long d)
{
    register long r7 __asm__("r7") = number;
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3) : "memory");
    return r0;
}
#elif defined(__riscv) && __riscv_xlen == 64
enum { READ = 63, WRITE = 64, EXIT = 93, CLOSE = 57, OPENAT = 56,
       CLOCK_GETTIME = 113, SCHED_SETAFFINITY = 122, SCHED_GETAFFINITY = 123,
       MPROTECT = 226, RT_SIGACTION = 134 };
__asm__(".globl _start\n_start: .option push\n .option norelax\n la gp, __global_pointer$\n"
        " .option pop\n mv a0, sp\n call runner_start\n");
static long system_call(long number, long a, long b, long c, long d)
{
    register long a7 __asm__("a7") = number;
    register long a0 __asm__("a0") = a;
    register long a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c;
    register long a3 __asm__("a3") = d;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3) : "memory");
    return a0;
}
#elif defined(__s390x__)
enum { READ = 3, WRITE = 4, EXIT = 1, CLOSE = 6, OPENAT = 288,
       CLOCK_GETTIME = 260, SCHED_SETAFFINITY = 239, SCHED_GETAFFINITY = 240,
       MPROTECT = 125, RT_SIGACTION = 174 };
__asm__(".globl _start\n_start: lgr %r2, %r15\n aghi %r15, -160\n brasl %r14, runner_start\n");
static long system_call(long number, long a, long b, long c, long d)
{
    register long r1 __asm__("r1") = number;
    register long r2 __asm__("r2") = a;
    register long r3 __asm__("r3") = b;
    register long r4 __asm__("r4") = c;
    register long r5 __asm__("r5") = d;
    __asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4), "d"(r5) : "memory");
    return r2;
}
#elif defined(__i386__)
enum { READ = 3, WRITE = 4, EXIT = 1, CLOSE = 6, OPENAT = 295,
       CLOCK_GETTIME = 265, SCHED_SETAFFINITY = 241, SCHED_GETAFFINITY = 242,
       MPROTECT = 125, RT_SIGACTION = 174 };
__asm__(".globl _start\n_start: mov %esp, %eax\n and $-16, %esp\n sub $12, %esp\n push %eax\n"
        " call runner_start\n");
static long system_call(long number, long a, long b, long c, long d)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result)
                     : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
    return result;
}
#elif defined(__powerpc64__)
/* ELFv2: the table of contents' pointer in r2, a frame of 32 bytes and more below the stack. */
enum { READ = 3, WRITE = 4, EXIT = 1, CLOSE = 6, OPENAT = 286,
       CLOCK_GETTIME = 246, SCHED_SETAFFINITY = 222, SCHED_GETAFFINITY = 223,
       MPROTECT = 125, RT_SIGACTION = 173 };
__asm__(".globl _start\n_start: bcl 20,31,1f\n1: mflr 30\n addis 2,30,.TOC.-1b@ha\n"
        " addi 2,2,.TOC.-1b@l\n mr 3,1\n clrrdi 1,1,4\n li 0,0\n stdu 0,-64(1)\n"
        " bl runner_start\n nop\n");
static long system_call(long number, long a, long b, long c, long d)
{
    register long r0 __asm__("r0") = number;
    register long r3 __asm__("r3") = a;
    register long r4 __asm__("r4") = b;
    register long r5 __asm__("r5") = c;
    register long r6 __asm__("r6") = d;
    /* An error is told by the summary overflow bit, with its number in r3. */
    __asm__ volatile("sc\n bns+ 1f\n neg 3,3\n1:"
                     : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6)
                     :
                     : "r7", "r8", "r9", "r10", "r11", "r12", "cr0", "ctr", "memory");
    return r3;
}
#elif defined(__loongarch64)
enum { READ = 63, WRITE = 64, EXIT = 93, CLOSE = 57, OPENAT = 56,
       CLOCK_GETTIME = 113, SCHED_SETAFFINITY = 122, SCHED_GETAFFINITY = 123,
       MPROTECT = 226, RT_SIGACTION = 134 };
__asm__(".globl _start\n_start: move $a0, $sp\n bl runner_start\n");
static long system_call(long number, long a, long b, long c, long d)
{
    register long a7 __asm__("$a7") = number;
    register long a0 __asm__("$a0") = a;
    register long a1 __asm__("$a1") = b;
    register long a2 __asm__("$a2") = c;
    register long a3 __asm__("$a3") = d;
    __asm__ volatile("syscall 0" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3)
                     : "$t0", "$t1", "$t2", "$t3", "$t4", "$t5", "$t6", "$t7", "$t8", "memory");
    return a0;
}
#else
#error "runner/linux.c: start-up and system calls of this architecture are missing"
#endif

long io_open(const char *path, int writing)
{
    return system_call(OPENAT, AT_FDCWD, (long)path, writing ? O_WRONLY | O_CREAT | O_TRUNC : 0, 0644);
}

void io_close(long handle)
{
    system_call(CLOSE, handle, 0, 0, 0);
}

long io_read(long handle, void *buffer, unsigned long size)
{
    return system_call(READ, handle, (long)buffer, (long)size, 0);
}

long io_write(long handle, const void *buffer, unsigned long size)
{
    return system_call(WRITE, handle, (long)buffer, (long)size, 0);
}

void io_mark(long descriptor)
{
    io_close(descriptor);
}

unsigned long io_vector_bits(void)
{
#if defined(__riscv)
    unsigned long bytes;
    __asm__ volatile("csrr %0, 0xc22" : "=r"(bytes)); /* vlenb; RISC-V V extension 1.0, 3.6 */
    return 8 * bytes;
#else
    return 0;
#endif
}

/* The last processor that it may run on: where some are faster than others, these mostly come
 * last, and interrupts go to the first. */
void io_pin(void)
{
    unsigned long mask[MOST_PROCESSORS / 8 / sizeof(long)];
    long bytes = system_call(SCHED_GETAFFINITY, 0, sizeof mask, (long)mask, 0);
    unsigned long last = ~0UL ^ ~0UL >> 1, i, word = bytes > 0 ? (unsigned long)bytes / sizeof *mask : 0;

    while (word && !mask[word - 1])
        word--;
    if (!word)
        return;
    while (!(mask[word - 1] & last))
        last >>= 1;
    for (i = 0; i < word; i++)
        mask[i] = i == word - 1 ? last : 0;
    system_call(SCHED_SETAFFINITY, 0, (long)(word * sizeof *mask), (long)mask, 0);
}

/* On 32-bit processors this call's structure has two numbers of 32 bits (the newer
 * clock_gettime64, which old kernels lack, has two of 64): longs on all of them. */
uint64_t io_nanoseconds(void)
{
    long time[2] = {0, 0};
    system_call(CLOCK_GETTIME, CLOCK_THREAD_CPUTIME_ID, (long)time, 0, 0);
    return (uint64_t)time[0] * 1000000000u + (uint64_t)time[1];
}

long io_forbid(void *from, unsigned long size)
{
    return system_call(MPROTECT, (long)from, (long)size, PROT_NONE, 0);
}

static void (*told_of_fault)(const unsigned char *address);

/* The address stands behind three ints, at its own alignment: siginfo_t of sigaction(2). */
static void caught(int signal, void *information, void *context)
{
    volatile unsigned long nowhere = 8;

    (void)signal, (void)context;
    told_of_fault(((unsigned char **)information)[sizeof(long) == 8 ? 2 : 3]);
    (void)*(volatile unsigned char *)nowhere; /* without a handler now, and it must not return */
}

/* The system's structure is handler, flags, restorer, signals to block; some have no restorer,
 * and take it for the signals. It never returns, so that what the restorer is makes no odds. */
void io_on_fault(void (*told)(const unsigned char *address))
{
    unsigned long action[5] = {(unsigned long)caught,
                               SA_SIGINFO | SA_RESTORER | SA_NODEFER | SA_RESETHAND,
                               (unsigned long)caught, 0, 0};
    told_of_fault = told;
    system_call(RT_SIGACTION, SIGSEGV, (long)action, 0, SIGNAL_SET_BYTES);
}

void io_exit(int status)
{
    for (;;)
        system_call(EXIT, status, 0, 0, 0);
}
