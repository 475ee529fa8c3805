//! Recurrences in words.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{expression, number};
use crate::expr::Var;
use crate::spec::{Mechanism, Spec};
use crate::variant::Decay;

/// What a state takes in and what is read of it, clause by clause; nothing of a spec without one. An expression is cut off past
/// `room` characters.
pub fn recurrence(spec: &Spec, room: usize) -> Vec<String> {
    let Mechanism::Recurrence(recurrence) = spec.mechanism else { return Vec::new() };
    let mut clauses = Vec::new();
    let names = &spec.inputs.names;
    let modify = spec.modify.tree();
    if !modify.is_var(Var::X) {
        clauses.push(format!("elements of q and k become `{}`", expression(modify, names, room)));
    }
    let heads = spec.heads;
    let decay = match recurrence.decay {
        Decay::None => "",
        Decay::Head(_) => "is multiplied by the `exp(decay)` of its head and ",
        Decay::Token(_) => "is multiplied by the `exp(decay)` of each token and ",
        Decay::Channel(_) => "has each row multiplied by the `exp(decay)` of each token and key channel and ",
    };
    let write = match recurrence.delta {
        None => "k vᵀ",
        Some(_) => "beta k (v − Sᵀk)ᵀ",
    };
    let restart = recurrence.restart.and_then(|input| names.get(usize::from(input)));
    let restart = restart.map_or(String::new(), |ids| format!(", anew where `{ids}` changes"));
    clauses.push(format!(
        "each of {} heads has a state S of {} by {} numbers, which {decay}takes in {write} of each token{restart}",
        heads.value, heads.dim, heads.value_dim
    ));
    let when = if recurrence.causal { "its own token" } else { "all tokens" };
    clauses.push(match recurrence.normalize_eps {
        Some(eps) => {
            let decayed = if recurrence.decay == Decay::None { "" } else { ", which decays as S does" };
            format!("o is Sᵀq / (q·z + {}) after {when}, z the sum of k{decayed}", number(eps))
        }
        None if spec.scale == 1.0 => format!("o is Sᵀq after {when}"),
        None => format!("o is {} * Sᵀq after {when}", number(libm::round(spec.scale * 1e6) / 1e6)),
    });
    clauses
}
