//! Which blobs are pieces of files that a client named? (`content.mmap-add`, for `flux archive create --mmap`;
//! flux-core: modules/content/mmap.c, behaviour)
//!
//! The files are read, not mapped: one that shrinks gives an error, not a signal. Pieces begin where data begins and
//! end at a hole or after `chunksize` bytes, as the client cuts them when it writes its archive. A piece is hashed
//! again at each use: a file that changed gives an error, never other bytes.

use super::Content;
use crate::service::{Cx, RpcError};
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::errno;
use flux_formats::msg::Message;
use nix::unistd::{Whence, lseek};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

#[derive(Deserialize)]
struct AddRequest {
    path: PathBuf,
    chunksize: u64,
    tag: String,
}

#[derive(Deserialize)]
struct RemoveRequest {
    tag: String,
}

impl Content {
    /// Handles `content.mmap-add`: the answer follows when the file is read.
    pub(super) fn mmap_add(&mut self, cx: &mut Cx<'_>, req: Message) {
        let Some(AddRequest { path, chunksize, tag }) = cx.decode(&req) else {
            return;
        };
        let refusal = match (self.rank, path.is_absolute(), chunksize) {
            (0, true, 1..) => None,
            (0, true, _) => Some("chunksize must not be 0"),
            (0, false, _) => Some("path must be fully qualified"),
            _ => Some("content may only be mmapped on rank 0"),
        };
        if let Some(text) = refusal {
            cx.fail(&req, errno::EINVAL, text);
            return;
        }
        let (hash, name) = (self.hash, path.clone());
        let scanned = blocking(move || scan(&name, chunksize, hash));
        cx.spawn(scanned, move |content: &mut Content, cx, places| match places {
            Ok(places) => {
                content.files.add(&tag, &path, places);
                cx.respond_empty(&req);
            }
            Err(err) => cx.fail_with(&req, &err),
        });
    }

    /// Handles `content.mmap-remove`; it is no error when no file has the tag.
    pub(super) fn mmap_remove(&mut self, cx: &mut Cx<'_>, req: &Message) {
        if let Some(RemoveRequest { tag }) = cx.decode(req) {
            self.files.remove(&tag);
            cx.respond_empty(req);
        }
    }

    /// Reads a blob from the file that holds it; returns false when none does.
    pub(super) fn fetch_from_file(&mut self, cx: &mut Cx<'_>, blobref: BlobRef, raw: bool) -> bool {
        let Some(piece) = self.files.find(&blobref) else {
            return false;
        };
        let path = piece.path.to_path_buf();
        let bytes = blocking(move || read(&path, piece.offset, piece.size, blobref));
        cx.spawn(bytes, move |content: &mut Content, cx, bytes| {
            content.fetched(cx, blobref, raw, bytes.map(|bytes| (bytes.into(), false)));
        });
        true
    }
}

/// Runs file work on a thread of its own: a slow file system must not hold the broker up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(err) => Err(RpcError::new(errno::EIO, err.to_string())),
    }
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    path: Rc<Path>,
    offset: u64,
    size: usize,
}

/// Where a blob lies in a file that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    blobref: BlobRef,
    offset: u64,
    size: usize,
}

/// A file with its pieces.
type Mapped = (Rc<Path>, Vec<Place>);

/// The files of each tag, and their pieces by name.
#[derive(Debug, Default)]
pub(super) struct Files {
    tags: BTreeMap<String, Vec<Mapped>>,
    pieces: HashMap<BlobRef, Piece>,
}

impl Files {
    /// Takes a file with its pieces.
    fn add(&mut self, tag: &str, path: &Path, places: Vec<Place>) {
        let path: Rc<Path> = path.into();
        self.index(&path, &places);
        self.tags.entry(tag.to_owned()).or_default().push((path, places));
    }

    fn index(&mut self, path: &Rc<Path>, places: &[Place]) {
        for place in places {
            self.pieces.entry(place.blobref).or_insert_with(|| Piece {
                path: path.clone(),
                offset: place.offset,
                size: place.size,
            });
        }
    }

    /// Forgets the files of a tag; there may be none.
    fn remove(&mut self, tag: &str) {
        if self.tags.remove(tag).is_none() {
            return;
        }
        // another file may hold the same bytes
        self.pieces.clear();
        let rest = std::mem::take(&mut self.tags);
        for (path, places) in rest.values().flatten() {
            self.index(path, places);
        }
        self.tags = rest;
    }

    /// Returns where a blob is.
    fn find(&self, blobref: &BlobRef) -> Option<Piece> {
        self.pieces.get(blobref).cloned()
    }

    /// Returns the tags with their files, and the number of pieces.
    pub(super) fn figures(&self) -> (BTreeMap<&str, Vec<&Path>>, usize) {
        let tags = self
            .tags
            .iter()
            .map(|(tag, files)| (tag.as_str(), files.iter().map(|(path, _)| &**path).collect()));
        (tags.collect(), self.pieces.len())
    }
}

