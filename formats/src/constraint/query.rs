//! How does text such as `a|host:n[1-3] -b` become a constraint object? (RFC 35.)
//!
//! Precedence from low to high: or, and (also by mere white space), not.

use serde_json::{Map, Value, json};

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 64;

/// Why a text is not a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Something does not belong at this place.
    #[error("syntax error at offset {offset}: unexpected {found}")]
    Syntax {
        /// Byte offset.
        offset: usize,
        /// What stands there.
        found: String,
    },
    /// A quote does not close.
    #[error("unclosed quote at offset {0}")]
    Quote(usize),
    /// A term has no operator and there is no default.
    #[error("missing operator in term {0:?}")]
    NoOperator(String),
    /// Parentheses or negations nest too deeply.
    #[error("query is nested too deeply")]
    Depth,
}

/// What operators mean in one kind of query.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// Operator of terms without one.
    pub default_operator: Option<&'a str>,
    /// Other names of operators.
    pub aliases: &'a [(&'a str, &'a str)],
    /// Operators whose terms are joined when they stand side by side under `and`: `a b` is `{"properties":["a","b"]}`.
    pub combined: &'a [&'a str],
    /// Operators whose operand is split at commas into several values.
    pub split: &'a [&'a str],
}

/// The rules of `--requires`.
pub const REQUIRES: Rules<'static> = Rules {
    default_operator: Some("properties"),
    aliases: &[
        ("host", "hostlist"),
        ("hosts", "hostlist"),
        ("rank", "ranks"),
        ("property", "properties"),
    ],
    combined: &["properties"],
    split: &[],
};

/// Translates a query to a constraint object; white space only gives `{}`.
///
/// # Errors
/// Any [`QueryError`].
pub fn parse(text: &str, rules: &Rules<'_>) -> Result<Value, QueryError> {
    let tokens = lex(text)?;
    if tokens.is_empty() {
        return Ok(json!({}));
    }
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        end: text.len(),
        rules,
        depth: 0,
    };
    let value = parser.or()?;
    match parser.tokens.next() {
        None => Ok(value),
        Some((offset, token)) => Err(unexpected(offset, &token)),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Minus,
    /// Operator, if any, and operand.
    Term(Option<String>, String),
}

fn unexpected(offset: usize, token: &Token) -> QueryError {
    let found = match token {
        Token::Open => "'('".to_owned(),
        Token::Close => "')'".to_owned(),
        Token::And => "and".to_owned(),
        Token::Or => "or".to_owned(),
        Token::Not => "not".to_owned(),
        Token::Minus => "'-'".to_owned(),
        Token::Term(_, operand) => format!("{operand:?}"),
    };
    QueryError::Syntax { offset, found }
}

fn lex(text: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let offset = text.len() - rest.len();
        let mut chars = rest.chars();
        let Some(first) = chars.next() else {
            return Ok(tokens);
        };
        let token = match first {
            '(' => Token::Open,
            ')' => Token::Close,
            '&' => Token::And,
            '|' => Token::Or,
            '-' => Token::Minus,
            _ => {
                let (token, size) = lex_word(rest, offset)?;
                tokens.push((offset, token));
                rest = rest.get(size..).unwrap_or("");
                continue;
            }
        };
        rest = chars.as_str();
        if matches!(first, '&' | '|') {
            rest = rest.strip_prefix(first).unwrap_or(rest);
        }
        tokens.push((offset, token));
    }
}

