//! Java's properties format, as far as broker.conf files use it.
//!
//! `key=value`, `key: value` or `key value`, comments with `#` or `!`, a backslash joins lines and escapes characters.
//! Knows no key.

/// One `key=value` of a file, with the line it began on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    pub line: usize,
    pub key: String,
    pub value: String,
}

/// Everything in the text, in order; a key that is given twice is there twice.
pub fn parse(text: &str) -> Vec<Property> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let first = first.trim_start();
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.trim_end().to_owned();
        while ends_with_open_backslash(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim()),
                None => break,
            }
        }
        if let Some((key, value)) = split(&logical) {
            found.push(Property {
                line: index + 1,
                key,
                value,
            });
        }
    }
    found
}

fn ends_with_open_backslash(line: &str) -> bool {
    line.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1
}

/// At the first separator that is not escaped: `=`, `:` or white space (which may surround one of the two).
fn split(line: &str) -> Option<(String, String)> {
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|&(_, c)| {
            let separates = !escaped && (c == '=' || c == ':' || c.is_whitespace());
            escaped = !escaped && c == '\\';
            separates
        })
        .map_or(line.len(), |(at, _)| at);
    let key = unescape(&line[..end]);
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (!key.is_empty()).then(|| (key, unescape(rest.trim())))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok();
                plain.push(
                    code.and_then(char::from_u32)
                        .unwrap_or(char::REPLACEMENT_CHARACTER),
                );
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).into_iter().map(|p| (p.key, p.value)).collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn the_stock_files_spelling_with_spaces_is_read() {
        let text =
            "# comment\n! another\n\nbrokerClusterName = DefaultCluster\nbrokerName=broker-a\r\n";
        assert_eq!(
            pairs(text),
            [
                pair("brokerClusterName", "DefaultCluster"),
                pair("brokerName", "broker-a")
            ]
        );
    }

    #[test]
    fn colons_and_spaces_separate_too() {
        assert_eq!(
            pairs("listenPort: 10911\nbrokerId 0\nnamesrvAddr=a:9876;b:9876"),
            [
                pair("listenPort", "10911"),
                pair("brokerId", "0"),
                pair("namesrvAddr", "a:9876;b:9876")
            ]
        );
    }

    #[test]
    fn a_backslash_joins_lines_and_escapes() {
        assert_eq!(
            pairs("namesrvAddr=a:9876;\\\n   b:9876\nstorePathRootDir=C\\:\\\\store\\u0041"),
            [
                pair("namesrvAddr", "a:9876;b:9876"),
                pair("storePathRootDir", "C:\\storeA")
            ]
        );
    }

    #[test]
    fn a_key_without_value_is_empty_and_lines_are_counted() {
        let found = parse("\n\nhaMasterAddress=\n");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].line, found[0].value.as_str()), (3, ""));
    }
}
