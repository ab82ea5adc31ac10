//! How do `--format` strings make a table? Python's format specification with what flux-core adds to it.
//!
//! `{field!conversion:spec}` with conversions `D` `d` `F` `H` `P`, spec suffixes `h` (`-` for nothing) and `+` (mark
//! what was cut off), prefixes `?:` (drop the column when it is empty) and `+:` (widen to the longest value), and a
//! leading `sort:KEY,...`.

use std::io::Write;

use super::error::{CmdError, usage};
use super::time::strftime;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Nothing; shown as empty text.
    None,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl Cell {
    /// Returns the value as a number, for sorting and conversions.
    fn number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "only shown and compared")]
            Cell::Int(number) => Some(*number as f64),
            Cell::Float(number) => Some(*number),
            Cell::Text(text) => text.parse().ok(),
            Cell::None => None,
        }
    }

    pub(crate) fn plain(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Int(number) => number.to_string(),
            Cell::Float(number) => python_float(*number),
            Cell::None => String::new(),
        }
    }

    fn order(&self, other: &Cell) -> std::cmp::Ordering {
        match (self, other) {
            (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
            (Cell::None, Cell::None) => std::cmp::Ordering::Equal,
            (Cell::None, _) => std::cmp::Ordering::Less,
            (_, Cell::None) => std::cmp::Ordering::Greater,
            (a, b) => a.number().unwrap_or(0.0).total_cmp(&b.number().unwrap_or(0.0)),
        }
    }
}

/// Writes a float as Python's `str` does: `4.0`, not `4`.
fn python_float(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 {
            "inf".to_owned()
        } else {
            "-inf".to_owned()
        };
    }
    let text = number.to_string();
    if text.contains(['.', 'e', 'N']) {
        text
    } else {
        format!("{text}.0")
    }
}

/// What the fields of one kind of table are.
pub(crate) trait Fields {
    /// A resolved field.
    type Field;
    /// What a row is made of.
    type Row;

    /// Returns the field of a name and its heading.
    fn resolve(&self, name: &str) -> Option<(Self::Field, String)>;

    /// Returns the value of a field in a row.
    fn value(&self, field: &Self::Field, row: &Self::Row) -> Cell;

    /// Returns the escape sequence that colours a whole row, when it has one.
    fn paint(&self, _row: &Self::Row) -> Option<&'static str> {
        None
    }
}

/// A parsed format.
#[derive(Debug)]
pub(crate) struct Format<F> {
    columns: Vec<Column<F>>,
    tail: String,
    sort: Vec<SortKey<F>>,
}

#[derive(Debug)]
struct SortKey<F> {
    field: F,
    reverse: bool,
}

#[derive(Debug)]
struct Column<F> {
    /// Text before the field.
    text: String,
    field: F,
    heading: String,
    conversion: Option<char>,
    /// The part of the spec for strftime, with `!d`.
    strftime: Option<String>,
    spec: Spec,
    /// `h`: shows `-` for nothing.
    dash: bool,
    drop_empty: bool,
    widen: bool,
    /// Holds colours, which take no room.
    color: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    kind: Option<char>,
    /// `+`: marks what was cut off.
    mark: bool,
}

