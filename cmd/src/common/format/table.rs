//! How is a format string read, and how are rows laid out by it?

use std::io::Write;

use super::cell::Cell;
use super::column::Column;
use super::spec::{Spec, spec_without_mark};
use crate::common::error::{CmdError, usage};

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
