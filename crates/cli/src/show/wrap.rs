//! Text in lines.

/// A text in at most `lines` lines of at most `room` characters, cut off where it is longer.
pub(crate) fn wrapped(text: &str, room: usize, lines: usize) -> Vec<String> {
    const CUT: &str = "...";
    let mut all = vec![String::new()];
    for word in text.split(' ') {
        let last = all.last_mut().expect("there is one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > room {
            all.push(word.to_owned());
        } else {
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(word);
        }
    }
    let cut = |line: &str| -> String { line.chars().take(room - CUT.len()).chain(CUT.chars()).collect() };
    if all.len() > lines {
        all.truncate(lines);
        let last = all.last_mut().expect("there is one");
        *last = cut(last);
    }
    for line in all.iter_mut().filter(|line| line.chars().count() > room) {
        *line = cut(line);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_what_is_too_long_is_cut() {
        assert_eq!(wrapped("k <= q & k < 4", 8, 3), ["k <= q &", "k < 4"]);
        assert_eq!(wrapped("k <= q & k < 4", 8, 1), ["k <= ..."]);
        assert_eq!(wrapped("causal", 6, 1), ["causal"]);
        assert_eq!(wrapped("abcdefghijkl x", 8, 2), ["abcde...", "x"]);
        assert_eq!(wrapped("", 8, 2), [""]);
    }
}