impl Spec {
    fn parse(text: &str) -> Option<Self> {
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

    fn pad(&self, text: &str, numeric: bool) -> String {
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

    fn cut(&self, text: &str) -> String {
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

impl<F> Format<F> {
    /// Parses a format string.
    ///
    /// # Errors
    /// A usage error that names the field or the place.
    pub(crate) fn parse<T: Fields<Field = F>>(text: &str, fields: &T) -> Result<Self, CmdError> {
        let mut format = Format {
            columns: Vec::new(),
            tail: String::new(),
            sort: Vec::new(),
        };
        let mut rest = text;
        if let Some(after) = text.strip_prefix("sort:") {
            let (keys, after) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
            format.set_sort(keys, fields)?;
            rest = after;
        }
        let mut literal = String::new();
        while let Some(at) = rest.find(['{', '}']) {
            let (head, tail) = rest.split_at(at);
            literal.push_str(head);
            if let Some(after) = tail.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = tail.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(body) = tail.strip_prefix('{') {
                let Some((inner, after)) = body.split_once('}') else {
                    return usage(format!(
                        "Error in user format: expected '}}' before end of string in '{text}'"
                    ));
                };
                format
                    .columns
                    .push(Column::parse(std::mem::take(&mut literal), inner, fields)?);
                rest = after;
            } else {
                return usage(format!("Error in user format: single '}}' in '{text}'"));
            }
        }
        literal.push_str(rest);
        format.tail = literal;
        Ok(format)
    }

    /// Sets the keys to sort by: `KEY` or `-KEY`, joined by commas.
    ///
    /// # Errors
    /// A usage error that names the key.
    pub(crate) fn set_sort<T: Fields<Field = F>>(&mut self, keys: &str, fields: &T) -> Result<(), CmdError> {
        self.sort.clear();
        for key in keys.split(',').filter(|key| !key.is_empty()) {
            let (name, reverse) = key.strip_prefix('-').map_or((key, false), |name| (name, true));
            match fields.resolve(name) {
                Some((field, _)) => self.sort.push(SortKey { field, reverse }),
                None => return usage(format!("Invalid sort key: {name}")),
            }
        }
        Ok(())
    }

    /// Returns the fields that the format and its sort keys use.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &F> {
        self.columns
            .iter()
            .map(|column| &column.field)
            .chain(self.sort.iter().map(|key| &key.field))
    }

    /// Prints the table: a header unless `no_header`, then the rows.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn print<T: Fields<Field = F>>(
        &self,
        fields: &T,
        rows: &mut [T::Row],
        no_header: bool,
        colored: bool,
        out: &mut impl Write,
    ) -> Result<(), CmdError> {
        self.sort(fields, rows);
        let layout = self.layout(fields, rows, colored);
        if !no_header {
            writeln!(out, "{}", layout.header())?;
        }
        layout.rows(fields, rows, out)
    }

    /// Returns true when rows are to be sorted, so that all must be there before one is printed.
    pub(crate) fn sorts(&self) -> bool {
        !self.sort.is_empty()
    }

    /// Sorts rows as the format says.
    pub(crate) fn sort<T: Fields<Field = F>>(&self, fields: &T, rows: &mut [T::Row]) {
        if !self.sort.is_empty() {
            rows.sort_by(|a, b| self.compare(fields, a, b));
        }
    }

    /// Returns the columns as they suit some rows.
    pub(crate) fn layout<T: Fields<Field = F>>(
        &self,
        fields: &T,
        rows: &[T::Row],
        colored: bool,
    ) -> Layout<'_, F> {
        Layout {
            columns: self
                .columns
                .iter()
                .filter_map(|column| column.adapt(fields, rows, colored))
                .collect(),
            tail: &self.tail,
            colored,
        }
    }

    fn compare<T: Fields<Field = F>>(&self, fields: &T, a: &T::Row, b: &T::Row) -> std::cmp::Ordering {
        for key in &self.sort {
            let order = fields.value(&key.field, a).order(&fields.value(&key.field, b));
            let order = if key.reverse { order.reverse() } else { order };
            if order.is_ne() {
                return order;
            }
        }
        std::cmp::Ordering::Equal
    }
}

/// The columns of a table whose widths are fixed.
#[derive(Debug)]
pub(crate) struct Layout<'f, F> {
    columns: Vec<(&'f Column<F>, Spec)>,
    tail: &'f str,
    colored: bool,
}

impl<F> Layout<'_, F> {
    /// Returns the line of headings.
    pub(crate) fn header(&self) -> String {
        let mut line = String::new();
        for (column, spec) in &self.columns {
            line.push_str(&column.text);
            line.push_str(&spec.pad(&spec_without_mark(spec).cut(&column.heading), false));
        }
        line.push_str(self.tail);
        line
    }

    /// Returns one row without colours.
    pub(crate) fn row<T: Fields<Field = F>>(&self, fields: &T, row: &T::Row) -> String {
        let mut line = String::new();
        for (column, spec) in &self.columns {
            line.push_str(&column.text);
            line.push_str(&column.show(fields, row, spec));
        }
        line.push_str(self.tail);
        line
    }

    /// Prints rows.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn rows<T: Fields<Field = F>>(
        &self,
        fields: &T,
        rows: &[T::Row],
        out: &mut impl Write,
    ) -> Result<(), CmdError> {
        for row in rows {
            let line = self.row(fields, row);
            match fields.paint(row).filter(|_| self.colored) {
                Some(paint) => writeln!(out, "{paint}{line}\x1b[0;0m")?,
                None => writeln!(out, "{line}")?,
            }
        }
        Ok(())
    }
}

fn spec_without_mark(spec: &Spec) -> Spec {
    Spec {
        mark: false,
        ..spec.clone()
    }
}

