//! What is the value of a field, and how do conversions show it?

use crate::common::time::strftime;

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
    pub(super) fn number(&self) -> Option<f64> {
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

    pub(super) fn order(&self, other: &Cell) -> std::cmp::Ordering {
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
pub(super) fn python_float(number: f64) -> String {
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

/// Returns true for what the suffix `h` replaces.
pub(super) fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "0" | "0s" | "0.0" | "0:00:00" | "1970-01-01T00:00:00")
}

pub(super) fn convert(conversion: char, value: &Cell, format: Option<&str>) -> String {
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
pub(super) fn clock(secs: f64) -> String {
    let total = crate::common::time::whole_secs(secs.round());
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
