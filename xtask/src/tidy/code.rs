//! Rust source without what is not code.

/// The same text with every comment, string and character literal replaced by spaces.
///
/// Lines and columns (in characters) stay where they are, so that a place found in the result is a place in `text`.
/// Text that ends inside a comment or literal is blank to its end.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_end(&chars, at) {
            Some(end) => end.min(chars.len()),
            None => {
                let end = word_end(&chars, at).max(at + 1);
                code.extend(&chars[at..end]);
                at = end;
                continue;
            }
        };
        code.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Whether `code` has `word` standing alone, not as a part of a longer name; where its first letter is, in bytes.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// The line of a byte, counted from 0.
pub(super) fn line_index(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|&byte| byte == b'\n').count()
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Past the last letter of the name that starts at `at`, or `at` if none does.
fn word_end(chars: &[char], at: usize) -> usize {
    at + chars[at..].iter().take_while(|&&c| is_name(c)).count()
}

/// Past the end of the comment or literal that starts at `at`, or `None` if none does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    match (chars[at], chars.get(at + 1)) {
        ('/', Some('/')) => Some(at + chars[at..].iter().take_while(|&&c| c != '\n').count()),
        ('/', Some('*')) => Some(block_comment_end(chars, at)),
        ('"', _) => Some(quoted_end(chars, at + 1, '"')),
        ('\'', Some('\\')) => Some(quoted_end(chars, at + 1, '\'')),
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        (c, _) if is_name(c) => {
            let end = word_end(chars, at);
            let prefix: String = chars[at..end].iter().collect();
            match (prefix.as_str(), chars.get(end)) {
                ("r" | "br" | "cr", Some('"' | '#')) => raw_string_end(chars, end),
                ("b" | "c", Some('"')) => Some(quoted_end(chars, end + 1, '"')),
                ("b", Some('\'')) => Some(quoted_end(chars, end + 1, '\'')),
                _ => None,
            }
        }
        _ => None,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `start` is at the first `#` or the quote; `None` if it is a raw name such as `r#type`.
fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start..].iter().take_while(|&&c| c == '#').count();
    if chars.get(start + hashes) != Some(&'"') {
        return None;
    }
    let mut at = start + hashes + 1;
    while at < chars.len() {
        let closes =
            chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
        at += 1;
        if closes {
            return Some(at + hashes);
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                     b"),
            (r#"f("a\"unsafe") + 1"#, "f(            ) + 1"),
            (r##"r#"a"unsafe"# b"##, "              b"),
            ("br\"\\\" b\"x\" c", "           c"),
            ("'\\'' 'x' '\"' b'\\\\' z", "                   z"),
        ];
        for (text, expected) in cases {
            let code = code_only(text);
            assert_eq!(code.chars().count(), text.chars().count(), "{text}");
            assert_eq!(
                code.split_whitespace().collect::<Vec<_>>(),
                expected.split_whitespace().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn lifetimes_raw_names_and_suffixed_names_are_code() {
        for text in ["fn f<'a>(x: &'a str) -> &'static str", "r#type + bar", "for_b + car"] {
            assert_eq!(code_only(text), text);
        }
    }

    #[test]
    fn an_open_literal_is_blank_to_the_end() {
        for text in ["\"ab", "/* ab", "'\\", "r#\"ab\"", "\"ab\\"] {
            assert_eq!(code_only(text).trim(), "", "{text}");
        }
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(words("unsafe_code unsafe{ my_unsafe unsafe", "unsafe").collect::<Vec<_>>(), [12, 30]);
    }
}
