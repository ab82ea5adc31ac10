//! How is a KVS snapshot kept in a file? As a tar archive, compressed with gzip when the name says so.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType, Header};

use super::error::{CmdError, fail, usage};

/// First bytes of a gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Permissions of entries.
const MODE: u32 = 0o644;

/// Where an archive goes.
enum Sink {
    Plain(Box<dyn Write>),
    Gzip(Box<GzEncoder<Box<dyn Write>>>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(out) => out.write(bytes),
            Sink::Gzip(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(out) => out.flush(),
            Sink::Gzip(out) => out.flush(),
        }
    }
}

/// An archive that is being written.
pub(crate) struct Writer {
    name: String,
    builder: Builder<Sink>,
    mtime: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Creates a file; `-` is standard output. All entries get the time `mtime`.
    ///
    /// # Errors
    /// A name that asks for a compression that is not there, or a file that cannot be made.
    pub(crate) fn create(name: &str, mtime: u64) -> Result<Self, CmdError> {
        let gzip = compressed(name)?;
        let out: Box<dyn Write> = if name == "-" {
            Box::new(BufWriter::new(io::stdout()))
        } else {
            Box::new(BufWriter::new(File::create(name).map_err(CmdError::file(name))?))
        };
        let sink = if gzip {
            Sink::Gzip(Box::new(GzEncoder::new(out, Compression::default())))
        } else {
            Sink::Plain(out)
        };
        Ok(Writer {
            name: name.to_owned(),
            builder: Builder::new(sink),
            mtime,
        })
    }

    fn header(&self, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(MODE);
        header.set_uid(nix::unistd::getuid().as_raw().into());
        header.set_gid(nix::unistd::getgid().as_raw().into());
        header.set_mtime(self.mtime);
        header.set_size(size);
        header
    }

    /// Adds a file.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn file(&mut self, path: &str, parts: &[&[u8]]) -> Result<(), CmdError> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let mut header = self.header(EntryType::Regular, u64::try_from(size).unwrap_or(u64::MAX));
        let result = self
            .builder
            .append_data(&mut header, path, Parts { parts, at: 0 });
        result.map_err(CmdError::file(format!("{}: {path}", self.name)))
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<(), CmdError> {
        let mut header = self.header(EntryType::Symlink, 0);
        self.builder
            .append_link(&mut header, path, target)
            .map_err(CmdError::file(format!("{}: {path}", self.name)))
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn directory(&mut self, path: &str) -> Result<(), CmdError> {
        let mut header = self.header(EntryType::Directory, 0);
        self.builder
            .append_data(&mut header, format!("{path}/"), io::empty())
            .map_err(CmdError::file(format!("{}: {path}", self.name)))
    }

    /// Writes the end of the archive.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn finish(self) -> Result<(), CmdError> {
        let end = match self.builder.into_inner() {
            Ok(Sink::Gzip(out)) => out.finish().and_then(|mut out| out.flush()),
            Ok(Sink::Plain(mut out)) => out.flush(),
            Err(err) => Err(err),
        };
        end.map_err(CmdError::file(self.name))
    }
}

/// Bytes in several places, read one after the other.
struct Parts<'p> {
    parts: &'p [&'p [u8]],
    at: usize,
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((part, rest)) = self.parts.split_first() {
            let left = part.get(self.at..).unwrap_or(&[]);
            if left.is_empty() {
                (self.parts, self.at) = (rest, 0);
                continue;
            }
            let count = left.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..count), left.get(..count)) {
                to.copy_from_slice(from);
            }
            self.at += count;
            return Ok(count);
        }
        Ok(0)
    }
}

/// Decides from the name whether an archive is compressed.
fn compressed(name: &str) -> Result<bool, CmdError> {
    let lower = name.to_ascii_lowercase();
    if lower.ends_with(".tgz") || lower.ends_with(".gz") {
        return Ok(true);
    }
    for other in [
        ".bz2", ".tbz", ".xz", ".txz", ".zst", ".tzst", ".lz4", ".lzma", ".Z", ".zip", ".7z", ".cpio",
    ] {
        if lower.ends_with(&other.to_ascii_lowercase()) {
            return usage(format!(
                "{name}: {other} is not supported; use a name that ends in .tar, .tar.gz or .tgz"
            ));
        }
    }
    Ok(false)
}

