// Never executed here: copied into the script area of a traced process.
// Numbers: getpid 39, gettid 186, rt_tgsigqueueinfo 297, rt_sigprocmask 14; rt_sigtimedwait 128,
// write 1, pause 34. The way back: flags while no signal can want the stack, then stack and mask,
// then all that system calls change, and all others. (.org fails if the code reaches that far.)
  .section .rodata
  .globl migrate_script_start, migrate_script_call, migrate_script_told, migrate_script_park
  .globl migrate_script_taken, migrate_script_written
  .globl migrate_script_idle, migrate_script_end
  .hidden migrate_script_start, migrate_script_call, migrate_script_told, migrate_script_park
  .hidden migrate_script_taken, migrate_script_written
  .hidden migrate_script_idle, migrate_script_end
migrate_script_start:
  .set way_back, migrate_script_start + 512
1:  movq (%rbx), %rax
    testq %rax, %rax
    js 2f
    movq 8(%rbx), %rdi
    movq 16(%rbx), %rsi
    movq 24(%rbx), %rdx
    movq 32(%rbx), %r10
    movq 40(%rbx), %r8
    movq 48(%rbx), %r9
migrate_script_call:
    syscall
    movq %rax, 56(%rbx)
    addq $64, %rbx
    jmp 1b
2:  movl $39, %eax
    syscall
    movl %eax, %edi
    movl $186, %eax
    syscall
    movl %eax, %esi
    movl $23, %edx
    leaq 16 + way_back(%rip), %r10
    movl $297, %eax
    syscall
migrate_script_told:
    movl $2, %edi
    leaq way_back(%rip), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    movl $14, %eax
    syscall
    leaq 144 + way_back(%rip), %rsp
    popfq
    movq 152 + way_back(%rip), %rsp
    leaq 8 + way_back(%rip), %rsi
    movl $14, %eax
    syscall
    movq 168 + way_back(%rip), %rax
    movq 176 + way_back(%rip), %rbx
    movq 184 + way_back(%rip), %rcx
    movq 192 + way_back(%rip), %rdx
    movq 200 + way_back(%rip), %rsi
    movq 208 + way_back(%rip), %rdi
    movq 216 + way_back(%rip), %rbp
    movq 224 + way_back(%rip), %r8
    movq 232 + way_back(%rip), %r9
    movq 240 + way_back(%rip), %r10
    movq 248 + way_back(%rip), %r11
    movq 256 + way_back(%rip), %r12
    movq 264 + way_back(%rip), %r13
    movq 272 + way_back(%rip), %r14
    movq 280 + way_back(%rip), %r15
    jmpq *160 + way_back(%rip)
migrate_script_park:
3:  leaq 0(%rbx), %rdi
    leaq 16(%rbx), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    movl $128, %eax
    syscall
migrate_script_taken:
    testl %eax, %eax
    jle 3b
4:  movq 8(%rbx), %rdi
    leaq 16(%rbx), %rsi
    movl $128, %edx
    movl $1, %eax
    syscall
migrate_script_written:
    cmpq $-4, %rax
    je 4b
    jmp 3b
migrate_script_idle:
5:  movl $34, %eax
    syscall
    jmp 5b
migrate_script_end:
  .org way_back

  .section .note.GNU-stack, "", @progbits
