//! How wide is a field, and what becomes of text that does not fit? Python's format specification.

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spec {
    pub(super) fill: Option<char>,
    pub(super) align: Option<char>,
    pub(super) zero: bool,
    pub(super) width: usize,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
    /// `+`: marks what was cut off.
    pub(super) mark: bool,
}

impl Spec {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut spec = Spec::default();
        let mut chars: Vec<char> = text.chars().collect();
        match chars.as_slice() {
            [fill, align @ ('<' | '>' | '^' | '='), ..] => {
                (spec.fill, spec.align) = (Some(*fill), Some(*align));
                chars.drain(..2);
            }
            [align @ ('<' | '>' | '^' | '='), ..] => {
                spec.align = Some(*align);
                chars.remove(0);
            }
            _ => {}
        }
        if chars.first() == Some(&'0') {
            spec.zero = true;
            chars.remove(0);
        }
        let digits = |chars: &mut Vec<char>| -> Option<usize> {
            let count = chars.iter().take_while(|c| c.is_ascii_digit()).count();
            let text: String = chars.drain(..count).collect();
            text.parse().ok()
        };
        spec.width = digits(&mut chars).unwrap_or(0);
        if chars.first() == Some(&'.') {
            chars.remove(0);
            spec.precision = Some(digits(&mut chars)?);
        }
        if chars.last() == Some(&'+') {
            spec.mark = true;
            chars.pop();
        }
        match chars.as_slice() {
            [] => {}
            [kind @ ('s' | 'd' | 'f' | 'g' | 'e' | 'x')] => spec.kind = Some(*kind),
            _ => return None,
        }
        Some(spec)
    }

    pub(super) fn pad(&self, text: &str, numeric: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if missing == 0 {
            return text.to_owned();
        }
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let fill = |count: usize| fill.to_string().repeat(count);
        let align = self.align.unwrap_or(if numeric { '>' } else { '<' });
        match align {
            '>' | '=' => format!("{}{text}", fill(missing)),
            '^' => format!("{}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            _ => format!("{text}{}", fill(missing)),
        }
    }

    pub(super) fn cut(&self, text: &str) -> String {
        match self.precision {
            Some(limit) if text.chars().count() > limit => {
                if self.mark {
                    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
                    format!("{kept}+")
                } else {
                    text.chars().take(limit).collect()
                }
            }
            _ => text.to_owned(),
        }
    }
}

/// Returns the spec of a heading, which is cut off without a mark.
pub(super) fn spec_without_mark(spec: &Spec) -> Spec {
    Spec {
        mark: false,
        ..spec.clone()
    }
}