/// One entry of an archive that is being read.
#[derive(Debug)]
pub(crate) enum Item {
    /// A file's content.
    File(Vec<u8>),
    /// A file larger than the limit, and its size.
    TooLarge(u64),
    /// Target of a symbolic link.
    Symlink(String),
    /// A directory.
    Directory,
}

/// Reads an archive, plain or compressed with gzip; `-` is standard input. `each` gets path, time and content of every
/// entry; files larger than `limit` are not read.
///
/// # Errors
/// A file that is no archive, and those that `each` returns.
pub(crate) fn read(
    name: &str,
    limit: Option<u64>,
    mut each: impl FnMut(&str, u64, Item) -> Result<(), CmdError>,
) -> Result<(), CmdError> {
    let input: Box<dyn Read> = if name == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(Path::new(name)).map_err(CmdError::file(name))?)
    };
    let mut input = BufReader::new(input);
    let wrong = |err: io::Error| CmdError::file(name)(err);
    let start = io::BufRead::fill_buf(&mut input).map_err(wrong)?;
    let input: Box<dyn Read> = if start.starts_with(&GZIP_MAGIC) {
        Box::new(MultiGzDecoder::new(input))
    } else {
        Box::new(input)
    };
    let mut archive = Archive::new(input);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else {
            return fail(format!("{name}: an entry's name is not UTF-8"));
        };
        let path = path.trim_end_matches('/').to_owned();
        let mtime = entry.header().mtime().map_err(wrong)?;
        let size = entry.size();
        let item = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous if limit.is_some_and(|limit| size > limit) => {
                Item::TooLarge(size)
            }
            EntryType::Regular | EntryType::Continuous => {
                let mut data = Vec::new();
                entry.read_to_end(&mut data).map_err(wrong)?;
                Item::File(data)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                match String::from_utf8(target) {
                    Ok(target) => Item::Symlink(target),
                    Err(_) => return fail(format!("{name}: {path}: link target is not UTF-8")),
                }
            }
            EntryType::Directory => Item::Directory,
            other => return fail(format!("{name}: {path}: unexpected kind of entry {other:?}")),
        };
        each(&path, mtime, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let long = "d/".repeat(100) + "leaf";
        for name in ["a.tar", "a.tgz"] {
            let path = dir.path().join(name).display().to_string();
            let mut writer = Writer::create(&path, 7).unwrap();
            writer.file("a/b", &[b"one", b"", b"two"]).unwrap();
            writer.file(&long, &[]).unwrap();
            writer.symlink("link", "ns::a.b").unwrap();
            writer.directory("empty").unwrap();
            writer.finish().unwrap();
            let mut seen = Vec::new();
            read(&path, Some(5), |path, mtime, item| {
                seen.push(format!("{path} {mtime} {item:?}"));
                Ok(())
            })
            .unwrap();
            let want = [
                "a/b 7 TooLarge(6)".to_owned(),
                format!("{long} 7 File([])"),
                "link 7 Symlink(\"ns::a.b\")".to_owned(),
                "empty 7 Directory".to_owned(),
            ];
            assert_eq!(seen, want);
            let size = std::fs::metadata(&path).unwrap().len();
            assert_eq!(size < 1500, name == "a.tgz", "{size}");
        }
    }

    #[test]
    fn errors() {
        assert!(Writer::create("/no/such/dir/x.tar", 0).is_err());
        assert!(
            Writer::create("x.tar.xz", 0)
                .unwrap_err()
                .to_string()
                .contains(".xz")
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junk").display().to_string();
        std::fs::write(&path, [b'x'; 2000]).unwrap();
        assert!(
            read(&path, None, |_, _, _| Ok(()))
                .unwrap_err()
                .to_string()
                .contains("junk")
        );
    }
}
