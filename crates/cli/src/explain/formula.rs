//! What a spec computes, as a formula: one line for each step from q, k and v to the outputs.

mod lookahead;
mod recurrence;

use regard::Spec;
use regard_ir::expr::{Op, Var};
use regard_ir::rows::{Frequencies, Gate, Mix, NormKind, OutputNorm, Position, QkNorm, RopeLayout};
use regard_ir::spec::Mechanism;
use regard_ir::text;
use regard_ir::variant::{Heads, Pseudo, Sink, Source, Weights};
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
    if let Mechanism::Recurrence(_) = spec.mechanism {
        return recurrence::context(spec);
    }
    let Heads { query, kv, value, .. } = scored(spec);
    let mut context = "for sequence b, query head h and query position q".to_owned();
    if let Mechanism::Latent(_) = spec.mechanism {
        context.push_str("; all heads read one latent of each token");
        return context;
    }
    match query / kv {
        1 => {}
        group if kv > 1 => context.push_str(&format!("; query head h reads key head g = h // {group}")),
        _ => context.push_str("; every query head reads key head g = 0"),
    }
    match kv / value {
        1 => {}
        group => context.push_str(&format!(", whose values are those of value head v = g // {group}")),
    }
    if let Mechanism::Pseudo(pseudo) = spec.mechanism {
        context.push_str(&format!(
            "; q and k are virtual tokens, {} to a token: n = q // {0}, p = q % {0}",
            pseudo.heads
        ));
    }
    if spec.source == Source::Cross {
        context.push_str("; keys and values are another sequence's");
    }
    context
}

/// The heads that scores have.
fn scored(spec: &Spec) -> Heads {
    spec.variant().scored().heads
}