/// Reads a keyword or term; returns its size in bytes too.
fn lex_word(text: &str, offset: usize) -> Result<(Token, usize), QueryError> {
    let (mut operator, mut word) = (None, String::new());
    let (mut quote, mut quoted) = (None, false);
    let mut size = text.len();
    for (at, c) in text.char_indices() {
        match quote {
            Some((open, _)) if c == open => quote = None,
            Some(_) => word.push(c),
            None if c == '\'' || c == '"' => {
                (quote, quoted) = (Some((c, offset + at)), true);
            }
            None if c.is_whitespace() || matches!(c, '(' | ')' | '&' | '|') => {
                size = at;
                break;
            }
            None if c == ':' && operator.is_none() && !quoted => operator = Some(std::mem::take(&mut word)),
            None => word.push(c),
        }
    }
    if let Some((_, at)) = quote {
        return Err(QueryError::Quote(at));
    }
    let token = match (operator, quoted, word.as_str()) {
        (None, false, "and") => Token::And,
        (None, false, "or") => Token::Or,
        (None, false, "not") => Token::Not,
        (operator, _, _) => Token::Term(operator, word),
    };
    Ok((token, size))
}

struct Parser<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<(usize, Token)>>,
    end: usize,
    rules: &'a Rules<'a>,
    depth: usize,
}

impl Parser<'_> {
    fn next_is(&mut self, token: &Token) -> bool {
        self.tokens.next_if(|(_, next)| next == token).is_some()
    }

    fn or(&mut self) -> Result<Value, QueryError> {
        let mut terms = vec![self.and()?];
        while self.next_is(&Token::Or) {
            terms.push(self.and()?);
        }
        Ok(join("or", terms, &[]))
    }

    fn and(&mut self) -> Result<Value, QueryError> {
        let mut terms = vec![self.unary()?];
        loop {
            let explicit = self.next_is(&Token::And);
            let starts = matches!(
                self.tokens.peek(),
                Some((_, Token::Open | Token::Not | Token::Minus | Token::Term(..)))
            );
            if !explicit && !starts {
                return Ok(join("and", terms, self.rules.combined));
            }
            terms.push(self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Value, QueryError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(QueryError::Depth);
        }
        let Some((offset, token)) = self.tokens.next() else {
            return Err(QueryError::Syntax {
                offset: self.end,
                found: "end of query".to_owned(),
            });
        };
        let value = match token {
            Token::Not => json!({"not": [self.unary()?]}),
            Token::Minus => match self.tokens.next() {
                Some((_, Token::Term(operator, operand))) => json!({"not": [self.term(operator, &operand)?]}),
                Some((offset, token)) => return Err(unexpected(offset, &token)),
                None => return Err(unexpected(offset, &Token::Minus)),
            },
            Token::Open => {
                let value = self.or()?;
                match self.tokens.next() {
                    Some((_, Token::Close)) => value,
                    Some((offset, token)) => return Err(unexpected(offset, &token)),
                    None => return Err(unexpected(offset, &Token::Open)),
                }
            }
            Token::Term(operator, operand) => self.term(operator, &operand)?,
            token => return Err(unexpected(offset, &token)),
        };
        self.depth -= 1;
        Ok(value)
    }

    fn term(&self, operator: Option<String>, operand: &str) -> Result<Value, QueryError> {
        let rules = self.rules;
        let given = match (&operator, rules.default_operator) {
            (Some(operator), _) if !operator.is_empty() => operator.as_str(),
            (None, Some(default)) => default,
            _ => return Err(QueryError::NoOperator(operand.to_owned())),
        };
        let name = rules
            .aliases
            .iter()
            .find(|(alias, _)| *alias == given)
            .map_or(given, |(_, name)| name);
        let values: Vec<Value> = if rules.split.contains(&name) {
            operand.split(',').map(Value::from).collect()
        } else {
            vec![operand.into()]
        };
        Ok(Value::Object(Map::from_iter([(
            name.to_owned(),
            Value::Array(values),
        )])))
    }
}

/// Joins terms under `operator`, flattening terms of the same operator and combining neighbours of `combined`.
fn join(operator: &str, terms: Vec<Value>, combined: &[&str]) -> Value {
    if terms.len() == 1 {
        return terms.into_iter().next().unwrap_or_default();
    }
    let mut joined: Vec<Value> = Vec::with_capacity(terms.len());
    for mut term in terms {
        if let Some(Value::Array(inner)) = term.get_mut(operator) {
            for inner in std::mem::take(inner) {
                push(&mut joined, inner, combined);
            }
        } else {
            push(&mut joined, term, combined);
        }
    }
    if joined.len() == 1 {
        return joined.pop().unwrap_or_default();
    }
    Value::Object(Map::from_iter([(operator.to_owned(), Value::Array(joined))]))
}

