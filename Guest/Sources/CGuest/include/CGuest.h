#pragma once
#include <stdint.h>

// Instructions that Swift has no words for, and addresses that the linker or
// boot.S knows. No policy, no state.

// A hypercall: number and arguments as docs/lguest-abi.md says. The Host may
// look at any memory, and change it.
static inline uint64_t guest_hypercall(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    __asm__ volatile("vmcall" : "+a"(number) : "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
    return number;
}

static inline void guest_enable_interrupts(void) { __asm__ volatile("sti" ::: "memory"); }
static inline void guest_disable_interrupts(void) { __asm__ volatile("cli" ::: "memory"); }

// STI holds interrupts back for one instruction more, so there must be one.
static inline void guest_let_interrupts_in(void) { __asm__ volatile("sti\n\tnop\n\tcli" ::: "memory"); }

static inline int guest_interrupts_are_enabled(void) {
    uint64_t flags;
    __asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags) :: "memory");
    return (flags >> 9) & 1;
}

static inline uint64_t guest_time_stamp(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

struct guest_cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct guest_cpuid guest_cpuid(uint32_t leaf) {
    struct guest_cpuid result;
    __asm__ volatile("cpuid"
                     : "=a"(result.eax), "=b"(result.ebx), "=c"(result.ecx), "=d"(result.edx)
                     : "a"(leaf), "c"(0));
    return result;
}

// To a CPU that waits for another to write something.
static inline void guest_pause(void) { __asm__ volatile("pause" ::: "memory"); }

static inline uint64_t guest_cr2(void) {
    uint64_t value;
    __asm__ volatile("movq %%cr2, %0" : "=r"(value));
    return value;
}

static inline void guest_load_page_table(uint64_t root) { __asm__ volatile("movq %0, %%cr3" :: "r"(root) : "memory"); }

static inline void guest_forget_page(uint64_t address) {
    __asm__ volatile("invlpg (%0)" :: "r"(address) : "memory");
}

struct guest_table {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

static inline void guest_load_descriptors(uint64_t base, uint16_t limit, uint16_t task) {
    struct guest_table table = {limit, base};
    __asm__ volatile("lgdt %0\n\tltr %1" :: "m"(table), "r"(task) : "memory");
}

static inline void guest_load_interrupts(uint64_t base, uint16_t limit) {
    struct guest_table table = {limit, base};
    __asm__ volatile("lidt %0" :: "m"(table) : "memory");
}

// What vectors.S leaves on the stack, from the last push to the first.
struct guest_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

// Only their addresses mean something.
extern uint8_t guest_end[];
extern uint8_t guest_stack_guard[];
extern uint8_t guest_exception_stack_end[];
extern uint8_t guest_vectors[];

static inline uint64_t guest_address_of_end(void) { return (uint64_t)guest_end; }
static inline uint64_t guest_address_of_stack_guard(void) { return (uint64_t)guest_stack_guard; }
static inline uint64_t guest_address_of_exception_stack(void) { return (uint64_t)guest_exception_stack_end; }
static inline uint64_t guest_address_of_vector(uint64_t vector) { return (uint64_t)guest_vectors + vector * 16; }
