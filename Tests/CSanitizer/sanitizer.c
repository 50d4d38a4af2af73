// Swift's Mutex takes its lock in the caller's own code if nobody else has it,
// and else in libswiftSynchronization, which comes without instrumentation. The
// thread sanitizer sees the first and not the second, and takes what the lock
// protects for a race whenever two threads have really met there. So the wait
// is done here instead, where it is seen. The dynamic linker prefers the
// program's own functions to a library's of the same name.

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

/// Synchronization._MutexHandle._lockSlow(UInt32) -> ()
__attribute__((swiftcall, visibility("default"))) void csanitizer_lock_slow(
    uint32_t thread, __attribute__((swift_context)) _Atomic(uint32_t) *word)
    __asm__("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");

__attribute__((swiftcall, visibility("default"))) void csanitizer_lock_slow(
    uint32_t thread, __attribute__((swift_context)) _Atomic(uint32_t) *word) {
    uint32_t nobody = 0;
    while (!atomic_compare_exchange_weak_explicit(word, &nobody, thread, memory_order_acquire, memory_order_relaxed)) {
        nobody = 0;
        usleep(20);
    }
}

#endif
#endif
