//! Has this node seen the request before? A file per request, made with `O_EXCL`, in a directory of root's.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use flux_sign::{Config, Unwrapped};
use sha2::{Digest, Sha256};

use crate::path;
use crate::paths::REPLAY;
use crate::refusal::demand;
use crate::sys::fd::{mkdirat, openat};

const HOUR_SECS: i64 = 3600;

/// Remembers a request; one that is remembered already is refused. Those that `max-ttl` has ended are forgotten.
///
/// # Errors
/// What to log. Whatever cannot be remembered is refused.
pub fn record(token: &str, unwrapped: &Unwrapped, sign: &Config) -> Result<(), String> {
    let made = unwrapped
        .signed_at
        .ok_or("replay = \"refuse\" needs a mechanism that tells the time")?;
    let header = &unwrapped.header;
    let ours = header.get_str("nonce").is_some();
    demand(ours, "the request has no nonce; it was not made by this Flux")?;
    let here = sign.cluster.as_deref() == header.get_str("cluster");
    demand(here, "the request was made for another cluster")?;
    let failed = |what: &str, err: std::io::Error| format!("cannot remember the request: {what}: {err}");
    let (above, name) = REPLAY.rsplit_once('/').unwrap_or_default();
    let above = path::open_directory(above)?;
    let store = directory(&above, name)?;
    let hour = directory(&store, &format!("hour{}", made.div_euclid(HOUR_SECS)))?;
    // Not the signature: munged reads some that differ in form only.
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let hash: String = Sha256::digest(signed.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let hash = CString::new(hash).unwrap_or_default();
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = openat(Some(&hour), &hash, flags, 0o600).map_err(|err| match err.raw_os_error() {
        Some(libc::EEXIST) => "the request was used on this node before (replay)".to_owned(),
        _ => failed("open", err),
    })?;
    // Neither the file nor its name may be lost when the machine stops now.
    file.sync_all().map_err(|err| failed("sync", err))?;
    hour.sync_all().map_err(|err| failed("sync", err))?;
    forget(made.saturating_sub(sign.max_ttl).div_euclid(HOUR_SECS) - 1);
    Ok(())
}

/// Opens a directory of root's that nobody else may enter, and makes it first if need be.
fn directory(above: &File, name: &str) -> Result<File, String> {
    let failed = |err: std::io::Error| format!("{REPLAY}: {name}: {err}");
    let name_c = CString::new(name).unwrap_or_default();
    match mkdirat(above, &name_c, 0o700) {
        Err(err) if err.raw_os_error() != Some(libc::EEXIST) => return Err(failed(err)),
        _ => {}
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = openat(Some(above), &name_c, flags, 0).map_err(failed)?;
    let found = opened.metadata().map_err(failed)?;
    let open = format!("{REPLAY}: {name} must belong to root, with mode 0700");
    demand(found.uid() == 0 && found.mode() & 0o077 == 0, open).map(|()| opened)
}

/// Removes hours before `oldest`; what cannot be removed now is tried again by a later call.
fn forget(oldest: i64) {
    for entry in fs::read_dir(REPLAY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let hour = name
            .to_str()
            .and_then(|name| name.strip_prefix("hour")?.parse().ok());
        if hour.is_some_and(|hour: i64| hour < oldest) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
