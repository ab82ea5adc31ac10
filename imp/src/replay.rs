//! Has this node seen the request before? A file per request, made with `O_EXCL`, in a directory of root's.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};

use flux_sign::{Config, Unwrapped};
use sha2::{Digest, Sha256};

use crate::path;
use crate::paths::REPLAY;
use crate::sys::fd::{fstat, mkdirat, openat, rmdirat, unlinkat};

const DAY_SECS: i64 = 86400;
/// Most old files that one call removes.
const REMOVED_MAX: usize = 1000;

/// Remembers a request; one that is remembered already is refused. Those that `max-ttl` has ended are forgotten.
///
/// # Errors
/// What to log. Whatever cannot be remembered is refused.
pub fn record(token: &str, unwrapped: &Unwrapped, sign: &Config) -> Result<(), String> {
    let made = unwrapped
        .signed_at
        .ok_or("exec: replay = \"refuse\" needs a mechanism that tells the time")?;
    if unwrapped.header.get_str("nonce").is_none() {
        return Err("exec: the request has no nonce; it was not made by this Flux".to_owned());
    }
    if sign.cluster.as_deref() != unwrapped.header.get_str("cluster") {
        return Err("exec: the request was made for another cluster".to_owned());
    }
    let failed =
        |what: &str, err: std::io::Error| format!("exec: cannot remember the request: {what}: {err}");
    let (above, name) = REPLAY.rsplit_once('/').unwrap_or_default();
    let above = path::open_directory(above).map_err(|why| format!("exec: {why}"))?;
    let store = directory(&above, name)?;
    let day = directory(&store, &format!("day{}", made.div_euclid(DAY_SECS)))?;
    // Not the signature: munged reads some that differ in form only.
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let hash: String = Sha256::digest(signed.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let hash = CString::new(hash).unwrap_or_default();
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = openat(Some(day.as_fd()), &hash, flags, 0o600).map_err(|err| match err.raw_os_error() {
        Some(libc::EEXIST) => "exec: the request was used on this node before (replay)".to_owned(),
        _ => failed("open", err),
    })?;
    // Neither the file nor its name may be lost when the machine stops now.
    File::from(file).sync_all().map_err(|err| failed("sync", err))?;
    File::from(day).sync_all().map_err(|err| failed("sync", err))?;
    let oldest = made.saturating_sub(sign.max_ttl).div_euclid(DAY_SECS) - 1;
    forget(&store, oldest);
    Ok(())
}

/// Opens a directory of root's that nobody else may enter, and makes it first if need be.
fn directory(above: &OwnedFd, name: &str) -> Result<OwnedFd, String> {
    let failed = |err: std::io::Error| format!("exec: {REPLAY}: {name}: {err}");
    let name_c = CString::new(name).unwrap_or_default();
    match mkdirat(above.as_fd(), &name_c, 0o700) {
        Err(err) if err.raw_os_error() != Some(libc::EEXIST) => return Err(failed(err)),
        _ => {}
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = openat(Some(above.as_fd()), &name_c, flags, 0).map_err(failed)?;
    let stat = fstat(opened.as_fd()).map_err(failed)?;
    if stat.uid != 0 || stat.mode & 0o077 != 0 {
        return Err(format!(
            "exec: {REPLAY}: {name} must belong to root, with mode 0700"
        ));
    }
    Ok(opened)
}

/// Removes days before `oldest`; what cannot be removed now is tried again by a later call.
fn forget(store: &OwnedFd, oldest: i64) {
    let day_of = |name: &str| name.strip_prefix("day")?.parse::<i64>().ok();
    let mut removed = 0;
    for entry in fs::read_dir(REPLAY).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if day_of(&name).is_none_or(|day| day >= oldest) {
            continue;
        }
        let Ok(day) = directory(store, &name) else {
            continue;
        };
        for file in fs::read_dir(format!("{REPLAY}/{name}"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if removed == REMOVED_MAX {
                return;
            }
            removed += 1;
            if let Ok(file) = CString::new(file.file_name().into_encoded_bytes()) {
                drop(unlinkat(day.as_fd(), &file));
            }
        }
        if let Ok(name) = CString::new(name) {
            drop(rmdirat(store.as_fd(), &name));
        }
    }
}
