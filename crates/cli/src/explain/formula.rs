//! What a spec computes, as a formula: one line for each step from q, k and v to the outputs.

use regard::Spec;
use regard_ir::expr::{Op, Var};
use regard_ir::spec::Mechanism;
use regard_ir::text;
use regard_ir::variant::{Heads, Sink, Source, Weights};
use serde::Serialize;

use crate::words;

/// A name, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    /// What is defined.
    pub(super) name: &'static str,
    /// Its value, or the condition that it stands for.
    pub(super) is: String,
}

/// What stands before the formula: which heads and positions there are.
pub(super) fn context(spec: &Spec) -> String {
    let Heads { query, kv, value, .. } = spec.heads;
    let mut context = "for sequence b, query head h and query position q".to_owned();
    match query / kv {
        1 => {}
        group if kv > 1 => context.push_str(&format!("; query head h reads key head g = h // {group}")),
        _ => context.push_str("; every query head reads key head g = 0"),
    }
    match kv / value {
        1 => {}
        group => context.push_str(&format!(", whose values are those of value head v = g // {group}")),
    }
    if spec.source == Source::Cross {
        context.push_str("; keys and values are another sequence's");
    }
    if let Some(rows) = text::rows(spec.position, spec.qk_norm, &spec.inputs.names) {
        context.push_str(&format!("; {rows}"));
    }
    context
}

/// The formula of a spec of the softmax family.
pub(super) fn formula(spec: &Spec) -> Vec<Line> {
    let Heads { query, kv, value, dim, .. } = spec.heads;
    let key = if query == kv { "h" } else { "g" };
    let value = if kv == value { key } else { "v" };
    let line = |name, is| Line { name, is };

    let mut scale = words::scale(spec).to_string();
    if (spec.scale * f64::from(dim).sqrt() - 1.0).abs() < 1e-9 {
        scale = format!("1/√{dim} · ");
    } else if spec.scale == 1.0 {
        scale.clear();
    } else {
        scale.push_str(" · ");
    }
    let mut lines = vec![line("s", format!("{scale}Q[b,h,q] · K[b,{key},k]"))];
    let mut score = "s";
    if !spec.modify.tree().is_var(Var::S) {
        score = "s'";
        lines.push(line("s'", words::expression(spec.modify.tree(), spec)));
    }
    let allow = spec.allow.tree();
    let allowed = match allow.node(allow.root()).op {
        Op::Bool(true) => "every k".to_owned(),
        _ => format!("k with {}", words::expression(allow, spec)),
    };
    lines.push(line("allowed", allowed));

    let Mechanism::Weights(weights) = spec.mechanism else { return lines };
    let (weight, divisor) = match weights {
        Weights::Softmax { sink } => {
            let sink = match sink {
                Sink::None => "",
                Sink::Learned { .. } => " + exp(sink[h])",
                Sink::One => " + 1",
            };
            (format!("exp({score})"), Some(format!("(Σ exp({score}){sink})")))
        }
        Weights::Sigmoid => (format!("sigmoid({score})"), None),
        Weights::Relu => (format!("max({score}, 0)"), None),
    };
    let by = divisor.as_ref().map_or(String::new(), |divisor| format!(" / {divisor}"));
    let mut o = format!("(Σ {weight} · V[b,{value},k]){by}, sums over the allowed k; 0 where there is none");
    if let Some(output) = text::output(spec.output, &spec.inputs.names) {
        o.push_str(&format!("; {output}"));
    }
    lines.push(line("o[b,h,q]", o));
    if let Some(divisor) = divisor.filter(|_| spec.output.lse) {
        let none = if divisor.contains('+') { "" } else { "; -inf where no k is allowed" };
        lines.push(line("lse[b,h,q]", format!("ln {divisor}{none}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: &Spec) -> Vec<String> {
        formula(spec).into_iter().map(|Line { name, is }| format!("{name} = {is}")).collect()
    }

    fn parse(text: &str) -> Spec {
        regard::parse(text, "t.toml", &regard::NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec
    }

    #[test]
    fn heads_are_named_by_who_shares_them() {
        let spec = parse("heads = { query = 8, kv = 4, value = 2, dim = 64 }\nscore = { scale = 0.3 }");
        assert_eq!(
            context(&spec),
            "for sequence b, query head h and query position q; query head h reads key head g = h // 2, whose values \
             are those of value head v = g // 2"
        );
        assert_eq!(
            told(&spec),
            [
                "s = 0.3 · Q[b,h,q] · K[b,g,k]",
                "allowed = every k",
                "o[b,h,q] = (Σ exp(s) · V[b,v,k]) / (Σ exp(s)), sums over the allowed k; 0 where there is none"
            ]
        );
    }

    #[test]
    fn what_rows_become_stands_before_and_after() {
        let spec = regard::shipped("qk_norm").unwrap().spec;
        let scaled = "divided by their root mean square (eps 1e-6) and scaled by `q_norm` and `k_norm`, then turned by rope";
        assert!(context(&spec).contains(&format!("; rows of q and k are {scaled}")), "{}", context(&spec));
        let gated = told(&regard::shipped("gated").unwrap().spec);
        let end = "; rows of o are multiplied by `sigmoid(gate)`, one gate for each element";
        assert!(gated[2].starts_with("o[b,h,q] = ") && gated[2].ends_with(end), "{gated:?}");
    }

    #[test]
    fn each_kind_of_weight_has_its_sum() {
        let mut spec = regard::shipped("softcap_bias").unwrap().spec;
        let mut ends = |weights| {
            spec.mechanism = Mechanism::Weights(weights);
            told(&spec).split_off(3)
        };
        let softmax = |sink| Weights::Softmax { sink };
        assert_eq!(
            ends(softmax(Sink::Learned { input: 0 })),
            [
                "o[b,h,q] = (Σ exp(s') · V[b,g,k]) / (Σ exp(s') + exp(sink[h])), sums over the allowed k; 0 where \
                 there is none",
                "lse[b,h,q] = ln (Σ exp(s') + exp(sink[h]))"
            ]
        );
        assert!(ends(softmax(Sink::One))[0].contains("/ (Σ exp(s') + 1)"));
        let sigmoid = ends(Weights::Sigmoid);
        assert_eq!(
            sigmoid,
            ["o[b,h,q] = (Σ sigmoid(s') · V[b,g,k]), sums over the allowed k; 0 where there is none"]
        );
        assert!(ends(Weights::Relu)[0].starts_with("o[b,h,q] = (Σ max(s', 0) · V"));
        assert_eq!(ends(softmax(Sink::None))[1], "lse[b,h,q] = ln (Σ exp(s')); -inf where no k is allowed");
    }
}
