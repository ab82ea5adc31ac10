//! Which groups does the process at the other end of a socket have?

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Groups that are asked for at once; a process may have 65536.
const GROUPS_FIRST: usize = 64;

/// Returns the supplementary groups that the peer of a connected UNIX socket had when it connected (socket(7)
/// `SO_PEERGROUPS`).
///
/// # Errors
/// Those of `getsockopt(2)`.
pub(crate) fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS_FIRST];
    loop {
        let room = groups.len().saturating_mul(size_of::<u32>());
        let mut size = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: the descriptor is borrowed for the call; `groups` has `size` writable bytes, and the kernel writes
        // whole u32 there, at most that many.
        #[expect(unsafe_code, reason = "the standard library has no SO_PEERGROUPS")]
        let code = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let needed = usize::try_from(size).unwrap_or(0) / size_of::<u32>();
        if code == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let err = io::Error::last_os_error();
        if err.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() {
            return Err(err);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_groups_are_seen_at_the_other_end() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Groups:"))
            .unwrap();
        let mut own: Vec<u32> = line.split_whitespace().map(|gid| gid.parse().unwrap()).collect();
        let mut seen = peer_groups(&one).unwrap();
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
    }
}