fn failure(path: &Path, err: &std::io::Error) -> RpcError {
    let errnum = err
        .raw_os_error()
        .and_then(|code| u32::try_from(code).ok())
        .unwrap_or(errno::EIO);
    RpcError::new(errnum, format!("{}: {}", path.display(), errno::strerror(errnum)))
}

/// Reads a file and returns its pieces. Blocks.
///
/// # Errors
/// EINVAL for anything but a regular file, and those of the file system, with the path.
fn scan(path: &Path, chunksize: u64, hash: HashType) -> Result<Vec<Place>, RpcError> {
    let failed = |err: &std::io::Error| failure(path, err);
    let file = File::open(path).map_err(|err| failed(&err))?;
    let meta = file.metadata().map_err(|err| failed(&err))?;
    if !meta.is_file() {
        let text = format!("{}: not a regular file", path.display());
        return Err(RpcError::new(errno::EINVAL, text));
    }
    let (mut places, mut offset, mut buffer) = (Vec::new(), 0, Vec::new());
    while let Some((start, end)) = next_data(&file, offset).map_err(|err| failed(&err))? {
        let size = usize::try_from((end - start).min(chunksize)).unwrap_or(usize::MAX);
        buffer.resize(size, 0);
        file.read_exact_at(&mut buffer, start)
            .map_err(|err| failed(&err))?;
        places.push(Place {
            blobref: BlobRef::compute(hash, &buffer),
            offset: start,
            size,
        });
        offset = start + u64::try_from(size).unwrap_or(u64::MAX);
    }
    Ok(places)
}

/// Returns where data begins at or after `offset`, and where it ends.
fn next_data(file: &File, offset: u64) -> std::io::Result<Option<(u64, u64)>> {
    let seek = |from: u64, whence| -> std::io::Result<Option<u64>> {
        let from = i64::try_from(from).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        match lseek(file, from, whence) {
            Ok(at) => Ok(u64::try_from(at).ok()),
            Err(nix::Error::ENXIO) => Ok(None),
            Err(err) => Err(err.into()),
        }
    };
    let Some(start) = seek(offset, Whence::SeekData)? else {
        return Ok(None);
    };
    Ok(seek(start, Whence::SeekHole)?
        .filter(|end| *end > start)
        .map(|end| (start, end)))
}

/// Reads a piece again. Blocks.
///
/// # Errors
/// EIO when the file does not hold these bytes any more, and those of the file system, with the path.
fn read(path: &Path, offset: u64, size: usize, blobref: BlobRef) -> Result<Vec<u8>, RpcError> {
    let mut bytes = vec![0; size];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut bytes, offset))
        .map_err(|err| failure(path, &err))?;
    if BlobRef::compute(blobref.hash_type(), &bytes) != blobref {
        let text = format!("{}: the file has changed since it was mapped", path.display());
        return Err(RpcError::new(errno::EIO, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_at_chunks_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        file.write_all_at(&[1; 10_000], 0).unwrap();
        file.write_all_at(&[2; 100], 8 << 20).unwrap();
        file.set_len(16 << 20).unwrap();
        let places = scan(&path, 4096, HashType::Sha1).unwrap();
        assert!(places.iter().all(|place| place.size <= 4096));
        assert_eq!((places[0].offset, places[1].offset), (0, 4096));
        assert_eq!(places[0].blobref, BlobRef::compute(HashType::Sha1, &[1; 4096]));
        let total: usize = places.iter().map(|place| place.size).sum();
        assert!(total < 1 << 20, "holes are left out: {total}");
        for place in &places {
            let bytes = read(&path, place.offset, place.size, place.blobref).unwrap();
            assert_eq!(bytes.len(), place.size);
        }
        file.write_all_at(&[3], 5).unwrap();
        let err = read(&path, 0, 4096, places[0].blobref).unwrap_err();
        assert_eq!(err.errnum, errno::EIO);
        file.set_len(10).unwrap();
        assert!(read(&path, 4096, 4096, places[1].blobref).is_err());
        assert_eq!(
            scan(dir.path(), 4096, HashType::Sha1).unwrap_err().errnum,
            errno::EINVAL
        );
        let none = scan(Path::new("/no/such/file"), 1, HashType::Sha1).unwrap_err();
        assert_eq!(
            (none.errnum, none.text.as_str()),
            (errno::ENOENT, "/no/such/file: No such file or directory")
        );
    }

    #[test]
    fn equal_pieces_of_two_files_outlive_one_tag() {
        let blobref = BlobRef::compute(HashType::Sha1, b"x");
        let place = Place {
            blobref,
            offset: 0,
            size: 1,
        };
        let mut files = Files::default();
        files.add("one", Path::new("/a"), vec![place]);
        files.add("two", Path::new("/b"), vec![place]);
        files.remove("nosuch");
        assert_eq!(&*files.find(&blobref).unwrap().path, Path::new("/a"));
        files.remove("one");
        assert_eq!(&*files.find(&blobref).unwrap().path, Path::new("/b"));
        assert_eq!(files.figures().1, 1);
        files.remove("two");
        assert!(files.find(&blobref).is_none());
    }
}
