//! Which nodes does a constraint allow? (RFC 31; the text syntax of RFC 35 is in [`query`].)

pub mod query;

use serde_json::{Value, json};

use crate::hostlist::{Hostlist, HostlistError};
use crate::idset::{IdSet, IdSetError};
use crate::resource_set::valid_property;

/// Why JSON is not a constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Not an object with at most one operator.
    #[error("constraint must be an object with one operator")]
    Shape,
    /// An operator that RFC 31 does not have.
    #[error("unknown constraint operator: {0}")]
    Operator(String),
    /// The values are not an array.
    #[error("{0} operator value must be an array")]
    NotArray(String),
    /// A value is not a string.
    #[error("non-string {0} value specified")]
    NotString(&'static str),
    /// A property name holds a forbidden character or is empty.
    #[error("invalid character in property {0:?}")]
    Property(String),
    /// A hostlist does not parse.
    #[error("invalid hostlist {text:?}")]
    Hostlist {
        /// The value.
        text: String,
        /// Why.
        source: HostlistError,
    },
    /// An idset of ranks does not parse.
    #[error("invalid ranks {text:?}")]
    Ranks {
        /// The value.
        text: String,
        /// Why.
        source: IdSetError,
    },
    /// Constraints nest deeper than [`DEPTH_MAX`].
    #[error("constraint is nested too deeply")]
    Depth,
}

/// Deepest nesting of `and`, `or`, `not`.
pub const DEPTH_MAX: usize = 64;

/// What a node tells about itself to a constraint.
pub trait Target {
    /// Returns the node's rank.
    fn rank(&self) -> u32;
    /// Returns the node's host name.
    fn hostname(&self) -> &str;
    /// Returns true when the node has the property.
    fn has_property(&self, name: &str) -> bool;
}

/// A parsed constraint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Constraint {
    /// Allows everything (`{}`).
    #[default]
    Any,
    /// All properties hold.
    Properties(Vec<Property>),
    /// The host is in the list.
    Hostlist(Hostlist),
    /// The rank is in the set.
    Ranks(IdSet),
    /// All hold; none allows everything.
    And(Vec<Constraint>),
    /// One holds; none allows everything.
    Or(Vec<Constraint>),
    /// Not all hold; none allows nothing.
    Not(Vec<Constraint>),
}

/// One required or, with `^`, forbidden property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Name without `^`.
    pub name: String,
    /// The property must be absent.
    pub absent: bool,
}

impl Constraint {
    /// Parses JSON.
    ///
    /// # Errors
    /// Any [`ConstraintError`].
    pub fn from_value(json: &Value) -> Result<Self, ConstraintError> {
        parse(json, DEPTH_MAX)
    }

    /// Returns true when the constraint allows the node.
    pub fn matches(&self, target: &impl Target) -> bool {
        match self {
            Constraint::Any => true,
            Constraint::Properties(all) => all.iter().all(|p| target.has_property(&p.name) != p.absent),
            Constraint::Hostlist(hosts) => hosts.contains(target.hostname()),
            Constraint::Ranks(ranks) => ranks.contains(target.rank()),
            Constraint::And(all) => all.iter().all(|constraint| constraint.matches(target)),
            Constraint::Or(any) => any.is_empty() || any.iter().any(|constraint| constraint.matches(target)),
            Constraint::Not(all) => !all.iter().all(|constraint| constraint.matches(target)),
        }
    }

    /// Returns JSON.
    pub fn to_value(&self) -> Value {
        let list = |all: &[Constraint]| all.iter().map(Constraint::to_value).collect::<Vec<_>>();
        match self {
            Constraint::Any => json!({}),
            Constraint::Properties(all) => {
                let names = all
                    .iter()
                    .map(|p| format!("{}{}", if p.absent { "^" } else { "" }, p.name));
                json!({"properties": names.collect::<Vec<_>>()})
            }
            Constraint::Hostlist(hosts) => json!({"hostlist": [hosts.to_string()]}),
            Constraint::Ranks(ranks) => json!({"ranks": [ranks.to_string()]}),
            Constraint::And(all) => json!({"and": list(all)}),
            Constraint::Or(any) => json!({"or": list(any)}),
            Constraint::Not(all) => json!({"not": list(all)}),
        }
    }

