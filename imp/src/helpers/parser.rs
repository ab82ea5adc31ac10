//! How is TOML read? By a process that has given up everything, and can only compute and answer once it has read.

use std::fs::File;
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use flux_sign::kv::{Kv, Value};

use super::schema;
use crate::sys::seal::seal;
use crate::wire;

/// Most bytes of all files of one directory together.
const SIZE_MAX: u64 = 64 << 10;
/// How much is read at once.
const PART_SIZE: usize = 8 << 10;
/// Memory of the parser; it takes up to 400 bytes for one of the text.
const ARENA_SIZE: usize = 96 << 20;

/// One file, opened by the monitor, and its path.
pub type Source = (String, File);
/// One file's path and content.
pub type Text = (String, Vec<u8>);

/// The helper: reads, shuts itself off, parses, and answers what [`schema::check`] returns, or `mistake`.
///
/// # Errors
/// What a system call returned.
pub fn run(imp: &[Source], sign: &[Source], answer: UnixStream) -> io::Result<()> {
    let texts = read(imp).and_then(|imp| Ok((imp, read(sign)?)));
    // Not even closed at the end: the filter does not let it.
    let mut answer = ManuallyDrop::new(File::from(OwnedFd::from(answer)));
    seal(ARENA_SIZE)?;
    let checked = texts.and_then(|(imp, sign)| schema::check(&flatten(&imp)?, &flatten(&sign)?));
    let kv = checked.unwrap_or_else(|why| wire::one("mistake", Value::String(why.replace('\0', "?"))));
    let sent = wire::send(&mut *answer, &kv);
    crate::sys::process::exit(i32::from(sent.is_err()))
}

fn read(sources: &[Source]) -> Result<Vec<Text>, String> {
    let mut left = SIZE_MAX;
    let mut texts = Vec::new();
    for (path, file) in sources {
        let mut content = Vec::with_capacity(PART_SIZE);
        let size = file
            .take(left + 1)
            .read_to_end(&mut content)
            .map_err(|err| format!("{path} cannot be read: {err}"))?;
        left = u64::try_from(size)
            .ok()
            .and_then(|size| left.checked_sub(size))
            .ok_or_else(|| format!("{path}: more than {SIZE_MAX} bytes in its directory"))?;
        texts.push((path.clone(), content));
    }
    Ok(texts)
}

/// Turns TOML into flat text; a later file's top-level key replaces an earlier one's.
///
/// # Errors
/// File, line, and what is wrong there.
pub fn flatten(texts: &[Text]) -> Result<Kv, String> {
    let mut kv = Kv::new();
    for (path, content) in texts {
        let text = std::str::from_utf8(content).map_err(|_| format!("{path} is not UTF-8"))?;
        flux_sign::flatten(text, &mut kv).map_err(|err| format!("{path}:{err}"))?;
    }
    Ok(kv)
}
