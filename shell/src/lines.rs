//! How is a stream of bytes cut into the pieces that become events or are written to a file?

/// Longest piece of a stream that is not cut into lines.
pub(crate) const PIECE_MAX: usize = 64 * 1024;
/// Longest line; one that is longer is cut, and gets a label for each piece.
const LINE_MAX: usize = 1 << 20;

/// Cuts one stream.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    buffer: Vec<u8>,
    by_line: bool,
}

impl Pieces {
    /// Returns a cutter that gives whole lines, or whatever has arrived.
    pub(crate) fn new(by_line: bool) -> Self {
        Pieces {
            buffer: Vec::new(),
            by_line,
        }
    }

    /// Takes bytes and gives every piece that is complete.
    pub(crate) fn push(&mut self, data: &[u8], mut piece: impl FnMut(&[u8])) {
        let joined;
        let mut rest = if self.buffer.is_empty() {
            data
        } else {
            self.buffer.extend_from_slice(data);
            joined = std::mem::take(&mut self.buffer);
            &joined
        };
        while let Some(length) = self.next_length(rest) {
            let (head, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            piece(head);
            rest = tail;
        }
        self.buffer.extend_from_slice(rest);
    }

    /// Gives what is left at the end of the stream.
    pub(crate) fn finish(&mut self, mut piece: impl FnMut(&[u8])) {
        if !self.buffer.is_empty() {
            piece(&std::mem::take(&mut self.buffer));
        }
    }

    fn next_length(&self, data: &[u8]) -> Option<usize> {
        let longest = if self.by_line { LINE_MAX } else { PIECE_MAX };
        if self.by_line
            && let Some(end) = data.iter().take(longest).position(|byte| *byte == b'\n')
        {
            return Some(end + 1);
        }
        if data.len() >= longest {
            let head = data.get(..longest).unwrap_or(data);
            return Some(longest - incomplete_tail(head));
        }
        let whole = data.len() - incomplete_tail(data);
        (!self.by_line && whole > 0).then_some(whole)
    }
}

/// Returns how many bytes at the end begin a UTF-8 character that is not complete.
fn incomplete_tail(data: &[u8]) -> usize {
    for back in 1..=data.len().min(3) {
        let Some(byte) = data.get(data.len() - back) else {
            return 0;
        };
        let needed = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if needed > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(by_line: bool, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut pieces = Pieces::new(by_line);
        let mut out = Vec::new();
        for part in parts {
            pieces.push(part, |piece| out.push(piece.to_vec()));
        }
        pieces.finish(|piece| out.push(piece.to_vec()));
        out
    }

    #[test]
    fn lines_stay_whole() {
        assert_eq!(
            cut(true, &[b"a\nb", b"c\n\nd"]),
            [&b"a\n"[..], b"bc\n", b"\n", b"d"]
        );
        assert_eq!(cut(false, &[b"a\nb", b"c"]), [&b"a\nb"[..], b"c"]);
    }

    #[test]
    fn characters_stay_whole() {
        let text = "aä€".as_bytes();
        assert_eq!(
            cut(false, &[&text[..2], &text[2..4], &text[4..]]),
            [&text[..1], &text[1..3], &text[3..]]
        );
        assert_eq!(cut(false, &[b"\xff\xfe"]), [b"\xff\xfe"]);
    }

    #[test]
    fn long_lines_are_cut() {
        for (by_line, longest) in [(true, LINE_MAX), (false, PIECE_MAX)] {
            let long = vec![b'x'; longest + 5];
            let out = cut(by_line, &[&long]);
            assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [longest, 5]);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(by_line: bool, parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(cut(by_line, &parts).concat(), parts.concat());
        }
    }
}