    /// Returns the names of all properties in the constraint.
    pub fn property_names(&self) -> Vec<&str> {
        match self {
            Constraint::Properties(all) => all.iter().map(|p| p.name.as_str()).collect(),
            Constraint::And(all) | Constraint::Or(all) | Constraint::Not(all) => {
                all.iter().flat_map(Constraint::property_names).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn parse(json: &Value, depth: usize) -> Result<Constraint, ConstraintError> {
    let object = json.as_object().ok_or(ConstraintError::Shape)?;
    let mut entries = object.iter();
    let (operator, values) = match (entries.next(), entries.next()) {
        (None, _) => return Ok(Constraint::Any),
        (Some(entry), None) => entry,
        _ => return Err(ConstraintError::Shape),
    };
    if !matches!(
        operator.as_str(),
        "properties" | "hostlist" | "ranks" | "and" | "or" | "not"
    ) {
        return Err(ConstraintError::Operator(operator.clone()));
    }
    let values = values
        .as_array()
        .ok_or_else(|| ConstraintError::NotArray(operator.clone()))?;
    let nested = || {
        let depth = depth.checked_sub(1).ok_or(ConstraintError::Depth)?;
        values
            .iter()
            .map(|value| parse(value, depth))
            .collect::<Result<Vec<_>, _>>()
    };
    match operator.as_str() {
        "properties" => strings(values, "property")
            .map(|name| {
                let name = name?;
                let bare = name.strip_prefix('^').unwrap_or(name);
                if !valid_property(bare) {
                    return Err(ConstraintError::Property(name.to_owned()));
                }
                Ok(Property {
                    name: bare.to_owned(),
                    absent: bare.len() < name.len(),
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Constraint::Properties),
        "hostlist" => {
            let mut hosts = Hostlist::new();
            for text in strings(values, "hostlist") {
                let text = text?;
                let bad = |source| ConstraintError::Hostlist {
                    text: text.to_owned(),
                    source,
                };
                hosts.append(text).map_err(bad)?;
            }
            Ok(Constraint::Hostlist(hosts))
        }
        "ranks" => {
            let mut ranges = Vec::new();
            for text in strings(values, "ranks") {
                let text = text?;
                let bad = |source| ConstraintError::Ranks {
                    text: text.to_owned(),
                    source,
                };
                ranges.extend(text.parse::<IdSet>().map_err(bad)?.ranges());
            }
            Ok(Constraint::Ranks(IdSet::from_ranges(ranges)))
        }
        "and" => nested().map(Constraint::And),
        "or" => nested().map(Constraint::Or),
        _ => nested().map(Constraint::Not),
    }
}

fn strings<'a>(
    values: &'a [Value],
    what: &'static str,
) -> impl Iterator<Item = Result<&'a str, ConstraintError>> {
    values
        .iter()
        .map(move |value| value.as_str().ok_or(ConstraintError::NotString(what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(u32, &'static str, &'static [&'static str]);

    impl Target for Node {
        fn rank(&self) -> u32 {
            self.0
        }
        fn hostname(&self) -> &str {
            self.1
        }
        fn has_property(&self, name: &str) -> bool {
            self.2.contains(&name)
        }
    }

    #[test]
    fn rfc_examples() {
        let node = Node(0, "host1", &["ssd", "foo"]);
        for (json, allowed) in [
            (json!({}), true),
            (json!({"or": []}), true),
            (json!({"and": []}), true),
            (json!({"not": []}), false),
            (json!({"properties": []}), true),
            (json!({"properties": ["ssd"]}), true),
            (json!({"properties": ["^slowgpu"]}), true),
            (json!({"properties": ["ssd", "^foo"]}), false),
            (json!({"not": [{"properties": ["slowgpu"]}]}), true),
            (json!({"not": [{"properties": ["foo", "bar"]}]}), true),
            (
                json!({"not": [{"properties": ["ssd"]}, {"properties": ["foo"]}]}),
                false,
            ),
            (
                json!({"or": [{"properties": ["huge"]}, {"properties": ["ssd"]}]}),
                true,
            ),
            (json!({"hostlist": ["host[0-1]"]}), true),
            (json!({"hostlist": ["host0", "host2"]}), false),
            (json!({"not": [{"hostlist": ["host[0-1]"]}]}), false),
            (
                json!({"and": [{"hostlist": ["host[0-1]"]}, {"properties": ["ssd"]}]}),
                true,
            ),
            (json!({"ranks": ["0"]}), true),
            (json!({"ranks": ["1-3", "5"]}), false),
        ] {
            let constraint = Constraint::from_value(&json).unwrap();
            assert_eq!(constraint.matches(&node), allowed, "{json}");
            assert_eq!(
                Constraint::from_value(&constraint.to_value()).unwrap(),
                constraint
            );
        }
    }

    #[test]
    fn refused() {
        let mut deep = json!({});
        for _ in 0..DEPTH_MAX + 2 {
            deep = json!({"and": [deep]});
        }
        for (json, text) in [
            (json!([]), "constraint must be an object with one operator"),
            (
                json!({"and": [], "or": []}),
                "constraint must be an object with one operator",
            ),
            (json!({"foo": []}), "unknown constraint operator: foo"),
            (json!({"and": 1}), "and operator value must be an array"),
            (json!({"properties": [1]}), "non-string property value specified"),
            (
                json!({"properties": ["a|b"]}),
                "invalid character in property \"a|b\"",
            ),
            (
                json!({"properties": ["^"]}),
                "invalid character in property \"^\"",
            ),
            (json!({"hostlist": ["a["]}), "invalid hostlist \"a[\""),
            (json!({"ranks": ["x"]}), "invalid ranks \"x\""),
            (
                json!({"not": [1]}),
                "constraint must be an object with one operator",
            ),
            (deep, "constraint is nested too deeply"),
        ] {
            assert_eq!(Constraint::from_value(&json).unwrap_err().to_string(), text);
        }
        let json = json!({"and": [{"properties": ["a", "^b"]}, {"not": [{"properties": ["c"]}]}]});
        assert_eq!(
            Constraint::from_value(&json).unwrap().property_names(),
            ["a", "b", "c"]
        );
    }
}
