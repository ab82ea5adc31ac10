//! How is configuration read? Root's files are opened with privilege, and parsed by a process that has none.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use flux_sign::kv::Kv;

use crate::parser::{self, Text};
use crate::sys::fd::{pipe, poll};
use crate::sys::process::{self, Status};
use crate::{config, path, paths};

/// Most bytes of all files of one directory together.
const SIZE_MAX: u64 = 64 << 10;
/// Most files of one directory.
const FILES_MAX: usize = 64;
/// Most bytes that the parser may answer.
const ANSWER_MAX: usize = 1 << 20;
/// How long the parser may take.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Returns the configuration of the IMP and that of signatures, the latter unverified as to its meaning.
///
/// # Errors
/// What to log.
pub fn load() -> Result<(config::Config, Kv), String> {
    let imp = read(&paths::imp_config())?;
    let sign = read(&paths::sign_config())?;
    let (imp, sign) = parse(&imp, &sign)?;
    Ok((config::Config::from_kv(imp)?, sign))
}

/// Reads `directory/*.toml` in the order of their names.
fn read(directory: &str) -> Result<Vec<Text>, String> {
    let opened = path::open_directory(directory)?;
    let entries = fs::read_dir(directory).map_err(|err| format!("{directory} cannot be listed: {err}"))?;
    let mut names: Vec<CString> = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let bytes = name.as_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            names.push(CString::new(bytes).map_err(|_| format!("{directory}: a name with NUL"))?);
        }
        if names.len() > FILES_MAX {
            return Err(format!("{directory}: more than {FILES_MAX} files"));
        }
    }
    if names.is_empty() {
        return Err(format!("{directory}/*.toml: No config file(s) found"));
    }
    names.sort();
    let mut left = SIZE_MAX;
    let mut texts = Vec::new();
    for name in names {
        let path = format!("{directory}/{}", name.to_string_lossy());
        let file = path::open_in(&opened, &name).map_err(|why| format!("{path} {why}"))?;
        let mut content = Vec::new();
        let size = File::from(file)
            .take(left + 1)
            .read_to_end(&mut content)
            .map_err(|err| format!("{path} cannot be read: {err}"))?;
        left = u64::try_from(size)
            .ok()
            .and_then(|size| left.checked_sub(size))
            .ok_or_else(|| format!("{directory}: more than {SIZE_MAX} bytes"))?;
        texts.push((path, content));
    }
    Ok(texts)
}

/// Has the texts of both directories parsed by a child that can only compute and answer.
fn parse(imp: &[Text], sign: &[Text]) -> Result<(Kv, Kv), String> {
    let failed =
        |what: &'static str| move |err: std::io::Error| format!("configuration: cannot {what}: {err}");
    let (from_child, to_parent) = pipe().map_err(failed("make a pipe"))?;
    let Some(child) = process::fork().map_err(failed("fork"))? else {
        drop(from_child);
        // Not even closed at the end: the filter does not let it.
        let mut answer = std::mem::ManuallyDrop::new(File::from(to_parent));
        process::exit(parser::run(imp, sign, &mut answer));
    };
    drop(to_parent);
    let answer = collect(File::from(from_child));
    if answer.is_err() {
        process::kill(child, libc::SIGKILL);
    }
    let status = process::wait(child).map_err(failed("wait for its parser"))?;
    let answer = answer?;
    if status != Status::Exited(0) {
        return Err(format!("configuration: its parser failed ({status:?})"));
    }
    match answer.split_first() {
        Some((b'+', text)) => split(text).ok_or("configuration: its parser is wrong".to_owned()),
        Some((b'-', text)) => Err(String::from_utf8_lossy(text).into_owned()),
        _ => Err("configuration: its parser said nothing".to_owned()),
    }
}

/// Takes the answer apart: length of the first text, both texts.
fn split(answer: &[u8]) -> Option<(Kv, Kv)> {
    let (length, texts) = answer.split_first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    let (imp, sign) = texts.split_at_checked(length)?;
    Some((Kv::decode(imp).ok()?, Kv::decode(sign).ok()?))
}

/// Reads to the end, with limits of size and time.
fn collect(mut file: File) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + TIME_MAX;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = poll([(file.as_fd(), libc::POLLIN)], Some(left)).is_ok_and(|[ready]| ready);
        if left.is_zero() || (!ready && answer.len() > ANSWER_MAX) {
            return Err("configuration: its parser does not answer".to_owned());
        }
        if !ready {
            continue;
        }
        match file.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(err) => return Err(format!("configuration: cannot read its parser's answer: {err}")),
        }
        if answer.len() > ANSWER_MAX {
            return Err("configuration: too many keys".to_owned());
        }
    }
}
