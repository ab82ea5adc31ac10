//! How does a caller make and use pipes, socket pairs and memory files that close themselves?

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};

use crate::sys;

/// Returns a close-on-exec pipe as (read end, write end).
///
/// # Errors
/// EMFILE or ENFILE when no descriptor is left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    sys::fd::pipe()
}

/// Returns a connected pair of close-on-exec stream sockets.
///
/// # Errors
/// EMFILE or ENFILE when no descriptor is left.
pub fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    sys::fd::socketpair()
}

/// Returns a memory file holding `content`, sealed against any change, positioned at its start.
///
/// Give it to a program as standard input: reading it can neither block nor depend on the writer living.
///
/// # Errors
/// EMFILE, ENFILE or ENOMEM.
pub fn memfd_sealed(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(sys::fd::memfd(name)?);
    file.write_all(content)?;
    file.seek(SeekFrom::Start(0))?;
    sys::fd::seal(file.as_fd())?;
    Ok(file.into())
}

/// Sets or clears O_NONBLOCK.
///
/// # Errors
/// EBADF cannot happen with a valid borrow; the kernel's other errors are passed on.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    sys::fd::set_nonblocking(fd.as_fd(), on)
}

/// Reads once into `buffer`, without retrying EINTR; 0 means end of file.
///
/// # Errors
/// EAGAIN when the descriptor is non-blocking and empty, EIO at the end of a pty.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    sys::fd::read(fd.as_fd(), buffer)
}

/// Writes once from `data`, without retrying EINTR; returns the bytes taken.
///
/// # Errors
/// EAGAIN when the descriptor is non-blocking and full, EPIPE when the reader is gone.
pub fn write(fd: impl AsFd, data: &[u8]) -> io::Result<usize> {
    sys::fd::write(fd.as_fd(), data)
}

/// Writes all of `data`, retrying after interruptions; the descriptor must be blocking.
///
/// # Errors
/// Whatever `write(2)` gives but EINTR.
pub fn write_all(fd: impl AsFd, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match write(fd.as_fd(), data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => data = data.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a file from its start to its end, at most `limit` bytes, whatever the current position is.
///
/// # Errors
/// `FileTooLarge` when there is more than `limit`; whatever reading gives.
pub fn read_all_at(fd: OwnedFd, limit: usize) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd);
    let mut content = Vec::new();
    let cap = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    (&mut file).take(cap).read_to_end(&mut content)?;
    if content.len() > limit {
        Err(io::ErrorKind::FileTooLarge.into())
    } else {
        Ok(content)
    }
}

/// Takes ownership of an inherited descriptor that the environment names by number (such as PMI_FD) and makes
/// it close-on-exec. Call it once per number.
///
/// # Errors
/// EBADF when the number is not an open descriptor.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    sys::fd::adopt(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_memfd_reads_back_and_refuses_writes() {
        let fd = memfd_sealed(c"test", b"hello").unwrap();
        assert!(write(&fd, b"x").is_err());
        assert_eq!(read_all_at(fd, 100).unwrap(), b"hello");
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let fd = memfd_sealed(c"test", b"hello").unwrap();
        assert_eq!(
            read_all_at(fd, 4).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }

    #[test]
    fn an_empty_pipe_would_block() {
        let (reader, writer) = pipe().unwrap();
        set_nonblocking(&reader, true).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(
            read(&reader, &mut buffer).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        write_all(&writer, b"ab").unwrap();
        assert_eq!(read(&reader, &mut buffer).unwrap(), 2);
        drop(writer);
        assert_eq!(read(&reader, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_closed_number_cannot_be_adopted() {
        assert_eq!(adopt(1_000_000).unwrap_err().raw_os_error(), Some(9));
    }
}
