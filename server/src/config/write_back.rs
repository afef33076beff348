//! Putting changed settings back into a broker.conf, leaving everything else as its owner wrote it.

use super::properties;

/// The text with these keys at these values: the last line of a key is replaced, new keys follow at the end.
pub fn changed(text: &str, changes: &[(String, String)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (key, value) in changes {
        let line = format!("{key}={}", escape(value));
        let found = properties::parse(text).into_iter().rfind(|p| p.key == *key);
        match found {
            Some(property) => replace(&mut lines, property.line - 1, line),
            None => lines.push(line),
        }
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Replaces the line; lines that continue it are left empty, so that line numbers stay right.
fn replace(lines: &mut [String], at: usize, new: String) {
    let continues = |line: &str| line.trim_end().ends_with('\\');
    let mut next = at;
    while continues(&lines[next]) && next + 1 < lines.len() {
        let more = continues(&lines[next + 1]);
        lines[next].clear();
        next += 1;
        if !more {
            lines[next].clear();
            break;
        }
    }
    lines[at] = new;
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\u{c}' => escaped.push_str("\\f"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, key: &str, value: &str) -> String {
        changed(text, &[(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_known_key_is_changed_where_it_stands() {
        assert_eq!(
            set("# mine\na = 1\n\nb=2\n", "a", "3"),
            "# mine\na=3\n\nb=2\n"
        );
    }

    #[test]
    fn a_new_key_comes_last() {
        assert_eq!(set("a=1", "b", "2"), "a=1\nb=2\n");
        assert_eq!(set("", "b", "2"), "b=2\n");
    }

    #[test]
    fn a_value_never_becomes_a_line_of_its_own() {
        for value in ["x\nrocketmqHome=/", "x\rb=1", "x\u{c}b=1", "x\\"] {
            let text = set("a=1\nc=3\n", "a", value);
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(!text.contains('\r'), "{text:?}");
            let pairs = properties::parse(&text);
            assert_eq!((pairs[0].value.as_str(), pairs.len()), (value, 2));
        }
    }

    #[test]
    fn a_continued_line_is_replaced_whole() {
        let text = set("n=a;\\\n  b;\\\n  c\nm=1\n", "n", "x");
        let pairs: Vec<_> = properties::parse(&text)
            .into_iter()
            .map(|p| (p.key, p.value))
            .collect();
        assert_eq!(
            pairs,
            [
                ("n".to_owned(), "x".to_owned()),
                ("m".to_owned(), "1".to_owned())
            ]
        );
    }
}
