//! The formula of a recurrence: what a token does to a state, and what its query reads.

use regard::Spec;
use regard_ir::expr::Var;
use regard_ir::variant::{Decay, Heads, Recurrence};

use super::Line;
use crate::words;

/// What stands before the formula.
pub(super) fn context(spec: &Spec) -> String {
    let Heads { query, value, .. } = spec.heads;
    let group = value / query;
    let reads = match group {
        1 => String::new(),
        _ => format!("; value head v reads queries and keys of head h = v // {group}"),
    };
    let rows = if spec.variant().pairs_queries() { "q and k are token t" } else { "k is token t, q a query" };
    format!("for sequence b, value head v and token t, from a state S that is zero or given; {rows}{reads}")
}

/// The lines from the rows of a token to its output; `scale` ends in a dot, or is empty.
pub(super) fn lines(
    spec: &Spec,
    recurrence: &Recurrence,
    [q, k]: [String; 2],
    scale: &str,
    o: &'static str,
) -> Vec<Line> {
    let line = |name, is| Line { name, is };
    let mut lines = Vec::new();
    let modify = spec.modify.tree();
    let (mut q, mut k) = (q, k);
    if modify.is_var(Var::X) {
        lines.extend([line("q'", q), line("k'", k)]);
    } else {
        lines.push(line("φ(x)", words::expression(modify, spec)));
        (q, k) = (format!("φ({q})"), format!("φ({k})"));
        lines.extend([line("q'", q), line("k'", k)]);
    }
    let restart = recurrence.restart.map(|input| &spec.inputs.names[usize::from(input)]);
    if let Some(ids) = restart {
        lines.push(line("S, z", format!("0 where {ids}[b,t] is not {ids}[b,t - 1]")));
    }
    let decay = match recurrence.decay {
        Decay::None => "",
        Decay::Head(_) => "exp(decay[v]) · ",
        Decay::Token(_) => "exp(decay[b,v,t]) · ",
        Decay::Channel(_) => "diag(exp(decay[b,v,t])) · ",
    };
    let value = "V[b,v,t]";
    let sum = if recurrence.causal { "" } else { ", for every t before any is read" };
    lines.push(match recurrence.delta {
        None => line("S", format!("{decay}S + k' · {value}ᵀ{sum}")),
        Some(_) => line("S", format!("S' + beta[b,v,t] · k' · ({value} - S'ᵀ · k')ᵀ, S' = {decay}S")),
    });
    if let Some(eps) = recurrence.normalize_eps {
        lines.push(line("z", format!("{decay}z + k'{sum}")));
        lines.push(line(o, format!("Sᵀ · q' / (q' · z + {eps})")));
    } else {
        lines.push(line(o, format!("{scale}Sᵀ · q'")));
    }
    lines
}