/// Appends a term, into an earlier one when both are of an operator that combines.
fn push(joined: &mut Vec<Value>, mut term: Value, combined: &[&str]) {
    for name in combined {
        let Some(Value::Array(values)) = term.get_mut(*name) else {
            continue;
        };
        let earlier = joined
            .iter_mut()
            .find_map(|earlier| earlier.get_mut(*name)?.as_array_mut());
        if let Some(earlier) = earlier {
            earlier.append(values);
            return;
        }
    }
    joined.push(term);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: Rules<'static> = Rules {
        default_operator: Some("name"),
        aliases: &[],
        combined: &[],
        split: &["states"],
    };

    #[test]
    fn rfc_examples() {
        let name = |name: &str| json!({"name": [name]});
        for (text, want) in [
            ("foo", name("foo")),
            ("foo bar", json!({"and": [name("foo"), name("bar")]})),
            (
                "foo bar state:started",
                json!({"and": [name("foo"), name("bar"), {"state": ["started"]}]}),
            ),
            ("a|b|c", json!({"or": [name("a"), name("b"), name("c")]})),
            (
                "a|b&c",
                json!({"or": [name("a"), {"and": [name("b"), name("c")]}]}),
            ),
            (
                "(a|b)&c",
                json!({"and": [{"or": [name("a"), name("b")]}, name("c")]}),
            ),
            (
                "(a|-b)&c",
                json!({"and": [{"or": [name("a"), {"not": [name("b")]}]}, name("c")]}),
            ),
            (
                "a || b and not c",
                json!({"or": [name("a"), {"and": [name("b"), {"not": [name("c")]}]}]}),
            ),
            ("a && (b c)", json!({"and": [name("a"), name("b"), name("c")]})),
            ("foo:'this is args'", json!({"foo": ["this is args"]})),
            ("'and' \"or\"", json!({"and": [name("and"), name("or")]})),
            ("a-b", name("a-b")),
            ("states:a,b", json!({"states": ["a", "b"]})),
            ("a:b:c", json!({"a": ["b:c"]})),
            ("android", name("android")),
            ("  ", json!({})),
        ] {
            assert_eq!(parse(text, &NAME).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn requires_rules() {
        assert_eq!(
            parse("a&^b | (host:node[1-3] rank:0)", &REQUIRES).unwrap(),
            json!({"or": [{"properties": ["a", "^b"]}, {"and": [{"hostlist": ["node[1-3]"]}, {"ranks": ["0"]}]}]})
        );
        assert_eq!(
            parse("a host:x b", &REQUIRES).unwrap(),
            json!({"and": [{"properties": ["a", "b"]}, {"hostlist": ["x"]}]})
        );
        assert_eq!(
            parse("-a", &REQUIRES).unwrap(),
            json!({"not": [{"properties": ["a"]}]})
        );
    }

    #[test]
    fn refused() {
        let deep = "(".repeat(100_000);
        let nots = "not ".repeat(100_000);
        for bad in [
            "(", ")", "a &", "| a", "-(a|b)", "a)", "'a", "foo:\"x", "-", "not", "()", "a & & b", ":x",
            &deep, &nots,
        ] {
            assert!(parse(bad, &NAME).is_err(), "{}", bad.get(..10).unwrap_or(bad));
        }
        let none = Rules::default();
        assert_eq!(parse("a", &none), Err(QueryError::NoOperator("a".into())));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ab:&|()' -]{0,24}") {
            if let Ok(value) = parse(&text, &REQUIRES) {
                prop_assert!(value.is_object());
            }
        }
    }
}
