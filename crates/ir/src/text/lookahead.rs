//! Lookahead keys in words.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{expression, number};
use crate::spec::{Lookahead, Mechanism, Spec};
use crate::variant::Turned;

/// The names of the tensors that rope turns; none where there is no rope.
pub(super) fn turned(spec: &Spec, lookahead: &Lookahead) -> Vec<&'static str> {
    let turned = Turned::ALL.into_iter().filter(|tensor| lookahead.rotate & tensor.bit() != 0);
    turned.filter(|_| spec.position.is_some()).map(Turned::name).collect()
}

/// What keys learn from later tokens, if anything; an expression is cut off past `room` characters.
pub fn lookahead(spec: &Spec, room: usize) -> Option<String> {
    let Mechanism::Lookahead(lookahead) = &spec.mechanism else { return None };
    let allow = expression(lookahead.allow.tree(), &spec.inputs.names, room);
    let scale = factor(spec);
    Some(format!(
        "a key learns u, the sum of sigmoid({scale} * dot(q_u, k_u)) * v_u over the tokens `q` so far with `{allow}`"
    ))
}

/// What a score is before it is modified.
pub fn score(spec: &Spec) -> String {
    let scale = factor(spec);
    match spec.mechanism {
        Mechanism::Lookahead(_) => format!("s = {scale} * dot(q_c, k_c) - silu({scale} * dot(q_c, u))"),
        _ => format!("s = {scale} * dot(q, k)"),
    }
}

/// The factor of every product, to six decimals.
fn factor(spec: &Spec) -> String {
    number(libm::round(spec.scale * 1e6) / 1e6)
}
