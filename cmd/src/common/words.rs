//! How does a line fall into words, as a shell sees it?

/// Splits text into words as a shell does: quotes, backslash, comments; `"""` and `'''` quote verbatim.
///
/// # Errors
/// What is not closed.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or("");
        match c {
            ' ' | '\t' => {
                words.extend(word.take());
                rest = after;
            }
            '#' if word.is_none() => break,
            '\\' => {
                let Some(escaped) = after.chars().next() else {
                    return Err("nothing follows the backslash at the end".to_owned());
                };
                word.get_or_insert_default().push(escaped);
                rest = after.get(escaped.len_utf8()..).unwrap_or("");
            }
            '"' | '\'' => {
                let triple = String::from(c).repeat(3);
                let (quoted, tail) = match rest
                    .strip_prefix(&triple)
                    .map(|inner| (inner, inner.find(&triple)))
                {
                    Some((inner, Some(end))) => {
                        let (quoted, tail) = inner.split_at_checked(end).unwrap_or((inner, ""));
                        (quoted.to_owned(), tail.get(3..).unwrap_or(""))
                    }
                    _ => quoted(after, c)?,
                };
                word.get_or_insert_default().push_str(&quoted);
                rest = tail;
            }
            other => {
                word.get_or_insert_default().push(other);
                rest = after;
            }
        }
    }
    words.extend(word);
    Ok(words)
}

/// Reads up to the closing quote; a backslash before it or before another backslash quotes that.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((out, text.get(at + 1..).unwrap_or("")));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some((_, next)) if next == quote || next == '\\' => out.push(next),
            Some((_, next)) => out.extend(['\\', next]),
            None => break,
        }
    }
    Err(format!("the quote {quote} is not closed"))
}

/// Quotes a word so that a shell reads it back as it is.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\"'\"'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(split(r#"a "b c" 'd'\ e # f"#).unwrap(), ["a", "b c", "d e"]);
        assert_eq!(split("").unwrap(), [""; 0]);
        assert!(split("'a").is_err() && split("a\\").is_err());
        for word in ["a", "", "b c", "d'e", "$f"] {
            assert_eq!(split(&quote(word)).unwrap(), [word]);
        }
    }
}