impl<F> Column<F> {
    fn parse<T: Fields<Field = F>>(mut text: String, inner: &str, fields: &T) -> Result<Self, CmdError> {
        let (mut drop_empty, mut widen) = (false, false);
        for (prefix, drop, wide) in [("?+:", true, true), ("?:", true, false), ("+:", false, true)] {
            if let Some(before) = text.strip_suffix(prefix) {
                (drop_empty, widen) = (drop, wide);
                text = before.to_owned();
                break;
            }
        }
        let (name, spec_text) = inner.split_once(':').unwrap_or((inner, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, conversion.chars().next()),
            None => (name, None),
        };
        let Some((field, heading)) = fields.resolve(name) else {
            return usage(format!("Unknown format field: {name}"));
        };
        let (strftime, spec_text) = match conversion {
            Some('d') => match spec_text.split_once("::") {
                Some((format, spec)) => (Some(format.to_owned()), spec),
                None => (Some(spec_text.to_owned()), ""),
            },
            Some('D' | 'F' | 'H' | 'P') | None => (None, spec_text),
            Some(other) => return usage(format!("Unknown conversion '!{other}' of field {name}")),
        };
        let (spec_text, dash) = spec_text
            .strip_suffix('h')
            .map_or((spec_text, false), |spec| (spec, true));
        let Some(spec) = Spec::parse(spec_text) else {
            return usage(format!("Invalid format specifier '{spec_text}' of field {name}"));
        };
        let color = name.starts_with("color_");
        Ok(Column {
            text,
            field,
            heading,
            conversion,
            strftime,
            spec,
            dash,
            drop_empty,
            widen,
            color,
        })
    }

    /// Returns the column as these rows need it, or `None` when it is dropped.
    fn adapt<T: Fields<Field = F>>(
        &self,
        fields: &T,
        rows: &[T::Row],
        colored: bool,
    ) -> Option<(&Self, Spec)> {
        let mut spec = self.spec.clone();
        if self.color && !colored {
            return None;
        }
        if self.drop_empty || self.widen {
            let bare = Spec {
                width: 0,
                precision: None,
                ..spec.clone()
            };
            let widest = rows
                .iter()
                .map(|row| self.show(fields, row, &bare))
                .filter(|text| text != "-")
                .map(|text| text.chars().count())
                .max();
            if self.drop_empty && widest.unwrap_or(0) == 0 {
                return None;
            }
            if self.widen {
                spec.width = spec.width.max(widest.unwrap_or(0));
                spec.precision = spec.precision.map(|precision| precision.max(spec.width));
            }
        }
        Some((self, spec))
    }

    fn show<T: Fields<Field = F>>(&self, fields: &T, row: &T::Row, spec: &Spec) -> String {
        let value = fields.value(&self.field, row);
        let numeric = matches!(value, Cell::Int(_) | Cell::Float(_)) && self.conversion.is_none();
        let text = match self.conversion {
            None => match (&value, spec.kind) {
                (Cell::Float(number), Some('f')) => format!("{number:.*}", spec.precision.unwrap_or(6)),
                (Cell::Float(number), Some('g')) => {
                    flux_formats::number::format_g(*number, spec.precision.unwrap_or(6))
                }
                (Cell::Int(number), Some('x')) => format!("{number:x}"),
                (Cell::Float(number), None) if spec.precision.is_some() => {
                    flux_formats::number::format_g(*number, spec.precision.unwrap_or(6))
                }
                _ => value.plain(),
            },
            Some(conversion) => convert(conversion, &value, self.strftime.as_deref()),
        };
        let text = if self.dash && is_nothing(&text) {
            "-".to_owned()
        } else {
            text
        };
        let text = if numeric { text } else { spec.cut(&text) };
        spec.pad(&text, numeric)
    }
}

/// Returns true for what the suffix `h` replaces.
fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "0" | "0s" | "0.0" | "0:00:00" | "1970-01-01T00:00:00")
}

fn convert(conversion: char, value: &Cell, format: Option<&str>) -> String {
    let Some(number) = value.number() else {
        return value.plain();
    };
    match conversion {
        'D' if number > 0.0 => strftime(number, "%FT%T"),
        'd' if number > 0.0 => strftime(number, format.filter(|f| !f.is_empty()).unwrap_or("%FT%T")),
        'D' | 'd' => String::new(),
        'F' => short_fsd(number),
        'H' => clock(number),
        _ => {
            let percent = number * 100.0;
            if percent > 0.0 && percent < 1.0 {
                format!("{percent:.2}%")
            } else {
                format!("{}%", flux_formats::number::format_g(percent, 3))
            }
        }
    }
}

