//! Which rows of the database can match a constraint? A constraint as an SQL condition.
//!
//! Hosts and ranks are texts in the database, and a constraint may be larger than SQLite likes; such parts are left
//! out so that the condition selects too many rows, never too few, and [`Condition::exact`] says so: then the rows
//! are looked at again with [`Constraint::matches`].

use super::constraint::{Comparison, Constraint, Time};
use flux_formats::jobstate::JobState;
use rusqlite::types::Value;

/// Most values in one condition; SQLite takes 32766.
const VALUES_MAX: usize = 1024;
/// Most terms in one condition: SQLite's expressions may be 1000 deep, and each costs something for each row.
const TERMS_MAX: usize = 256;

/// A condition on the columns of table `jobs`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    /// The text, with a `?` for each value.
    pub(super) text: String,
    pub(super) values: Vec<Value>,
    /// Every row that it selects matches.
    pub(super) exact: bool,
}

/// What a part of a constraint selects.
#[derive(Clone, Debug)]
enum Term {
    All,
    None,
    /// Rows for which the text holds. Texts are never NULL, so that NOT means what it says.
    Some(String, Vec<Value>),
}

/// A part, bounded on both sides: every row in `least` matches, every row that matches is in `most`.
struct Bounds {
    least: Term,
    most: Term,
}

impl Bounds {
    fn exactly(term: Term) -> Self {
        Bounds {
            least: term.clone(),
            most: term,
        }
    }

    /// Nothing is known.
    fn open() -> Self {
        Bounds {
            least: Term::None,
            most: Term::All,
        }
    }
}

/// Returns the condition for inactive jobs.
pub(super) fn condition(constraint: &Constraint) -> Condition {
    let mut budget = TERMS_MAX;
    let Bounds { least, most } = bounds(constraint, &mut budget);
    let exact = match (&least, &most) {
        (Term::All, Term::All) | (Term::None, Term::None) => true,
        (Term::Some(a, x), Term::Some(b, y)) => a == b && x == y,
        _ => false,
    };
    let (text, values) = match most {
        Term::All => ("1".to_owned(), Vec::new()),
        Term::None => ("0".to_owned(), Vec::new()),
        Term::Some(text, values) => (text, values),
    };
    if values.len() > VALUES_MAX {
        return Condition {
            text: "1".to_owned(),
            values: Vec::new(),
            exact: false,
        };
    }
    Condition { text, values, exact }
}

fn bounds(constraint: &Constraint, budget: &mut usize) -> Bounds {
    if *budget == 0 {
        return Bounds::open();
    }
    *budget -= 1;
    let always = |truth: bool| Bounds::exactly(if truth { Term::All } else { Term::None });
    match constraint {
        Constraint::And(all) => join(all, Junction::And, budget),
        Constraint::Or(any) if any.is_empty() => always(true),
        Constraint::Or(any) => join(any, Junction::Or, budget),
        Constraint::Not(all) => {
            let Bounds { least, most } = join(all, Junction::And, budget);
            Bounds {
                least: negate(most),
                most: negate(least),
            }
        }
        Constraint::Userid(ids) => among("userid", ids.iter().map(|id| Value::from(*id))),
        Constraint::Name(names) => among("name", names.iter().map(|name| Value::from(name.clone()))),
        Constraint::Queue(names) => {
            match among("queue", names.iter().map(|name| Value::from(name.clone()))).most {
                Term::Some(text, values) => {
                    Bounds::exactly(Term::Some(format!("(queue IS NOT NULL AND {text})"), values))
                }
                other => Bounds::exactly(other),
            }
        }
        Constraint::States(mask) => always(JobState::Inactive.in_mask(*mask)),
        Constraint::Results(mask) => Bounds::exactly(Term::Some(
            "(result & ?) <> 0".to_owned(),
            vec![Value::from(*mask)],
        )),
        Constraint::Hosts(_) | Constraint::Ranks(_) => Bounds {
            least: Term::None,
            most: Term::Some("ranks IS NOT NULL".to_owned(), Vec::new()),
        },
        Constraint::Time(which, comparison, wanted) => {
            let column = match which {
                Time::Submit => "t_submit",
                Time::Depend => "t_depend",
                Time::Run => "t_run",
                Time::Cleanup => "t_cleanup",
                Time::Inactive => "t_inactive",
            };
            let operator = match comparison {
                Comparison::Less => "<",
                Comparison::LessEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterEqual => ">=",
            };
            let text = format!("({column} > 0 AND {column} {operator} ?)");
            Bounds::exactly(Term::Some(text, vec![Value::from(*wanted)]))
        }
    }
}

