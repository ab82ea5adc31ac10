//! How are consecutive hosts held as one value?

use std::fmt;
use std::sync::Arc;

/// Marks a name without number.
const PLAIN: u8 = u8::MAX;
/// Most digits that count as a number; longer ones are part of the name.
const DIGITS_MAX: usize = 9;

/// Hosts `prefix` + number + `suffix` for consecutive numbers, or one host without number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HostRange {
    /// Prefix and suffix in one; shared between ranges of one expression, since lists of ids may be long.
    name: Arc<str>,
    /// Where the suffix begins in `name`.
    split: u32,
    lo: u32,
    hi: u32,
    /// Minimum number of digits, 0 without leading zeros in `lo`; [`PLAIN`] without number.
    width: u8,
}

impl HostRange {
    /// Returns a range of numbered hosts; `split` is where the suffix begins in `name`.
    pub(super) fn numbered(name: Arc<str>, split: u32, lo: u32, hi: u32, width: u8) -> Self {
        let width = if usize::from(width) > digits(lo) { width } else { 0 };
        HostRange {
            name,
            split,
            lo,
            hi,
            width,
        }
    }

    /// Returns the range of one host; shares the name of `last` where it has the same prefix.
    pub(super) fn single(host: &str, last: Option<&HostRange>) -> Self {
        let prefix = host.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = host.get(prefix.len()..).unwrap_or("");
        let parsed = number.parse().ok().filter(|_| number.len() <= DIGITS_MAX);
        let (Some(id), Ok(split)) = (parsed, u32::try_from(prefix.len())) else {
            return HostRange {
                name: host.into(),
                split: u32::MAX,
                lo: 0,
                hi: 0,
                width: PLAIN,
            };
        };
        let width = if number.len() > 1 && number.starts_with('0') {
            number.len()
        } else {
            0
        };
        let name = match last {
            Some(last) if *last.name == *prefix => Arc::clone(&last.name),
            _ => prefix.into(),
        };
        HostRange::numbered(name, split, id, id, u8::try_from(width).unwrap_or(0))
    }

    fn parts(&self) -> (&str, &str) {
        let split = usize::try_from(self.split).unwrap_or(usize::MAX);
        self.name.split_at_checked(split).unwrap_or((&self.name, ""))
    }

    pub(super) fn count(&self) -> u64 {
        u64::from(self.hi) - u64::from(self.lo) + 1
    }

    /// Returns the host at `offset` from the first.
    pub(super) fn host(&self, offset: u32) -> String {
        let (prefix, suffix) = self.parts();
        if self.width == PLAIN {
            return self.name.to_string();
        }
        let id = self.lo.saturating_add(offset);
        format!("{prefix}{id:0width$}{suffix}", width = usize::from(self.width))
    }

    /// Returns the hosts in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = String> + '_ {
        (0..=self.hi - self.lo).map(|offset| self.host(offset))
    }

    /// Returns the offset of `host`.
    pub(super) fn find(&self, host: &str) -> Option<u32> {
        if self.width == PLAIN {
            return (*self.name == *host).then_some(0);
        }
        let (prefix, suffix) = self.parts();
        let number = host.strip_prefix(prefix)?.strip_suffix(suffix)?;
        if !number.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let id: u32 = number.parse().ok()?;
        let spelled = number.len() == digits(id).max(usize::from(self.width));
        (spelled && self.lo <= id && id <= self.hi).then(|| id - self.lo)
    }

    /// Returns the hosts at offsets `from..=to`, which must lie within the range.
    pub(super) fn slice(&self, from: u64, to: u64) -> HostRange {
        if self.width == PLAIN {
            return self.clone();
        }
        let at = |offset: u64| {
            u32::try_from(u64::from(self.lo) + offset)
                .unwrap_or(self.hi)
                .min(self.hi)
        };
        HostRange::numbered(Arc::clone(&self.name), self.split, at(from), at(to), self.width)
    }

    /// Returns what is left before and after the host at `offset`.
    pub(super) fn without(&self, offset: u32) -> (Option<HostRange>, Option<HostRange>) {
        let (offset, last) = (u64::from(offset), self.count() - 1);
        let before = (offset > 0).then(|| self.slice(0, offset - 1));
        let after = (offset < last).then(|| self.slice(offset + 1, last));
        (before, after)
    }

    fn same_name(&self, other: &HostRange) -> bool {
        self.width != PLAIN
            && other.width != PLAIN
            && self.split == other.split
            && (Arc::ptr_eq(&self.name, &other.name) || self.name == other.name)
    }

    /// Returns true when `id` is spelled alike with both widths.
    fn same_spelling(&self, other: &HostRange, id: u32) -> bool {
        let size = u8::try_from(digits(id)).unwrap_or(0);
        self.width.max(size) == other.width.max(size)
    }

    /// Takes `next` in when it continues this range.
    pub(super) fn join(&mut self, next: &HostRange) -> bool {
        let joins = self.same_name(next)
            && self.hi.checked_add(1) == Some(next.lo)
            && self.same_spelling(next, next.lo);
        if joins {
            self.hi = next.hi;
        }
        joins
    }

    /// Returns true when `other` can stand in one bracket after this range.
    ///
    /// The first id's leading zeros bind those after it (RFC 29), so they must spell alike.
    pub(super) fn groups_with(&self, other: &HostRange) -> bool {
        self.same_name(other) && self.same_spelling(other, other.lo)
    }

    /// Orders hosts by prefix, then number, then width, then suffix.
    pub(super) fn sort_key(&self) -> (&str, bool, u32, u8, &str) {
        let (prefix, suffix) = self.parts();
        (prefix, self.width != PLAIN, self.lo, self.width, suffix)
    }
}

/// Returns how many decimal digits `id` has.
fn digits(id: u32) -> usize {
    usize::try_from(id.checked_ilog10().unwrap_or(0)).unwrap_or(0) + 1
}

/// Writes ranges of one name as `prefix[ids]suffix`, or a single host without brackets.
pub(super) fn fmt_group(group: &[HostRange], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(head) = group.first() else {
        return Ok(());
    };
    if head.width == PLAIN {
        return f.write_str(&head.name);
    }
    let (prefix, suffix) = head.parts();
    if group.len() == 1 && head.lo == head.hi {
        return write!(
            f,
            "{prefix}{:0width$}{suffix}",
            head.lo,
            width = usize::from(head.width)
        );
    }
    write!(f, "{prefix}[")?;
    for (index, range) in group.iter().enumerate() {
        let width = usize::from(range.width);
        if index > 0 {
            f.write_str(",")?;
        }
        write!(f, "{:0width$}", range.lo)?;
        if range.lo < range.hi {
            write!(f, "-{:0width$}", range.hi)?;
        }
    }
    write!(f, "]{suffix}")
}
