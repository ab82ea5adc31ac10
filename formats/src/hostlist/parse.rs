//! How is the text of a hostlist read? (RFC 29.)

use std::sync::Arc;

use super::Hostlist;
use super::range::HostRange;

/// Why a text is not a hostlist, or an operation refuses a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostlistError {
    /// Brackets do not match, nest, or appear twice in one expression.
    #[error("unbalanced or repeated bracket in hostlist")]
    Bracket,
    /// White space, a control character, or a character beyond ASCII.
    #[error("invalid character in hostlist")]
    Character,
    /// Brackets hold something other than ascending numeric ranges.
    #[error("invalid range in hostlist")]
    Range,
    /// The list has too many hosts for an operation that looks at each.
    #[error("hostlist has too many hosts")]
    TooManyHosts,
}

/// Checks a host name.
pub(super) fn check_name(host: &str) -> Result<(), HostlistError> {
    let valid = |c: u8| c.is_ascii_graphic() && !matches!(c, b'[' | b']' | b',');
    if !host.is_empty() && host.bytes().all(valid) {
        Ok(())
    } else {
        Err(HostlistError::Character)
    }
}

/// Parses a whole list; empty expressions between commas are skipped.
pub(super) fn parse(text: &str) -> Result<Hostlist, HostlistError> {
    if !text.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(HostlistError::Character);
    }
    let mut list = Hostlist::new();
    let mut rest = text;
    while !rest.is_empty() {
        // the expression ends at the first comma outside brackets
        let open = rest.find(['[', ',', ']']);
        let end = match open.map(|at| (at, rest.as_bytes().get(at))) {
            None => rest.len(),
            Some((at, Some(b','))) => at,
            Some((at, Some(b'['))) => {
                let close = rest.find(']').ok_or(HostlistError::Bracket)?;
                let ids = rest.get(at + 1..close).ok_or(HostlistError::Bracket)?;
                let tail = rest.get(close + 1..).unwrap_or("");
                let suffix = tail.split(',').next().unwrap_or("");
                if suffix.contains(['[', ']']) {
                    return Err(HostlistError::Bracket);
                }
                push_ids(&mut list, rest.get(..at).unwrap_or(""), ids, suffix)?;
                rest = tail.get(suffix.len() + 1..).unwrap_or("");
                continue;
            }
            Some(_) => return Err(HostlistError::Bracket),
        };
        let host = rest.get(..end).unwrap_or("");
        if !host.is_empty() {
            list.push_host(host);
        }
        rest = rest.get(end + 1..).unwrap_or("");
    }
    Ok(list)
}

/// Appends `prefix[ids]suffix`.
fn push_ids(list: &mut Hostlist, prefix: &str, ids: &str, suffix: &str) -> Result<(), HostlistError> {
    let split = u32::try_from(prefix.len()).map_err(|_| HostlistError::Range)?;
    let name: Arc<str> = format!("{prefix}{suffix}").into();
    let mut first_width = None;
    for part in ids.split(',') {
        let (lo, hi) = part.split_once('-').unwrap_or((part, part));
        let own_width = if lo.len() > 1 && lo.starts_with('0') {
            lo.len()
        } else {
            0
        };
        let width = own_width.max(*first_width.get_or_insert(own_width));
        let width = u8::try_from(width)
            .ok()
            .filter(|&width| width < 32)
            .ok_or(HostlistError::Range)?;
        let (lo, hi) = (number(lo)?, number(hi)?);
        if lo > hi {
            return Err(HostlistError::Range);
        }
        list.push_range(HostRange::numbered(Arc::clone(&name), split, lo, hi, width));
    }
    Ok(())
}

fn number(digits: &str) -> Result<u32, HostlistError> {
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(HostlistError::Range);
    }
    digits.parse().map_err(|_| HostlistError::Range)
}
