//! Tokens to a tree, by precedence climbing: a chain is a loop, so only what is written nested recurses.

use super::SyntaxError;
use super::ast::{Ast, AstId, Operator, Span, Syntax};
use super::foreign;
use super::lex::{Token, TokenKind, lex};
use crate::codes::Code;
use crate::diagnostic::quote;

/// The longest expression, in bytes.
pub(super) const MAX_BYTES: usize = 64 << 10;

/// How deep an expression may nest brackets, `!`, `-`, `^` and `if`.
pub(super) const MAX_NESTING: u32 = 128;

/// Parses one expression.
pub(super) fn parse(text: &str) -> Result<Ast, SyntaxError> {
    if text.len() > MAX_BYTES {
        let message = format!("an expression of {} bytes", text.len());
        return Err(SyntaxError::new(Code::S020, 0..text.len() as u32, message)
            .label(format!("at most {MAX_BYTES} bytes are read")));
    }
    let mut parser = Parser { text, tokens: lex(text)?, next: 0, ast: Ast::default(), nesting: 0 };
    parser.expr()?;
    if parser.peek() != TokenKind::End {
        return Err(parser.unexpected("an operator or the end"));
    }
    Ok(parser.ast)
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    next: usize,
    ast: Ast,
    nesting: u32,
}

/// Levels of binary operators, from the loosest.
const OR: u8 = 0;
const AND: u8 = 1;
const NOT: u8 = 2;
const COMPARE: u8 = 3;
const SUM: u8 = 4;
const PRODUCT: u8 = 5;

type Parsed<T> = Result<T, SyntaxError>;

