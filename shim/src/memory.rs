//! Keeps the server small: there is one for each container, and it does nothing for most of its life.

/// One pool for all threads: each would otherwise take memory for a pool of its own, and none is in a hurry.
pub fn one_pool() {
    // SAFETY: mallopt takes two numbers; it may be called at any time.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives back what is free.
pub fn give_back() {
    // SAFETY: malloc_trim touches only what nobody uses.
    unsafe { libc::malloc_trim(0) };
}
