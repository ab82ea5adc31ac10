//! Does a name match a shell pattern? `*`, `?`, `[a-z]`, `[!x]`, `\`

/// Returns true when the whole of `name` matches `pattern`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Where to go on when the match fails: after the last star, one character further.
    let (mut p, mut n, mut retry) = (0, 0, None);
    loop {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                retry = Some((p, n));
                continue;
            }
            Some(_) if n < name.len() => {
                if let Some(width) = name.get(n).and_then(|c| one(pattern.get(p..).unwrap_or(&[]), *c)) {
                    p += width;
                    n += 1;
                    continue;
                }
            }
            None if n == name.len() => return true,
            _ => {}
        }
        match retry {
            Some((after_star, from)) if from < name.len() => {
                p = after_star;
                n = from + 1;
                retry = Some((after_star, n));
            }
            _ => return false,
        }
    }
}

/// Returns how many pattern characters accept `c`, or `None` when they do not.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', literal, ..] => (*literal == c).then_some(2),
        ['[', rest @ ..] => {
            let negated = matches!(rest.first(), Some('!' | '^'));
            let set = if negated { rest.get(1..)? } else { rest };
            // A bracket right at the beginning is a member.
            let close = set.iter().skip(1).position(|c| *c == ']').map(|at| at + 1);
            let Some(close) = close else {
                return (c == '[').then_some(1);
            };
            let members = set.get(..close)?;
            let mut found = false;
            let mut at = 0;
            while let Some(first) = members.get(at) {
                match (members.get(at + 1), members.get(at + 2)) {
                    (Some('-'), Some(last)) => {
                        found |= (*first..=*last).contains(&c);
                        at += 3;
                    }
                    _ => {
                        found |= *first == c;
                        at += 1;
                    }
                }
            }
            (found != negated).then_some(1 + usize::from(negated) + close + 1)
        }
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, name, want) in [
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*a*b*", "xxaxxbxx", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("", "", true),
            ("", "a", false),
            ("kvs.*", "kvs.lookup", true),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_stars_absorb(pattern in "[a-c*?\\[\\]!\\\\-]{0,12}", name in "[a-c\\[\\]]{0,12}") {
            let _ = matches(&pattern, &name);
            let starred = format!("*{name}*");
            if !name.contains(['[', ']']) {
                prop_assert!(matches(&starred, &name));
            }
        }
    }
}
