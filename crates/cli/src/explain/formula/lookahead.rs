//! The formula of lookahead keys: what a key learns, and the score that is made of it.

use regard::Spec;
use regard_ir::rows::Position;
use regard_ir::spec::Lookahead;
use regard_ir::variant::Turned;

use super::Line;
use crate::words;

/// The lines from the rows of a token to the score `s`; `scale` ends in a dot, or is empty.
pub(super) fn lines(spec: &Spec, lookahead: &Lookahead, scale: &str) -> Vec<Line> {
    let row = |tensor: Turned, token: &str| {
        let row = format!("{}[b,h,{token}]", tensor.name());
        match spec.position {
            Some(Position { ids, .. }) if lookahead.rotate & tensor.bit() != 0 => match ids {
                Some(input) => format!("rope({row}, {}[b,{token}])", spec.inputs.names[usize::from(input)]),
                None => format!("rope({row}, {token})"),
            },
            _ => row,
        }
    };
    let allow = words::expression(lookahead.allow.tree(), spec);
    let [q_c, k_c] = [row(Turned::QC, "q"), row(Turned::KC, "k")];
    let [q_u, k_u, v_u] = [row(Turned::QU, "k"), row(Turned::KU, "t"), row(Turned::VU, "t")];
    let line = |name, is| Line { name, is };
    vec![
        line("t teaches k", format!("{allow}, with t in place of q")),
        line("u", format!("Σ sigmoid({scale}{q_u} · {k_u}) · {v_u}, the sum over t to q that teach k")),
        line("s", format!("{scale}{q_c} · {k_c} - silu({scale}{q_c} · u)")),
    ]
}
