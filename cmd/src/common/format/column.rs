//! How is one field of a format read and shown?

use super::cell::{Cell, convert, is_nothing};
use super::spec::Spec;
use super::table::Fields;
use crate::common::error::{CmdError, usage};

/// A field of a format with the text before it.
#[derive(Debug)]
pub(super) struct Column<F> {
    /// Text before the field.
    pub(super) text: String,
    pub(super) field: F,
    pub(super) heading: String,
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

impl<F> Column<F> {
    pub(super) fn parse<T: Fields<Field = F>>(
        mut text: String,
        inner: &str,
        fields: &T,
    ) -> Result<Self, CmdError> {
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
    pub(super) fn adapt<T: Fields<Field = F>>(
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

    pub(super) fn show<T: Fields<Field = F>>(&self, fields: &T, row: &T::Row, spec: &Spec) -> String {
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
