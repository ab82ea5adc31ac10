//! Which elements does a Python slice mean?

/// Returns the indices that a slice such as `[:10]` selects from a sequence of `len`; none when the text is no slice.
pub(crate) fn indices(slice: &str, len: usize) -> Option<impl Iterator<Item = usize> + use<>> {
    let inner = slice.strip_prefix('[')?.strip_suffix(']')?;
    let mut parts = Vec::new();
    for part in inner.split(':').map(str::trim) {
        parts.push(match part {
            "" => None,
            part => Some(part.parse::<i64>().ok()?),
        });
    }
    let len = i64::try_from(len).ok()?;
    let from_end = |value: i64| {
        if value < 0 {
            value.saturating_add(len)
        } else {
            value
        }
    };
    let (start, stop, step) = match parts.as_slice() {
        [at] => {
            let at = from_end((*at)?);
            if at < 0 {
                (0, 0, 1)
            } else {
                (at.min(len), at.saturating_add(1).min(len), 1)
            }
        }
        [start, stop, rest @ ..] if rest.len() <= 1 => {
            let step = rest.first().copied().flatten().unwrap_or(1);
            if step == 0 {
                return None;
            }
            let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
            let (first, last) = if step > 0 { (low, high) } else { (high, low) };
            let clamp = |value: i64| from_end(value).clamp(low, high);
            (start.map_or(first, clamp), stop.map_or(last, clamp), step)
        }
        _ => return None,
    };
    let mut at = start;
    Some(std::iter::from_fn(move || {
        let inside = if step > 0 { at < stop } else { at > stop };
        let index = inside.then_some(at);
        at = at.saturating_add(step);
        index.and_then(|index| usize::try_from(index).ok())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_takes_them() {
        for (slice, expected) in [
            ("[:1]", vec![0]),
            ("[:]", vec![0, 1, 2, 3, 4]),
            ("[-1:]", vec![4]),
            ("[1:3]", vec![1, 2]),
            ("[::2]", vec![0, 2, 4]),
            ("[::-1]", vec![4, 3, 2, 1, 0]),
            ("[3:0:-2]", vec![3, 1]),
            ("[0]", vec![0]),
            ("[-1]", vec![4]),
            ("[7]", vec![]),
            ("[-7]", vec![]),
            ("[9:]", vec![]),
        ] {
            assert_eq!(
                indices(slice, 5).unwrap().collect::<Vec<_>>(),
                expected,
                "{slice}"
            );
        }
        for bad in ["", "1", "[", "[]", "[a:]", "[::0]", "[1:2:3:4]"] {
            assert!(indices(bad, 5).is_none(), "{bad}");
        }
    }
}
