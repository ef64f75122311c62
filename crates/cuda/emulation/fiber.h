// Stackful coroutines: switch_to leaves the running one and enters another. On x86-64 a few
// instructions; elsewhere ucontext, which is slower (a system call per switch) and does the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace spikenorm::emulation {

constexpr std::size_t kStackBytes = 64 << 10;

struct Context {
#if defined(__x86_64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t context;
#endif
    const void* bottom = nullptr;
    std::size_t size = 0;
};

#if defined(__x86_64__)
extern "C" void spikenorm_switch(void** save, void* load);
asm(R"(
.text
.globl spikenorm_switch
.type spikenorm_switch, @function
spikenorm_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size spikenorm_switch, .-spikenorm_switch
)");
#endif

// Makes `context` start `entry` (which must never return) on `stack` when it is first switched to.
inline void make_context(Context& context, char* stack, void (*entry)()) {
    context.bottom = stack;
    context.size = kStackBytes;
#if defined(__x86_64__)
    auto* top = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(stack + kStackBytes) & ~std::uintptr_t{15});
    *--top = nullptr;  // the return address of entry, which keeps the stack aligned as a call would
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context.stack_pointer = top;
#else
    getcontext(&context.context);
    context.context.uc_stack.ss_sp = stack;
    context.context.uc_stack.ss_size = kStackBytes;
    context.context.uc_link = nullptr;
    makecontext(&context.context, entry, 0);
#endif
}

// The first thing a new fiber does: tells the sanitizer that the switch from `from` is over.
inline void arrive(Context& from) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &from.bottom, &from.size);
#else
    (void)from;
#endif
}

inline void switch_to(Context& from, Context& to, bool from_is_done = false) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(from_is_done ? nullptr : &fake_stack, to.bottom, to.size);
#else
    (void)from_is_done;
#endif
#if defined(__x86_64__)
    spikenorm_switch(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

}  // namespace spikenorm::emulation
