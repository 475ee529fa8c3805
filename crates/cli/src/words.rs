//! What a spec means, in a line: heads, mask and score with all definitions expanded.

use std::fmt::Write;

use regard::Spec;
use regard_ir::expr::{Op, Tree, Var};
use regard_ir::text;
use regard_ir::variant::Source;

/// Characters of an expression that are shown. The compiler shares nodes, so a short spec can mean a very long text.
const MAX_CHARS: usize = 160;

/// Heads, mask and score of a spec.
pub(crate) fn meaning(spec: &Spec) -> String {
    let allow = spec.allow.tree();
    let mask = match allow.node(allow.root()).op {
        Op::Bool(true) => "every query attends to every key".to_owned(),
        _ => format!("a query attends to the keys with `{}`", expression(allow, spec)),
    };
    let mut score = format!("s = {} * dot(q, k)", scale(spec));
    if !spec.modify.tree().is_var(Var::S) {
        let modified = expression(spec.modify.tree(), spec);
        let _ = write!(score, ", then `{modified}`");
    }
    let source = match spec.source {
        Source::SelfAttention => "",
        Source::Cross => ", keys of another sequence",
    };
    format!("{}{source}; {mask}; {score}", text::heads(&spec.heads))
}

/// The factor of every score, to six decimals.
pub(crate) fn scale(spec: &Spec) -> f64 {
    (spec.scale * 1e6).round() / 1e6
}

/// An expression of a spec as it would be written there; cut off where it is long.
pub(crate) fn expression(tree: Tree<'_>, spec: &Spec) -> String {
    text::expression(tree, &spec.inputs.names, MAX_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        regard::parse(text, "t.toml", &regard::NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec
    }

    fn mask(expr: &str) -> String {
        let spec = spec(&format!(
            "heads = {{ query = 4, dim = 16 }}\ninputs = {{ n = \"i32[b]\" }}\nmask = \"{expr}\""
        ));
        expression(spec.allow.tree(), &spec)
    }

    #[test]
    fn what_is_written_parses_to_the_same_expression() {
        for expr in [
            "causal & window(7) | first(2)",
            "(k < 3 | q < 3) & k != 5",
            "!(k < q) & (k - (q - 1)) % 3 == 0",
            "k - q - 1 < -q * (2 + k) // 3",
            "(k < q) == (q < n[b])",
            "select(h < 2, k <= q, abs(q - k) < min(nk, 4))",
            "(-q) ^ 2 < 2 ^ (0.5 * k) / 3",
            "exp2(sin(0.1 * q)) < int(1.5 * k)",
        ] {
            let written = mask(expr);
            assert_eq!(mask(&written), written, "{expr}");
            assert_eq!(
                spec(&format!(
                    "heads = {{ query = 4, dim = 16 }}\ninputs = {{ n = \"i32[b]\" }}\nmask = \"{expr}\""
                ))
                .allow,
                spec(&format!(
                    "heads = {{ query = 4, dim = 16 }}\ninputs = {{ n = \"i32[b]\" }}\nmask = \"{written}\""
                ))
                .allow,
                "{expr} was written as {written}"
            );
        }
    }

    #[test]
    fn long_expressions_are_cut() {
        let long = mask(&vec!["k != 1234567"; 40].join(" & "));
        assert!(long.ends_with('…') && long.chars().count() == MAX_CHARS + 1, "{long}");
    }

    #[test]
    fn a_spec_is_told_in_a_line() {
        let told = |name| meaning(&regard::shipped(name).unwrap().spec);
        assert_eq!(
            told("minilm"),
            "12 query heads of 32; a query attends to the keys with `k < len[b]`; s = 0.176777 * dot(q, k)"
        );
        assert!(
            told("softcap_bias").ends_with("then `50 * tanh(s / 50) + bias[h]`"),
            "{}",
            told("softcap_bias")
        );
        assert!(told("cross").contains("keys of another sequence; every query attends to every key"));
    }
}
