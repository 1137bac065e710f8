// void rseq_section(struct rseq* area, uint64_t* counts)
// Stays in one restartable sequence, which its abort handler begins again: counts[0] rounds in it,
// counts[1] beginnings. Returns when it finds itself in it although the kernel does not know.
    .text
    .globl rseq_section
    .type rseq_section, @function
rseq_section:
1:  incq 8(%rsi)
    leaq section(%rip), %rax
    movq %rax, 8(%rdi)          // rseq_cs
2:  movq 8(%rdi), %rax
    testq %rax, %rax
    jz 3f
    incq (%rsi)
    jmp 2b
3:  nop
4:  ret
    .long 0x53053053            // the signature that glibc registers with
5:  jmp 1b
    .size rseq_section, . - rseq_section

    .section .data.rel.ro, "aw"
    .balign 32
section:
    .long 0, 0                  // version, flags
    .quad 2b, 4b - 2b, 5b       // start, length, abort
    .section .note.GNU-stack, "", @progbits
