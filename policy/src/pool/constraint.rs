//! Which nodes does an RFC 31 constraint allow?

use std::str::FromStr;

use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use serde_json::Value;

use super::bits::Bits;
use super::inventory::Inventory;

/// Deepest nesting of operators that is read.
const DEPTH_MAX: usize = 64;

/// Why a constraint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// A constraint is not a JSON object.
    #[error("constraint must be an object")]
    NotObject,
    /// An operator is none of properties, hostlist, ranks, and, or, not.
    #[error("unknown constraint operator '{0}'")]
    UnknownOperator(String),
    /// An operator's values are not an array.
    #[error("values of constraint operator '{0}' must be an array")]
    NotArray(&'static str),
    /// A value of properties, hostlist or ranks is not a string.
    #[error("values of constraint operator '{0}' must be strings")]
    NotString(&'static str),
    /// A hostlist or idset cannot be read.
    #[error("bad value '{value}' of constraint operator '{operator}'")]
    BadValue {
        /// Operator.
        operator: &'static str,
        /// The value as given.
        value: String,
    },
    /// Operators are nested too deeply.
    #[error("constraint is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
}

/// A constraint on the nodes of an allocation (RFC 31), parsed and with its text as identity.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// Compact JSON, the key under which the pool remembers the nodes.
    text: String,
    node: Node,
}

/// One operator; several keys in one object are all required.
#[derive(Clone, Debug)]
enum Node {
    Property { name: String, wanted: bool },
    Hosts(Vec<String>),
    Ranks(IdSet),
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
}

impl Constraint {
    /// Parses a constraint object. Empty `and` and `or` allow every node, an empty `not` allows none (RFC 31).
    ///
    /// # Errors
    /// When the object is not a constraint of RFC 31.
    pub fn from_json(value: &Value) -> Result<Constraint, ConstraintError> {
        Ok(Constraint {
            text: value.to_string(),
            node: parse(value, 0)?,
        })
    }

    /// Returns the compact JSON text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the positions of the nodes that the constraint allows.
    pub(super) fn select(&self, inventory: &Inventory) -> Bits {
        select(&self.node, inventory)
    }
}

fn parse(value: &Value, depth: usize) -> Result<Node, ConstraintError> {
    if depth > DEPTH_MAX {
        return Err(ConstraintError::TooDeep);
    }
    let object = value.as_object().ok_or(ConstraintError::NotObject)?;
    let mut all = Vec::with_capacity(object.len());
    for (operator, values) in object {
        all.push(match operator.as_str() {
            "properties" => Node::All(strings("properties", values)?.into_iter().map(property).collect()),
            "hostlist" => Node::Hosts(parse_hosts(strings("hostlist", values)?)?),
            "ranks" => Node::Ranks(parse_ranks(strings("ranks", values)?)?),
            "and" => Node::All(operands("and", values, depth)?),
            "or" => any(operands("or", values, depth)?),
            "not" => Node::Not(Box::new(Node::All(operands("not", values, depth)?))),
            other => return Err(ConstraintError::UnknownOperator(other.to_owned())),
        });
    }
    Ok(if all.len() == 1 {
        all.pop().unwrap_or(Node::All(Vec::new()))
    } else {
        Node::All(all)
    })
}

/// Returns the disjunction; of nothing it is true.
fn any(operands: Vec<Node>) -> Node {
    if operands.is_empty() {
        Node::All(operands)
    } else {
        Node::Any(operands)
    }
}

fn property(name: &str) -> Node {
    match name.strip_prefix('^') {
        Some(unwanted) => Node::Property {
            name: unwanted.to_owned(),
            wanted: false,
        },
        None => Node::Property {
            name: name.to_owned(),
            wanted: true,
        },
    }
}

fn operands(operator: &'static str, values: &Value, depth: usize) -> Result<Vec<Node>, ConstraintError> {
    let values = values.as_array().ok_or(ConstraintError::NotArray(operator))?;
    values.iter().map(|value| parse(value, depth + 1)).collect()
}

fn strings<'a>(operator: &'static str, values: &'a Value) -> Result<Vec<&'a str>, ConstraintError> {
    let values = values.as_array().ok_or(ConstraintError::NotArray(operator))?;
    values
        .iter()
        .map(|value| value.as_str().ok_or(ConstraintError::NotString(operator)))
        .collect()
}

fn parse_hosts(texts: Vec<&str>) -> Result<Vec<String>, ConstraintError> {
    let mut hosts = Vec::new();
    for text in texts {
        let bad = || ConstraintError::BadValue {
            operator: "hostlist",
            value: text.to_owned(),
        };
        let list = Hostlist::from_str(text).map_err(|_| bad())?;
        hosts.extend(list.expand().map_err(|_| bad())?);
    }
    Ok(hosts)
}

fn parse_ranks(texts: Vec<&str>) -> Result<IdSet, ConstraintError> {
    let mut ranks = IdSet::new();
    for text in texts {
        let more = IdSet::from_str(text).map_err(|_| ConstraintError::BadValue {
            operator: "ranks",
            value: text.to_owned(),
        })?;
        ranks = ranks.union(&more);
    }
    Ok(ranks)
}

fn select(node: &Node, inventory: &Inventory) -> Bits {
    match node {
        Node::Property { name, wanted } => {
            let with = inventory.with_property(name);
            if *wanted {
                return with.cloned().unwrap_or_default();
            }
            let mut without = Bits::first_n(inventory.len());
            if let Some(with) = with {
                without.subtract(with);
            }
            without
        }
        Node::Hosts(hosts) => hosts.iter().flat_map(|host| inventory.on_host(host)).collect(),
        Node::Ranks(ranks) => inventory.positions(ranks).collect(),
        Node::All(nodes) => {
            let mut all = Bits::first_n(inventory.len());
            for node in nodes {
                all.intersect(&select(node, inventory));
            }
            all
        }
        Node::Any(nodes) => {
            let mut any = Bits::default();
            for node in nodes {
                any.unite(&select(node, inventory));
            }
            any
        }
        Node::Not(node) => {
            let mut rest = Bits::first_n(inventory.len());
            rest.subtract(&select(node, inventory));
            rest
        }
    }
}
