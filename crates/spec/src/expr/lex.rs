//! Text to tokens.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{anychar, digit1, one_of, satisfy};
use nom::combinator::{opt, recognize};
use nom::multi::{many0_count, separated_list1};
use nom::sequence::pair;
use nom::{IResult, Parser};

use super::SyntaxError;
use super::ast::Span;
use super::foreign::SYMBOLS as FOREIGN;
use crate::codes::Code;
use crate::diagnostic::quote;

/// A token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// `None` where it does not fit 64 bits.
    Int(Option<u64>),
    Float(f64),
    Name,
    /// One of [`KEYWORDS`].
    Keyword(&'static str),
    /// One of [`SYMBOLS`].
    Symbol(&'static str),
    End,
}

/// A token and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Span,
}

/// Words that name nothing.
pub(crate) const KEYWORDS: [&str; 5] = ["if", "then", "else", "true", "false"];

/// Operators and brackets; one comes before those that it begins with.
pub(crate) const SYMBOLS: [&str; 21] = [
    "<=", ">=", "==", "!=", "//", "<", ">", "+", "-", "*", "/", "%", "^", "&", "|", "!", "(", ")", "[", "]",
    ",",
];

/// All tokens of `text`, the last one [`TokenKind::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Token>, SyntaxError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let (start, _) = blank(rest).unwrap_or((rest, ""));
        let place = |after: &str| (text.len() - start.len()) as u32..(text.len() - after.len()) as u32;
        if start.is_empty() {
            tokens.push(Token { kind: TokenKind::End, span: place("") });
            return Ok(tokens);
        }
        let (after, kind) = if let Ok((after, word)) = number_word(start) {
            (after, number(word).ok_or_else(|| malformed(word, place(after)))?)
        } else if let Ok((after, word)) = word(start) {
            let keyword = KEYWORDS.iter().find(|&&keyword| keyword == word);
            (after, keyword.map_or(TokenKind::Name, |&keyword| TokenKind::Keyword(keyword)))
        } else {
            symbol(start).map_err(|(after, error)| SyntaxError { span: place(after), ..error })?
        };
        if matches!(kind, TokenKind::Float(value) if (value as f32).is_infinite()) {
            return Err(too_large(&start[..start.len() - after.len()], place(after)));
        }
        tokens.push(Token { kind, span: place(after) });
        rest = after;
    }
}

/// Whether `text` is one name, and no keyword.
pub(crate) fn is_name(text: &str) -> bool {
    matches!(word(text), Ok(("", _))) && !KEYWORDS.contains(&text)
}

/// White space and comments.
fn blank(text: &str) -> IResult<&str, &str> {
    let space = satisfy(char::is_whitespace);
    let comment = pair(tag("#"), take_while(|c| c != '\n'));
    recognize(many0_count(alt((recognize(space), recognize(comment))))).parse(text)
}

fn word(text: &str) -> IResult<&str, &str> {
    let first = satisfy(|c| c.is_ascii_alphabetic() || c == '_');
    recognize(pair(first, take_while(|c: char| c.is_ascii_alphanumeric() || c == '_'))).parse(text)
}

/// All that stands together with a digit, well formed or not: `1_000`, `.5`, `2e-3`, `0x1f`, `1.2.3`.
fn number_word(text: &str) -> IResult<&str, &str> {
    let head = pair(opt(tag(".")), satisfy(|c| c.is_ascii_digit()));
    let exponent = recognize((one_of("eE"), one_of("+-"), satisfy(|c| c.is_ascii_digit())));
    let part = recognize(satisfy(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.')));
    recognize(pair(head, many0_count(alt((exponent, part))))).parse(text)
}

/// The number that a word is, if it is one.
fn number(word: &str) -> Option<TokenKind> {
    fn digits(text: &str) -> IResult<&str, &str> {
        recognize(separated_list1(tag("_"), digit1)).parse(text)
    }
    let fraction = recognize(pair(tag("."), digits));
    let exponent = recognize((one_of("eE"), opt(one_of("+-")), digits));
    let parsed: IResult<&str, _> = (digits, opt(fraction), opt(exponent)).parse(word);
    let Ok(("", (_, fraction, exponent))) = parsed else { return None };
    let plain = word.replace('_', "");
    if fraction.is_none() && exponent.is_none() {
        return Some(TokenKind::Int(plain.parse().ok()));
    }
    plain.parse().ok().map(TokenKind::Float)
}

/// An operator or bracket; else what was found instead and where it ends.
fn symbol(text: &str) -> Result<(&str, TokenKind), (&str, SyntaxError)> {
    let error = |found: &str, what: &str| {
        let after = &text[found.len()..];
        (after, SyntaxError::new(Code::S016, 0..0, format!("{} is not {what}", quote(found))))
    };
    let own = SYMBOLS.iter().find(|symbol| text.starts_with(**symbol));
    let foreign = FOREIGN.iter().find(|(other, _)| text.starts_with(other));
    match (own, foreign) {
        (own, Some((other, ours))) if own.is_none_or(|own| own.len() < other.len()) => {
            let (after, error) = error(other, "an operator of expressions");
            Err((after, error.help(format!("write `{ours}`"))))
        }
        (Some(own), _) => Ok((&text[own.len()..], TokenKind::Symbol(own))),
        (None, _) => {
            let first: IResult<&str, char> = anychar(text);
            let after = first.map_or("", |(after, _)| after);
            Err(error(&text[..text.len() - after.len()], "a character of expressions"))
        }
    }
}

fn malformed(word: &str, span: Span) -> SyntaxError {
    SyntaxError::new(Code::S018, span, format!("malformed number {}", quote(word)))
        .label("a digit on each side of the point, `_` only between digits")
}

fn too_large(word: &str, span: Span) -> SyntaxError {
    SyntaxError::new(Code::S019, span, format!("{} is outside the range of floats", quote(word)))
        .label(format!("the largest is {:e}", f32::MAX))
        .help("infinity is written `inf`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<TokenKind> {
        lex(text).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn numbers_names_symbols_and_comments() {
        use TokenKind::*;
        assert_eq!(
            kinds("1_000 2.5e-1//x_1 <= if # all\n 1e3"),
            [
                Int(Some(1000)),
                Float(0.25),
                Symbol("//"),
                Name,
                Symbol("<="),
                Keyword("if"),
                Float(1000.0),
                End
            ]
        );
        assert_eq!(kinds("99999999999999999999"), [Int(None), End]);
        assert_eq!(kinds("2-3"), [Int(Some(2)), Symbol("-"), Int(Some(3)), End]);
    }

    #[test]
    fn malformed_numbers_are_named_whole() {
        for text in ["1.", ".5", "1__0", "1_", "1e", "0x1f", "2x", "1.2.3", "1e+"] {
            let error = lex(&format!("k + {text} ")).unwrap_err();
            assert_eq!(error.code, Code::S018, "{text}");
        }
        assert_eq!(lex("k < .5e+3x").unwrap_err().span, 4..10);
    }

    #[test]
    fn foreign_operators_are_explained() {
        for (other, ours) in FOREIGN {
            let error = lex(&format!("k {other} q")).unwrap_err();
            assert_eq!((error.code, error.help), (Code::S016, Some(format!("write `{ours}`"))));
            assert_eq!(error.span, 2..2 + other.len() as u32);
        }
        assert_eq!(lex("k @ q").unwrap_err().message, "`@` is not a character of expressions");
        assert_eq!(lex("é").unwrap_err().span, 0..2);
    }
}
