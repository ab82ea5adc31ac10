//! How is TOML parsed? By a process that can only compute and answer.

use std::fs::File;
use std::io::Write;

use flux_sign::kv::Kv;

use crate::sandbox;
use crate::sys::{arena, seccomp};

/// Memory of the parser; it takes up to 400 bytes for one of the text.
const ARENA_SIZE: usize = 96 << 20;

/// One file's path and content.
pub type Text = (String, Vec<u8>);

/// The child: gives up everything, parses, answers `+` and both texts or `-` and why not; returns its exit code.
pub fn run(imp: &[Text], sign: &[Text], answer: &mut File) -> i32 {
    let sealed =
        sandbox::enter().is_ok() && arena::seal(ARENA_SIZE).is_ok() && seccomp::allow_writing_only().is_ok();
    if !sealed {
        return 1;
    }
    let both = flatten(imp).and_then(|imp| Ok((imp.encode(), flatten(sign)?.encode())));
    let text = match both {
        Ok((imp, sign)) => {
            let length = u32::try_from(imp.len()).unwrap_or(u32::MAX).to_ne_bytes();
            [b"+".as_slice(), &length, &imp, &sign].concat()
        }
        Err(why) => [b"-".as_slice(), why.as_bytes()].concat(),
    };
    i32::from(answer.write_all(&text).is_err())
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
