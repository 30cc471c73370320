//! The C library's allocator, which Rust's default allocator is.
//!
//! Only how much it keeps; never what is allocated.

/// Lets threads share this many arenas at most. To be called before there are threads.
///
/// By default glibc makes an arena for each thread until there are 8 for each CPU, and gives what is freed in one back to
/// that one only (`mallopt(3)`, `M_ARENA_MAX`). Another C library does nothing here: musl has one heap.
pub fn limit_arenas(arenas: i32) {
    #[cfg(target_env = "gnu")]
    {
        // JUSTIFICATION: neither std nor rustix wraps mallopt(3), and the environment variable would go to every child.
        // SAFETY: it takes two numbers; glibc takes its own lock (malloc/malloc.c, __libc_mallopt).
        let taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
        // it is 0 for a value that is not allowed: more memory is used then, and nothing else changes
        debug_assert_eq!(taken, 1, "glibc does not take {arenas} arenas");
    }
    #[cfg(not(target_env = "gnu"))]
    let _arenas = arenas;
}
