//! How does memory that nobody uses go back to the kernel? (`docs/design/0008-allocator.md`)

/// Gives back all pages on which this thread has nothing any more. mimalloc does so by itself only when it is called
/// again: what a burst has left would stay for as long as nothing happens.
pub(crate) fn give_back() {
    // SAFETY: takes no pointer, and never touches what is in use; the calling thread collects its own heap.
    #[expect(unsafe_code, reason = "the function has no safe binding")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
