// A static program without a libc: says "ready", closes all its files, blocks all signals, holds
// patterns in registers for a number of seconds (argv[1], one digit; 3 without), and exits with 7,
// or with 1 if a pattern changed.
#include <asm/unistd.h>

    .text
    .globl _start
_start:
    movl $3, %r15d              // seconds
    cmpq $2, (%rsp)
    jb 1f
    movq 16(%rsp), %rax
    movzbl (%rax), %r15d
    subl $'0', %r15d
1:  movl $__NR_write, %eax
    movl $1, %edi
    leaq ready(%rip), %rsi
    movl $6, %edx
    syscall
    movl $__NR_close_range, %eax
    xorl %edi, %edi
    movl $-1, %esi
    xorl %edx, %edx
    syscall
    movl $__NR_rt_sigprocmask, %eax
    movl $2, %edi               // SIG_SETMASK
    leaq all_signals(%rip), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    syscall
    call seconds_now
    addq %rax, %r15             // when to end
    incq %r15
    movabsq $0x1122334455667788, %r12
    movabsq $0x99AABBCCDDEEFF00, %r13
    movq %r12, %xmm7
    incq touched(%rip)
2:  movl $10000000, %ecx
3:  decl %ecx
    jnz 3b
    movabsq $0x1122334455667788, %rax
    cmpq %rax, %r12
    jne bad
    movq %xmm7, %rdx
    cmpq %rax, %rdx
    jne bad
    movabsq $0x99AABBCCDDEEFF00, %rax
    cmpq %rax, %r13
    jne bad
    cmpq $1, touched(%rip)
    jne bad
    call seconds_now
    cmpq %r15, %rax
    jb 2b
    movl $7, %edi
    jmp leave
bad:
    movl $1, %edi
leave:
    movl $__NR_exit_group, %eax
    syscall
    hlt

seconds_now:
    subq $24, %rsp
    movl $__NR_clock_gettime, %eax
    movl $1, %edi               // CLOCK_MONOTONIC
    movq %rsp, %rsi
    syscall
    movq (%rsp), %rax
    addq $24, %rsp
    ret

    .section .rodata
ready:
    .ascii "ready\n"
all_signals:
    .quad -1
    .bss
touched:
    .quad 0
    .section .note.GNU-stack, "", @progbits
