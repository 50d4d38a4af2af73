internal import CGuest

// From boot.S, before and after the program's `main`. The order matters: the
// Host is told who we are before anything may print, memory comes before the
// tables that are made of it, and interrupts last.

@c(guest_start) func start() {
    Boot.read()
    Pages.begin()
    Shared.begin()
    Paging.begin()
    Segments.begin()
    Interrupts.begin()
    Clock.begin()
    Interrupts.allow()
}

@c(guest_finish) func finish() -> Never { Power.off() }
