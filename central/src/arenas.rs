//! How much freed memory glibc keeps.

#![allow(unsafe_code)] // mallopt(3) and malloc_trim(3) have no safe form

/// Few enough to be small, enough that two threads seldom wait for each other.
const ARENAS: libc::c_int = 2;

/// The least size, in bytes, of memory that is mapped by itself and given back when it is freed: the
/// memory of a password's hash (19 MiB). In an arena, small things that stay come to lie in what one
/// hash has freed, and the next one finds no room there.
const MAPPED: libc::c_int = 8 << 20;

/// Lets all threads allocate from few arenas. Each keeps what was freed in it, and a list of
/// thousands of servers is now made by this thread, now by that: with an arena for each they
/// come to a multiple of what is used at once.
///
/// Call it before there is a second thread.
pub fn share() {
    // SAFETY: mallopt sets a number of the allocator's, under its lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    // SAFETY: as above. Setting it also ends its growth with what is freed.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED) };
}

/// Gives back to the kernel what is free: after work that needed much at once and comes seldom.
pub fn give_back() {
    // SAFETY: malloc_trim takes each arena's lock, and touches only what is not in use.
    unsafe { libc::malloc_trim(0) };
}
