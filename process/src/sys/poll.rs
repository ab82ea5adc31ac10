//! How does one thread wait for several descriptors and a deadline?
#![expect(unsafe_code, reason = "poll(2)")]

use std::io;
use std::time::Duration;

pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let spec = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
    });
    let spec_ptr = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = libc::nfds_t::try_from(fds.len()).map_err(io::Error::other)?;
    // SAFETY: `fds` is writable for `count` entries; `spec_ptr` is null or points at `spec`; no mask is given.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), count, spec_ptr, std::ptr::null()) };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}