/// Formats a duration as the original's tables do: four digits, at least three decimals below ten seconds.
pub(crate) fn short_fsd(secs: f64) -> String {
    let g = |value: f64| flux_formats::number::format_g(value, 4);
    if secs.is_infinite() {
        "inf".to_owned()
    } else if secs < 1e-3 {
        "0s".to_owned()
    } else if secs < 10.0 {
        format!("{secs:.3}s")
    } else if secs < 60.0 {
        format!("{}s", g(secs))
    } else if secs < 3600.0 {
        format!("{}m", g(secs / 60.0))
    } else if secs < 86_400.0 {
        format!("{}h", g(secs / 3600.0))
    } else {
        format!("{}d", g(secs / 86_400.0))
    }
}

/// Formats a duration as `[D day[s], ]H:MM:SS`, rounded to seconds.
fn clock(secs: f64) -> String {
    let total = super::time::whole_secs(secs.round());
    let days = match total / 86_400 {
        0 => String::new(),
        1 => "1 day, ".to_owned(),
        days => format!("{days} days, "),
    };
    format!(
        "{days}{}:{:02}:{:02}",
        total / 3600 % 24,
        total / 60 % 60,
        total % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Test;

    impl Fields for Test {
        type Field = usize;
        type Row = Vec<Cell>;

        fn resolve(&self, name: &str) -> Option<(usize, String)> {
            let at = ["name", "queue", "user", "n", "time", "color_x"]
                .iter()
                .position(|known| *known == name)?;
            let heading = if name.starts_with("color") {
                String::new()
            } else {
                name.to_uppercase()
            };
            Some((at, heading))
        }

        fn value(&self, field: &usize, row: &Vec<Cell>) -> Cell {
            row.get(*field).cloned().unwrap_or(Cell::None)
        }
    }

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec![
                "nosuchcommand".into(),
                "".into(),
                "root".into(),
                Cell::Int(4),
                Cell::Float(0.0),
            ],
            vec![
                "true".into(),
                "".into(),
                "a-long-user".into(),
                Cell::Int(10),
                Cell::Float(75.5),
            ],
        ]
    }

    fn show(format: &str, no_header: bool, colored: bool) -> String {
        let mut out = Vec::new();
        Format::parse(format, &Test)
            .unwrap()
            .print(&Test, &mut rows(), no_header, colored, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables() {
        assert_eq!(
            show(
                "{name:<10.10+} ?:{queue:<8.8} +:{user:<8} {n:>6} {time!F:>8h}",
                false,
                false
            ),
            "NAME       USER             N     TIME\n\
             nosuchcom+ root             4        -\n\
             true       a-long-user     10   1.258m\n"
        );
        assert_eq!(
            show("{name:.3}|{n:03}|{{x}}", true, false),
            "nos|004|{x}\ntru|010|{x}\n"
        );
        assert_eq!(show("sort:-n {n}", true, false), "10\n4\n");
        assert_eq!(show("{n} {color_x}{n:>2}", false, false), "N N\n4 4\n1010\n");
        assert_eq!(show("{n} {color_x}{n:>2}", false, true), "N  N\n4  4\n10 10\n");
        assert_eq!(
            show("{time!H:^9}|{time:.1f}", true, false),
            " 0:00:00 |0.0\n 0:01:16 |75.5\n"
        );
    }

    #[test]
    fn errors() {
        for bad in [
            "{nope}",
            "{name",
            "a}",
            "{name!z}",
            "{name:<<<}",
            "sort:zz {n}",
            "{n:.}",
        ] {
            assert!(Format::parse(bad, &Test).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_and_dates() {
        for (secs, want) in [
            (0.0, "0s"),
            (0.022_38, "0.022s"),
            (21.97, "21.97s"),
            (90.0, "1.5m"),
            (5400.0, "1.5h"),
            (172_800.0, "2d"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short_fsd(secs), want);
        }
        assert_eq!(clock(90_061.4), "1 day, 1:01:01");
        assert_eq!(convert('D', &Cell::Float(0.0), None), "");
        assert_eq!(convert('d', &Cell::Float(1e9), Some("%Y")), "2001");
        assert_eq!(convert('P', &Cell::Float(0.5), None), "50%");
        assert_eq!(convert('F', &"x".into(), None), "x");
        assert_eq!(python_float(4.0), "4.0");
    }
}
