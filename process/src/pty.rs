//! How does a program get a pseudo-terminal to run a child in?

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WinSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// The master side of a pseudo-terminal.
///
/// Give [`Pty::slave_path`] to [`crate::Command::controlling_tty`]: the child becomes leader of a session of
/// its own with this terminal on descriptors 0, 1 and 2. Reading the master gives EIO once no slave is open.
#[derive(Debug)]
pub struct Pty {
    master: OwnedFd,
    slave_path: CString,
}

impl Pty {
    /// Opens a new pseudo-terminal.
    ///
    /// # Errors
    /// ENOENT without /dev/pts, ENOSPC when all are in use, EMFILE, ENFILE.
    pub fn open() -> io::Result<Self> {
        let master = sys::pty::open_master()?;
        let slave_path = sys::pty::slave_name(master.as_fd())?;
        Ok(Pty { master, slave_path })
    }

    /// Returns the path of the slave device.
    pub fn slave_path(&self) -> &CStr {
        &self.slave_path
    }

    /// Opens the slave without making it anybody's controlling terminal; holding it open keeps the master
    /// from seeing EIO while no child runs.
    ///
    /// # Errors
    /// EIO, EMFILE, ENFILE.
    pub fn open_slave(&self) -> io::Result<OwnedFd> {
        sys::pty::open_slave(&self.slave_path)
    }

    /// Sets the size; the foreground processes get SIGWINCH.
    ///
    /// # Errors
    /// Those of the ioctl.
    pub fn set_winsize(&self, size: WinSize) -> io::Result<()> {
        sys::pty::set_winsize(self.master.as_fd(), size.rows, size.cols)
    }

    /// Returns the size.
    ///
    /// # Errors
    /// Those of the ioctl.
    pub fn winsize(&self) -> io::Result<WinSize> {
        winsize(&self.master)
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

/// Returns the size of the terminal behind `fd`.
///
/// # Errors
/// ENOTTY when it is not a terminal.
pub fn winsize(fd: impl AsFd) -> io::Result<WinSize> {
    let (rows, cols) = sys::pty::winsize(fd.as_fd())?;
    Ok(WinSize { rows, cols })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_reads_back() {
        let pty = Pty::open().unwrap();
        pty.set_winsize(WinSize { rows: 33, cols: 101 }).unwrap();
        assert_eq!(pty.winsize().unwrap(), WinSize { rows: 33, cols: 101 });
        assert_eq!(winsize(pty.open_slave().unwrap()).unwrap().rows, 33);
    }
}
