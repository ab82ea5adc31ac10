//! How are `{{tags}}` in output names, commands and environment values replaced?

/// Replaces each `{{tag}}` by what `render` returns for it; a tag it does not know, and braces that do not close,
/// stay as they are. Replacements are not expanded again. A tag spans no newline and no brace.
pub fn expand(template: &str, mut render: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        // of "{{{id}}" the last two braces open the tag
        let extra = after.len() - after.trim_start_matches('{').len();
        let body = after.get(extra..).unwrap_or("");
        out.extend(std::iter::repeat_n('{', extra));
        let tag_end = body.find(['{', '}', '\n']).unwrap_or(body.len());
        let (tag, tail) = body.split_at_checked(tag_end).unwrap_or((body, ""));
        let known = tail
            .strip_prefix("}}")
            .and_then(|tail| Some((render(tag.trim())?, tail)));
        match known {
            Some((text, tail)) => {
                out.push_str(&text);
                rest = tail;
            }
            None => {
                out.push_str("{{");
                out.push_str(tag);
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Returns true when the text may hold a tag, so that callers can skip the work.
pub fn has_tags(text: &str) -> bool {
    text.contains("{{")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(tag: &str) -> Option<String> {
        match tag {
            "id" => Some("ƒ1".into()),
            "node.name" => Some("{{id}}".into()),
            _ => None,
        }
    }

    #[test]
    fn tags() {
        for (template, text) in [
            ("", ""),
            ("plain", "plain"),
            ("out.{{id}}.txt", "out.ƒ1.txt"),
            ("{{id}}{{id}}", "ƒ1ƒ1"),
            ("{{ id }}", "ƒ1"),
            ("{{nope}}-{{id}}", "{{nope}}-ƒ1"),
            ("{{id", "{{id"),
            ("{{id}", "{{id}"),
            ("{id}", "{id}"),
            ("{{{id}}}", "{ƒ1}"),
            ("{{a{{id}}", "{{aƒ1"),
            ("{{node.name}}", "{{id}}"),
            ("{{}}", "{{}}"),
            ("{{\n}}", "{{\n}}"),
        ] {
            assert_eq!(expand(template, render), text, "{template}");
        }
    }

    proptest! {
        #[test]
        fn unknown_tags_stay(template in "[{}a\\n ]{0,30}") {
            prop_assert_eq!(expand(&template, |_| None), template);
        }
    }
}
