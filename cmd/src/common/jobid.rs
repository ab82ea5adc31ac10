//! How are job ids read from and shown to people?

use flux_formats::jobid::{Encoding, JobId, ascii_f58};

use super::error::{CmdError, fail};

/// Reads a job id in any encoding.
///
/// # Errors
/// `invalid job id TEXT`.
pub(crate) fn parse(text: &str) -> Result<JobId, CmdError> {
    text.parse()
        .or_else(|_| fail(format!("unable to parse jobid: {text}: invalid job id")))
}

/// Returns the F58 form that suits the user's locale.
pub(crate) fn f58(id: JobId) -> String {
    id.f58(use_ascii())
}

/// Returns true when job ids are shown with `f` instead of `ƒ`.
pub(crate) fn use_ascii() -> bool {
    let var = |name: &str| std::env::var(name).ok();
    ascii_f58(
        var("FLUX_F58_FORCE_ASCII").as_deref(),
        var("LC_ALL").as_deref(),
        var("LC_CTYPE").as_deref(),
        var("LANG").as_deref(),
    )
}

/// Returns `id` in the encoding named `name`.
pub(crate) fn encode(id: JobId, name: &str) -> Option<String> {
    match Encoding::from_name(name)? {
        Encoding::F58 => Some(f58(id)),
        other => Some(id.encode(other)),
    }
}