impl Parser<'_> {
    /// `'if' expr 'then' expr 'else' expr | or`
    fn expr(&mut self) -> Parsed<AstId> {
        let start = self.span().start;
        if !self.eat("if") {
            return self.level(OR);
        }
        self.nested(|parser| {
            let condition = parser.expr()?;
            parser.expect("then")?;
            let yes = parser.expr()?;
            parser.expect("else")?;
            let no = parser.expr()?;
            Ok(parser.push(Syntax::If(condition, yes, no), start))
        })
    }

    /// A chain of operators of this level, whose operands are of the next.
    fn level(&mut self, level: u8) -> Parsed<AstId> {
        let start = self.span().start;
        if level == NOT && self.eat("!") {
            let operand = self.nested(|parser| parser.level(NOT))?;
            return Ok(self.push(Syntax::Not(operand), start));
        }
        if level > PRODUCT {
            return self.unary();
        }
        let first = self.level(level + 1)?;
        let mut rest = Vec::new();
        while let Some(operator) = self.operator(level) {
            self.next += 1;
            rest.push((operator, self.level(level + 1)?));
        }
        if rest.is_empty() { Ok(first) } else { Ok(self.push(Syntax::Chain(first, rest), start)) }
    }

    /// `'-' unary | atom ('^' unary)?`
    fn unary(&mut self) -> Parsed<AstId> {
        let start = self.span().start;
        if self.eat("-") {
            let operand = self.nested(Self::unary)?;
            return Ok(self.push(Syntax::Neg(operand), start));
        }
        let base = self.atom()?;
        if !self.eat("^") {
            return Ok(base);
        }
        let exponent = self.nested(Self::unary)?;
        Ok(self.push(Syntax::Pow(base, exponent), start))
    }

    fn atom(&mut self) -> Parsed<AstId> {
        let span = self.span();
        let leaf = match self.peek() {
            TokenKind::Int(value) => Syntax::Int(value),
            TokenKind::Float(value) => Syntax::Float(value),
            TokenKind::Keyword("true") => Syntax::Bool(true),
            TokenKind::Keyword("false") => Syntax::Bool(false),
            TokenKind::Name => return self.name(),
            TokenKind::Symbol("(") => {
                self.next += 1;
                let inner = self.nested(Self::expr)?;
                self.expect(")")?;
                return Ok(inner);
            }
            TokenKind::Keyword("if") | TokenKind::Symbol("!") => {
                let error = self.unexpected("an operand");
                return Err(error.help("put it in parentheses to use it as an operand"));
            }
            _ => return Err(self.unexpected("an expression")),
        };
        self.next += 1;
        Ok(self.push(leaf, span.start))
    }

    /// `name | name '(' expr,+ ')' | name '[' expr,+ ']'`
    fn name(&mut self) -> Parsed<AstId> {
        let name = self.span();
        self.next += 1;
        let syntax = if self.eat("(") {
            Syntax::Call(self.list(")")?)
        } else if self.eat("[") {
            Syntax::Index(self.list("]")?)
        } else {
            Syntax::Name
        };
        let span = name.start..self.end();
        Ok(self.ast.push(syntax, span, name))
    }

    fn list(&mut self, close: &'static str) -> Parsed<Vec<AstId>> {
        self.nested(|parser| {
            let mut items = vec![parser.expr()?];
            while parser.eat(",") {
                items.push(parser.expr()?);
            }
            if parser.eat(close) {
                return Ok(items);
            }
            Err(parser.unexpected(&format!("`,` or `{close}`")))
        })
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == MAX_NESTING {
            let message = format!("nested more than {MAX_NESTING} deep");
            return Err(SyntaxError::new(Code::S021, self.span(), message).label("one level too many"));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    fn operator(&self, level: u8) -> Option<Operator> {
        let TokenKind::Symbol(symbol) = self.peek() else { return None };
        let (of, operator) = match symbol {
            "|" => (OR, Operator::Or),
            "&" => (AND, Operator::And),
            "<" => (COMPARE, Operator::Lt),
            "<=" => (COMPARE, Operator::Le),
            ">" => (COMPARE, Operator::Gt),
            ">=" => (COMPARE, Operator::Ge),
            "==" => (COMPARE, Operator::Eq),
            "!=" => (COMPARE, Operator::Ne),
            "+" => (SUM, Operator::Add),
            "-" => (SUM, Operator::Sub),
            "*" => (PRODUCT, Operator::Mul),
            "/" => (PRODUCT, Operator::Div),
            "//" => (PRODUCT, Operator::FloorDiv),
            "%" => (PRODUCT, Operator::Rem),
            _ => return None,
        };
        (of == level).then_some(operator)
    }

    fn peek(&self) -> TokenKind {
        self.tokens[self.next].kind
    }

    fn span(&self) -> Span {
        self.tokens[self.next].span.clone()
    }

    /// Where the last token that was read ends.
    fn end(&self) -> u32 {
        self.tokens[..self.next].last().map_or(0, |token| token.span.end)
    }

    fn push(&mut self, syntax: Syntax, start: u32) -> AstId {
        let span = start..self.end();
        self.ast.push(syntax, span, start..start)
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Symbol(it) | TokenKind::Keyword(it) if it == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.eat(word) { Ok(()) } else { Err(self.unexpected(&quote(word))) }
    }

    fn unexpected(&self, expected: &str) -> SyntaxError {
        let found = match self.peek() {
            TokenKind::End => "the end".to_string(),
            _ => quote(self.written(self.next)),
        };
        let error = SyntaxError::new(Code::S017, self.span(), format!("expected {expected}, found {found}"))
            .label(format!("expected {expected}"));
        // `not k` goes wrong after the name `not`.
        let before = self.next.checked_sub(1).map_or("", |at| self.written(at));
        match (before, self.written(self.next)) {
            ("]", "[") => error.help("all indices stand in one pair of brackets: `a[b, k]`"),
            (before, here) => match foreign::operator(here).or(foreign::operator(before)) {
                Some(ours) => error.help(format!("write `{ours}`")),
                None => error,
            },
        }
    }

    /// A token's text.
    fn written(&self, token: usize) -> &str {
        let span = &self.tokens[token].span;
        &self.text[span.start as usize..span.end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree with all its parentheses.
    fn shape(text: &str) -> String {
        let ast = parse(text).unwrap();
        show(&ast, ast.root(), text)
    }

    fn show(ast: &Ast, id: AstId, text: &str) -> String {
        let node = ast.node(id);
        let name = &text[node.name.start as usize..node.name.end as usize];
        let list = |items: &[AstId]| items.iter().map(|&i| show(ast, i, text)).collect::<Vec<_>>().join(", ");
        match &node.syntax {
            Syntax::Int(value) => value.unwrap().to_string(),
            Syntax::Float(value) => format!("{value:?}"),
            Syntax::Bool(value) => value.to_string(),
            Syntax::Name => name.to_string(),
            Syntax::Call(args) => format!("{name}({})", list(args)),
            Syntax::Index(args) => format!("{name}[{}]", list(args)),
            Syntax::Not(a) => format!("(! {})", list(&[*a])),
            Syntax::Neg(a) => format!("(- {})", list(&[*a])),
            Syntax::Pow(a, b) => format!("({} ^ {})", list(&[*a]), list(&[*b])),
            Syntax::If(c, a, b) => format!("(if {} {} {})", list(&[*c]), list(&[*a]), list(&[*b])),
            Syntax::Chain(first, rest) => {
                let mut out = format!("({}", list(&[*first]));
                for (operator, operand) in rest {
                    out += &format!(" {} {}", operator.symbol(), list(&[*operand]));
                }
                out + ")"
            }
        }
    }

    #[test]
    fn precedence_follows_the_grammar() {
        assert_eq!(shape("-2 ^ 2"), "(- (2 ^ 2))");
        assert_eq!(shape("2 ^ -3 ^ 2"), "(2 ^ (- (3 ^ 2)))");
        assert_eq!(shape("a < b <= c"), "(a < b <= c)");
        assert_eq!(shape("1 - 2 - 3"), "(1 - 2 - 3)");
        assert_eq!(shape("a | b & !c < d"), "(a | (b & (! (c < d))))");
        assert_eq!(shape("!!a == b"), "(! (! (a == b)))");
        assert_eq!(shape("a + b * -c // 2"), "(a + (b * (- c) // 2))");
        assert_eq!(shape("if a then b else c | d"), "(if a b (c | d))");
        assert_eq!(shape("f(a, (b))[0]".trim_end_matches("[0]")), "f(a, b)");
        assert_eq!(shape("x[q - 1, k] # end"), "x[(q - 1), k]");
    }

    #[test]
    fn errors_say_what_was_expected() {
        for (text, span, message) in [
            ("", 0..0, "expected an expression, found the end"),
            ("k <", 3..3, "expected an expression, found the end"),
            ("(k < q", 6..6, "expected `)`, found the end"),
            ("k q", 2..3, "expected an operator or the end, found `q`"),
            ("f()", 2..3, "expected an expression, found `)`"),
            ("if a then b", 11..11, "expected `else`, found the end"),
            ("k + !a", 4..5, "expected an operand, found `!`"),
            ("f(a b)", 4..5, "expected `,` or `)`, found `b`"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(
                (error.code, error.span, error.message.as_str()),
                (Code::S017, span, message),
                "{text}"
            );
        }
    }

    #[test]
    fn nesting_is_limited_without_deep_stacks() {
        let deep = |open: &str, close: &str, n: usize| format!("{}k{}", open.repeat(n), close.repeat(n));
        let check = move || {
            for (open, close) in [
                ("(", ")"),
                ("!", ""),
                ("-", ""),
                ("f(", ")"),
                ("x[", "]"),
                ("k ^ ", ""),
                ("if k then k else ", ""),
            ] {
                assert!(parse(&deep(open, close, MAX_NESTING as usize)).is_ok(), "{open}");
                let most = (MAX_BYTES - 1) / (open.len() + close.len());
                let error = parse(&deep(open, close, most)).unwrap_err();
                assert_eq!(error.code, Code::S021, "{open}");
            }
            assert_eq!(parse(&"!".repeat(1_000_000)).unwrap_err().code, Code::S020);
            let chain = vec!["1"; MAX_BYTES / 2].join("+");
            assert!(parse(&chain).is_ok());
        };
        std::thread::Builder::new().stack_size(512 << 10).spawn(check).unwrap().join().unwrap();
    }
}
