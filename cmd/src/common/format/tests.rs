//! Tests of formats.

use super::cell::{clock, convert, python_float};
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
