//! Java's properties format: `key=value`, `key: value` or `key value`, comments after `#` or `!`, a backslash at the end of a
//! line goes on in the next one. Never fails: whatever a line holds is a key and a value.

/// All pairs in the order of the text.
pub fn parse(text: &str) -> Vec<(String, String)> {
    logical_lines(text).iter().map(|line| split(line)).collect()
}

/// Sets keys in a properties text: lines of these keys are replaced where they stand, new keys come last.
pub fn replace(text: &str, pairs: &[(String, String)]) -> String {
    let mut left: Vec<&(String, String)> = pairs.iter().collect();
    let mut result = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let key = if is_comment(line) {
            String::new()
        } else {
            split(line.trim_start()).0
        };
        match left.iter().position(|(wanted, _)| *wanted == key) {
            Some(at) => push_pair(&mut result, left.remove(at)),
            None => {
                result.push_str(line);
                result.push('\n');
            }
        }
    }
    left.iter().for_each(|pair| push_pair(&mut result, pair));
    result
}

fn push_pair(text: &mut String, (key, value): &(String, String)) {
    text.push_str(key);
    text.push('=');
    text.push_str(value);
    text.push('\n');
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with(['#', '!'])
}

fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if open.is_none() && is_comment(line) {
            continue;
        }
        let mut whole = open.take().unwrap_or_default();
        whole.push_str(line.trim_start());
        let slashes = whole.len() - whole.trim_end_matches('\\').len();
        if slashes % 2 == 1 {
            whole.pop();
            open = Some(whole);
        } else {
            lines.push(whole);
        }
    }
    lines.extend(open);
    lines
}

fn split(line: &str) -> (String, String) {
    let mut escaped = false;
    let end = line.find(|letter: char| {
        let ends = !escaped && (letter == '=' || letter == ':' || letter.is_whitespace());
        escaped = !escaped && letter == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (unescape(key), unescape(value.trim()))
}

fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            result.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => result.push('\n'),
            Some('t') => result.push('\t'),
            Some('r') => result.push('\r'),
            Some('f') => result.push('\u{c}'),
            Some('u') => {
                let digits: String = letters.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16)
                    .ok()
                    .and_then(char::from_u32);
                result.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => result.push(other),
            None => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text)
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn the_three_separators_mean_the_same() {
        assert_eq!(
            pairs("a=1\nb : 2\nc 3\nd"),
            [
                pair("a", "1"),
                pair("b", "2"),
                pair("c", "3"),
                pair("d", "")
            ]
        );
    }

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        assert_eq!(pairs("# a=1\n! b=2\n\n   \nc=3"), [pair("c", "3")]);
    }

    #[test]
    fn a_line_goes_on_after_a_backslash() {
        assert_eq!(
            pairs("a=1,\\\n   2\nb=x\\\\\nc=3"),
            [pair("a", "1,2"), pair("b", "x\\"), pair("c", "3")]
        );
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(pairs("a\\:b=c\\u0041\\n"), [pair("a:b", "cA\n")]);
    }

    #[test]
    fn replaced_keys_keep_their_place_and_everything_else_stays() {
        let text = "# mine\na=1\n\nb = 2\n";
        let new = replace(text, &[pair("b", "3"), pair("c", "4")]);
        assert_eq!(new, "# mine\na=1\n\nb=3\nc=4\n");
    }
}