/// The formula of a spec of the softmax family.
pub(super) fn formula(spec: &Spec) -> Vec<Line> {
    let Heads { query, kv, value, dim, .. } = scored(spec);
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
    let mut lines = definitions(spec);
    lines.extend(pseudo_heads(spec));
    let [q, k] = rows(spec, key);
    let finished = finished(spec);
    if let Mechanism::Recurrence(recurrence) = &spec.mechanism {
        let sum = if finished.is_some() { "a[b,v,t]" } else { "o[b,v,t]" };
        lines.extend(recurrence::lines(spec, recurrence, [q, k], &scale, sum));
        lines.extend(finished.map(|is| line("o[b,v,t]", is)));
        return lines;
    }
    let mut v = format!("V[b,{value},k]");
    if let Mechanism::Latent(_) = spec.mechanism {
        v = "W_uv[h] · C_kv[b,k]".to_owned();
        lines.extend([
            line("q'", format!("[Q_nope[b,h,q], {q}]")),
            line("k'", format!("[W_uk[h] · C_kv[b,k], {k}]")),
            line("s", format!("{scale}q' · k'")),
        ]);
    } else if let Mechanism::Lookahead(lookahead) = &spec.mechanism {
        v = "v_c[b,h,k]".to_owned();
        lines.extend(lookahead::lines(spec, lookahead, &scale));
    } else if spec.position.is_some() || spec.qk_norm.is_some() {
        lines.extend([line("q'", q), line("k'", k), line("s", format!("{scale}q' · k'"))]);
    } else {
        lines.push(line("s", format!("{scale}{q} · {k}")));
    }
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

    let (weight, divisor) = match spec.weights {
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
    let o = format!("(Σ {weight} · {v}){by}, sums over the allowed k; 0 where there is none");
    lines.push(line(if finished.is_some() { "a[b,h,q]" } else { "o[b,h,q]" }, o));
    if let Some(is) = finished {
        let name = match spec.mechanism {
            Mechanism::Pseudo(_) => "o[b,h,n]",
            _ if spec.output.mix.is_some() => "o[b,n,q]",
            _ => "o[b,h,q]",
        };
        lines.push(line(name, is));
    }
    if let Some(divisor) = divisor.filter(|_| spec.output.lse) {
        let none = if divisor.contains('+') { "" } else { "; -inf where no k is allowed" };
        lines.push(line("lse[b,h,q]", format!("ln {divisor}{none}")));
    }
    lines
}

/// The rows of virtual tokens, where heads are mixed into pseudo-heads.
fn pseudo_heads(spec: &Spec) -> Vec<Line> {
    let Mechanism::Pseudo(Pseudo { heads, mix, .. }) = spec.mechanism else { return Vec::new() };
    let tensors = [("Q[b,h,q]", "q", "q"), ("K[b,h,k]", "k", "k"), ("V[b,h,k]", "v", "k")];
    let rows = tensors.into_iter().zip(mix).map(|((name, tensor, at), input)| {
        let factors = &spec.inputs.names[usize::from(input)];
        let is = format!("Σ over heads m: {factors}[m, h, {at} % {heads}] · {tensor}[b, m, {at} // {heads}]");
        Line { name, is }
    });
    rows.collect()
}

/// The functions that the formula uses and that are not everyone's.
fn definitions(spec: &Spec) -> Vec<Line> {
    let line = |name, is| Line { name, is };
    let norms = [spec.qk_norm.map(|norm| norm.kind), spec.output.norm.map(|_| NormKind::Rms)];
    let mut lines = Vec::new();
    if norms.contains(&Some(NormKind::Rms)) {
        lines.push(line("rms(x, ε)", "x / √(mean(x²) + ε)".to_owned()));
    }
    if norms.contains(&Some(NormKind::L2)) {
        lines.push(line("l2(x, ε)", "x / √(Σ x² + ε)".to_owned()));
    }
    let Some(Position { frequencies, dim, layout, offset, .. }) = spec.position else { return lines };
    let half = dim / 2;
    let channel = |times: &str, plus: u32| match offset + plus {
        0 => format!("x[{times}t]"),
        from => format!("x[{times}t + {from}]"),
    };
    let pair = match layout {
        RopeLayout::Half => [channel("", 0), channel("", half)],
        RopeLayout::Interleaved => [channel("2", 0), channel("2", 1)],
    };
    let factor = spec.position.map_or(1.0, |position| position.factor());
    let times = if factor == 1.0 { String::new() } else { format!(", times {}", text::number(factor)) };
    let turned = format!(
        "x with each pair {}, {} turned by p · θ[t]{times}; t from 0 to {}",
        pair[0],
        pair[1],
        half - 1
    );
    lines.push(line("rope(x, p)", turned));
    let theta = match frequencies {
        Frequencies::Input(input) => format!("{}[t]", spec.inputs.names[usize::from(input)]),
        Frequencies::Theta { theta, scaling } => {
            format!("{}^(-2t/{dim}){}", text::number(theta), text::scaling(scaling))
        }
    };
    lines.push(line("θ[t]", theta));
    lines
}

/// The rows whose dot product is the score.
fn rows(spec: &Spec, key: &str) -> [String; 2] {
    let sides = match spec.mechanism {
        Mechanism::Latent(_) => [("Q_rope", "h", "q", 0), ("K_rope", "", "k", 1)],
        _ => [("Q", "h", "q", 0), ("K", key, "k", 1)],
    };
    sides.map(|(tensor, head, token, side)| {
        let turn = |x: String| match spec.position {
            None => x,
            Some(Position { ids, .. }) => {
                let read = side == 1 || spec.source == Source::SelfAttention;
                let at = ids.filter(|_| read).map_or(token.to_owned(), |input| {
                    format!("{}[b,{token}]", spec.inputs.names[usize::from(input)])
                });
                format!("rope({x}, {at})")
            }
        };
        let of_head = if head.is_empty() { String::new() } else { format!("{head},") };
        let row = format!("{tensor}[b,{of_head}{token}]");
        let Some(QkNorm { kind, eps, learned, all_heads, after_rope }) = spec.qk_norm else {
            return turn(row);
        };
        let function = match kind {
            NormKind::Rms => "rms",
            NormKind::L2 => "l2",
        };
        let factor = learned.map_or(String::new(), |inputs| {
            let channels = if all_heads { format!("[{head}]") } else { String::new() };
            format!(" · {}{channels}", spec.inputs.names[usize::from(inputs[side])])
        });
        let norm = |x: String| {
            let eps = text::number(eps);
            if all_heads {
                format!("{function}(all heads of {x}, {eps})[{head}]{factor}")
            } else {
                format!("{function}({x}, {eps}){factor}")
            }
        };
        if after_rope { norm(turn(row)) } else { turn(norm(row)) }
    })
}

/// What is made of the weighted sums `a`; `None` where they are the outputs.
fn finished(spec: &Spec) -> Option<String> {
    let names = &spec.inputs.names;
    let output = &spec.output;
    let pseudo = match spec.mechanism {
        Mechanism::Pseudo(pseudo) => Some(pseudo),
        _ => None,
    };
    if output.mix.is_none() && output.norm.is_none() && output.gate.is_none() && pseudo.is_none() {
        return None;
    }
    let at = if pseudo.is_some() { "n" } else { "q" };
    let (mut is, head) = match (pseudo, output.mix) {
        (Some(Pseudo { heads, collapse, .. }), _) => {
            let factors = &names[usize::from(collapse)];
            let sum = format!("(Σ over h', p: {factors}[h, {heads}h' + p] · a[b,h',{heads}n + p])");
            (sum, "h")
        }
        (None, None) => ("a[b,h,q]".to_owned(), "h"),
        (None, Some(Mix { input, .. })) => {
            (format!("(Σ over h: {}[n,h] · a[b,h,q])", names[usize::from(input)]), "n")
        }
    };
    if let Some(OutputNorm { eps, learned }) = output.norm {
        let factor = learned.map_or(String::new(), |input| format!(" · {}", names[usize::from(input)]));
        is = format!("rms({is}, {}){factor}", text::number(eps));
    }
    if let Some(Gate { silu, .. }) = output.gate {
        let activation = if silu { "silu" } else { "sigmoid" };
        is = format!("{is} · {activation}(gate[b,{head},{at}])");
    }
    Some(is)
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
    fn each_kind_of_weight_has_its_sum() {
        let mut spec = regard::shipped("softcap_bias").unwrap().spec;
        let mut ends = |weights| {
            spec.weights = weights;
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
    #[test]
    fn rows_are_told_in_the_order_of_their_changes() {
        let first = |text: &str| {
            let lines = told(&parse(&format!("heads = {{ query = 4, kv = 2, dim = 16 }}\n{text}")));
            lines.into_iter().take_while(|line| !line.starts_with("allowed")).collect::<Vec<_>>()
        };
        assert_eq!(
            first("position.rope = { theta = 1e4 }\nqk_norm = { kind = 'rms', learned = true }"),
            [
                "rms(x, ε) = x / √(mean(x²) + ε)",
                "rope(x, p) = x with each pair x[t], x[t + 8] turned by p · θ[t]; t from 0 to 7",
                "θ[t] = 10000^(-2t/16)",
                "q' = rope(rms(Q[b,h,q], 1e-6) · q_norm, q)",
                "k' = rope(rms(K[b,g,k], 1e-6) · k_norm, k)",
                "s = 1/√16 · q' · k'",
            ]
        );
        assert_eq!(
            first(
                "inputs = { at = 'i32[b, k]', f = 'f32[4]' }\nqk_norm = { kind = 'l2', axis = 'all', after_rope = true }\n\
                 position = { rope = { freqs = 'f', dim = 8, offset = 4, layout = 'interleaved' }, ids = 'at' }"
            ),
            [
                "l2(x, ε) = x / √(Σ x² + ε)",
                "rope(x, p) = x with each pair x[2t + 4], x[2t + 5] turned by p · θ[t]; t from 0 to 3",
                "θ[t] = f[t]",
                "q' = l2(all heads of rope(Q[b,h,q], at[b,q]), 1e-6)[h]",
                "k' = l2(all heads of rope(K[b,g,k], at[b,k]), 1e-6)[g]",
                "s = 1/√16 · q' · k'",
            ]
        );
    }

    #[test]
    fn pseudo_heads_are_mixed_first_and_collapsed_last() {
        let spec = parse(
            "heads = { query = 4, kv = 2, dim = 16 }\npseudo.heads = 3\nmask = 'causal'\noutput.gate = 'head'\n\
             position.rope = { theta = 1e4 }",
        );
        assert_eq!(
            context(&spec),
            "for sequence b, query head h and query position q; q and k are virtual tokens, 3 to a token: n = q // 3, \
             p = q % 3"
        );
        assert_eq!(
            told(&spec)[2..],
            [
                "Q[b,h,q] = Σ over heads m: mix_q[m, h, q % 3] · q[b, m, q // 3]",
                "K[b,h,k] = Σ over heads m: mix_k[m, h, k % 3] · k[b, m, k // 3]",
                "V[b,h,k] = Σ over heads m: mix_v[m, h, k % 3] · v[b, m, k // 3]",
                "q' = rope(Q[b,h,q], q)",
                "k' = rope(K[b,h,k], k)",
                "s = 1/√16 · q' · k'",
                "allowed = k with k <= q",
                "a[b,h,q] = (Σ exp(s) · V[b,h,k]) / (Σ exp(s)), sums over the allowed k; 0 where there is none",
                "o[b,h,n] = (Σ over h', p: collapse[h, 3h' + p] · a[b,h',3n + p]) · sigmoid(gate[b,h,n])",
            ]
        );
    }

    #[test]
    fn lookahead_keys_are_told_before_the_score() {
        let spec = parse(
            "heads = { query = 4, dim = 16 }\nposition.rope.theta = 1e4\nmask = 'window(99)'\n\
             lookahead = { window = 8, rotate = ['q_c', 'k_c', 'v_u'] }",
        );
        assert_eq!(
            told(&spec)[2..],
            [
                "t teaches k = k < q & q - k <= 8, with t in place of q",
                "u = Σ sigmoid(1/√16 · q_u[b,h,k] · k_u[b,h,t]) · rope(v_u[b,h,t], t), the sum over t to q that teach k",
                "s = 1/√16 · rope(q_c[b,h,q], q) · rope(k_c[b,h,k], k) - silu(1/√16 · rope(q_c[b,h,q], q) · u)",
                "allowed = k with k <= q & abs(q - k) < 99",
                "o[b,h,q] = (Σ exp(s) · v_c[b,h,k]) / (Σ exp(s)), sums over the allowed k; 0 where there is none"
            ]
        );
    }

    #[test]
    fn outputs_are_mixed_then_normed_then_gated() {
        let last = |output: &str| {
            told(&parse(&format!("heads = {{ query = 4, dim = 16 }}\noutput = {{ {output} }}")))
                .pop()
                .unwrap()
        };
        assert_eq!(
            last("mix = 2, norm = 'rms', gate = 'head', gate_act = 'silu'"),
            "o[b,n,q] = rms((Σ over h: mix[n,h] · a[b,h,q]), 1e-6) · o_norm · silu(gate[b,n,q])"
        );
        assert_eq!(last("gate = 'elementwise'"), "o[b,h,q] = a[b,h,q] · sigmoid(gate[b,h,q])");
    }
}
