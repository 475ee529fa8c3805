//! What a spec means, in a line: every table that it has, with all definitions expanded.

use std::fmt::Write;

use regard::Spec;
use regard_ir::expr::{Op, Tree, Var};
use regard_ir::spec::Mechanism;
use regard_ir::text;
use regard_ir::variant::Source;

/// Characters of an expression that are shown. The compiler shares nodes, so a short spec can mean a very long text.
const MAX_CHARS: usize = 160;

/// What a spec computes, in the order in which it does.
pub(crate) fn meaning(spec: &Spec) -> String {
    if let Mechanism::Recurrence(_) = spec.mechanism {
        return recurrence(spec);
    }
    let allow = spec.allow.tree();
    let mask = match allow.node(allow.root()).op {
        Op::Bool(true) => "every query attends to every key".to_owned(),
        _ => format!("a query attends to the keys with `{}`", expression(allow, spec)),
    };
    let mut score = text::score(spec);
    if !spec.modify.tree().is_var(Var::S) {
        let modified = expression(spec.modify.tree(), spec);
        let _ = write!(score, ", then `{modified}`");
    }
    let source = match spec.source {
        Source::SelfAttention => "",
        Source::Cross => ", keys of another sequence",
    };
    let heads = match &spec.mechanism {
        Mechanism::Latent(latent) => text::latent(spec.heads.query, latent),
        _ => text::heads(&spec.heads),
    };
    let heads = format!("{heads}{source}");
    let names = &spec.inputs.names;
    let rows = text::rows(spec);
    let weights = text::weights(spec.weights, names);
    let output = text::output(spec.output, names);
    let lse = spec.output.lse.then(|| "the log of each row's weight sum is an output too".to_owned());
    let lookahead = text::lookahead(spec, MAX_CHARS);
    let told = [
        Some(heads),
        rows,
        Some(mask),
        lookahead,
        Some(score),
        weights,
        output,
        lse,
        text::cache(spec.cache),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What a spec with a recurrence computes, in the order in which it does.
fn recurrence(spec: &Spec) -> String {
    let source = match spec.source {
        Source::SelfAttention => "",
        Source::Cross => ", keys of another sequence",
    };
    let told = [Some(format!("{}{source}", text::heads(&spec.heads))), text::rows(spec)];
    let output = text::output(spec.output, &spec.inputs.names);
    let states = text::recurrence(spec, MAX_CHARS).into_iter().map(Some);
    told.into_iter().chain(states).chain([output]).flatten().collect::<Vec<_>>().join("; ")
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
            told("softcap_bias").ends_with(
                "then `50 * tanh(s / 50) + bias[h]`; the log of each row's weight sum is an output too"
            ),
            "{}",
            told("softcap_bias")
        );
        assert!(told("cross").contains("keys of another sequence; every query attends to every key"));
    }

    #[test]
    fn tables_are_told_in_the_order_of_the_formula() {
        let told = |lines: &str| meaning(&spec(&format!("heads = {{ query = 4, dim = 16 }}\n{lines}")));
        assert_eq!(
            told(
                "position = { rope = { theta = 500000 } }\nqk_norm = { kind = 'rms', learned = true }\n\
                 weights = { kind = 'sigmoid', bias = '-log(nk)' }\noutput = { mix = 2, gate = 'elementwise' }"
            ),
            "4 query heads of 16; rows of q and k are divided by their root mean square (eps 1e-6) and scaled by \
             `q_norm` and `k_norm`, then turned by rope in 16 channels (theta 500000); every query attends to every \
             key; s = 0.25 * dot(q, k), then `s + -log(nk)`; weights are `sigmoid(s)`, not divided by their sum; rows \
             of o are mixed over heads by `mix` into 2, then multiplied by `sigmoid(gate)`, one gate for each element"
        );
        for (lines, clause) in [
            (
                "position.rope.theta = 1e4\nlookahead = { window = 8, rotate = ['q_c', 'k_c', 'v_u'] }",
                "; rows of q_c, k_c and v_u are turned by rope in 16 channels (theta 10000); a query attends to the keys \
                 with `k <= q`; a key learns u, the sum of sigmoid(0.25 * dot(q_u, k_u)) * v_u over the tokens `q` so \
                 far with `k < q & q - k <= 8`; s = 0.25 * dot(q_c, k_c) - silu(0.25 * dot(q_c, u))",
            ),
            ("position.rope.theta = 1e4\nlookahead.rotate = []", "4 query heads of 16; a query attends "),
            (
                "qk_norm = { kind = 'l2', eps = 0, axis = 'all', after_rope = true }\ninputs = { at = 'i32[b, k]', f = 'f32[4]' }\n\
                 position = { rope = { freqs = 'f', dim = 8, offset = 8, layout = 'interleaved' }, ids = 'at' }",
                "; rows of q and k are turned by rope in 8 channels from 8 on in adjacent pairs at positions `at` \
                 (frequencies `f`), then divided by their length over all heads (eps 0); ",
            ),
            (
                "position = { rope = { theta = 1e4 }, scaling = { kind = 'linear', factor = 2.5 } }",
                "(theta 10000, stretched by 2.5); ",
            ),
            (
                "position.rope.theta = 5e5\nposition.scaling = { kind = 'llama3', factor = 8, low_freq_factor = 1, high_freq_factor = 4, original_max_position_embeddings = 8192 }",
                "(theta 500000, llama3 by 8 past 8192 positions between 1 and 4 turns); ",
            ),
            (
                "position.rope.theta = 15e4\nposition.scaling = { kind = 'yarn', factor = 32, original_max_position_embeddings = 4096, truncate = false }",
                "(theta 150000, yarn by 32 past 4096 positions between 1 and 32 turns unrounded, rows times 1.346574); ",
            ),
            ("weights.sink = 'learned'", "; weights are a softmax with `exp(sink[h])` added to its sum"),
            ("weights.sink = 'one'", "; weights are a softmax with 1 added to its sum"),
            ("weights = 'relu'", "; weights are `max(s, 0)`, not divided by their sum"),
            (
                "output = { norm = 'rms', norm_eps = 1e-12, gate = 'head', gate_act = 'silu' }",
                "; rows of o are divided by their root mean square (eps 1e-12) and scaled by `o_norm`, then multiplied \
                 by `silu(gate)`, one gate for each row",
            ),
            ("cache = { dtype = 'int8' }", "; keys and values are cached in int8"),
            ("cache = 'ring'", "; keys and values are cached in a ring"),
            (
                "cache = { layout = 'paged', page = 64, k = 'int8', v = 'int4', file = true }",
                "; keys are cached in int8 and values in int4, in pages of 64 tokens, in a memory-mapped file",
            ),
            (
                "cache = { layout = 'paged', v = 'f16' }",
                "; keys are cached as they are and values in f16, in pages",
            ),
            ("cache.file = true", "; keys and values are cached in a memory-mapped file"),
        ] {
            assert!(told(lines).contains(clause), "{}", told(lines));
        }
        assert_eq!(told("cache = { layout = 'contiguous', dtype = 'same' }"), told(""));
    }
}
