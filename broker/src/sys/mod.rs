//! The broker's only unsafe code, behind safe functions.

pub(crate) mod allocator;
pub(crate) mod async_fd;
pub(crate) mod peer;