fn among(column: &str, values: impl Iterator<Item = Value>) -> Bounds {
    let values: Vec<Value> = values.collect();
    if values.is_empty() {
        return Bounds::exactly(Term::None);
    }
    if values.len() > VALUES_MAX {
        return Bounds::open();
    }
    let marks = vec!["?"; values.len()].join(",");
    Bounds::exactly(Term::Some(format!("{column} IN ({marks})"), values))
}

fn negate(term: Term) -> Term {
    match term {
        Term::All => Term::None,
        Term::None => Term::All,
        Term::Some(text, values) => Term::Some(format!("NOT ({text})"), values),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Junction {
    And,
    Or,
}

fn join(parts: &[Constraint], junction: Junction, budget: &mut usize) -> Bounds {
    let (least, most) = parts
        .iter()
        .map(|part| bounds(part, budget))
        .map(|part| (part.least, part.most))
        .unzip();
    Bounds {
        least: combine(least, junction),
        most: combine(most, junction),
    }
}

fn combine(terms: Vec<Term>, junction: Junction) -> Term {
    let mut kept = Vec::with_capacity(terms.len());
    for term in terms {
        match (term, junction) {
            (Term::All, Junction::And) | (Term::None, Junction::Or) => {}
            (Term::None, Junction::And) => return Term::None,
            (Term::All, Junction::Or) => return Term::All,
            (Term::Some(text, values), _) => kept.push((text, values)),
        }
    }
    let (empty, word) = match junction {
        Junction::And => (Term::All, " AND "),
        Junction::Or => (Term::None, " OR "),
    };
    if kept.is_empty() {
        return empty;
    }
    let (texts, values): (Vec<String>, Vec<Vec<Value>>) = kept.into_iter().unzip();
    Term::Some(format!("({})", texts.join(word)), values.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(constraint: serde_json::Value) -> (String, usize, bool) {
        let Condition { text, values, exact } = condition(&Constraint::parse(&constraint).unwrap());
        (text, values.len(), exact)
    }

    #[test]
    fn texts() {
        for (constraint, text, values, exact) in [
            (json!({}), "1", 0, true),
            (json!({"states": ["running"]}), "0", 0, true),
            (
                json!({"and": [{"userid": [7]}, {"states": [127]}]}),
                "(userid IN (?))",
                1,
                true,
            ),
            (
                json!({"not": [{"userid": [7, 8]}]}),
                "NOT ((userid IN (?,?)))",
                2,
                true,
            ),
            (
                json!({"or": [{"ranks": ["0"]}, {"states": ["pending"]}]}),
                "(ranks IS NOT NULL)",
                0,
                false,
            ),
            (json!({"not": [{"ranks": ["0"]}]}), "1", 0, false),
            (json!({"userid": []}), "0", 0, true),
            (json!({"t_run": ["<5"]}), "(t_run > 0 AND t_run < ?)", 1, true),
        ] {
            assert_eq!(
                of(constraint.clone()),
                (text.to_owned(), values, exact),
                "{constraint}"
            );
        }
    }

    #[test]
    fn large_constraints_are_cut() {
        let wide = json!({"or": vec![json!({"userid": [1]}); 2000]});
        let (_, values, exact) = of(wide);
        assert!(values <= TERMS_MAX && !exact);
        let names: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
        assert_eq!(of(json!({"name": names})), ("1".to_owned(), 0, false));
        let half: Vec<u32> = (0..600).collect();
        let both = json!({"or": [{"userid": half}, {"userid": half}]});
        assert_eq!(of(both), ("1".to_owned(), 0, false));
    }
}
