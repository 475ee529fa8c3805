//! Variants as constants.
//!
//! The names of plain enums are those that `Debug` derives.

use regard_ir::expr::{Node, Op, Tree};
use regard_ir::rows::{Frequencies, Output, OutputNorm, Position, QkNorm, RopeScaling};
use regard_ir::variant::{
    Heads, InputShape, Latent, Lookahead, Mechanism, Pseudo, Recurrence, Sink, Variant, Weights,
};

use crate::layout::list;

/// The value of `VARIANT`, its identity being a constant beside it.
pub(crate) fn constant(variant: &Variant<'_>) -> String {
    let Variant {
        identity: _,
        heads,
        source,
        position,
        qk_norm,
        scale,
        modify,
        allow,
        weights,
        mechanism,
        output,
        inputs,
    } = *variant;
    let Heads { query, kv, value, dim, value_dim } = heads;
    let fields = [
        "    identity: IDENTITY,".to_owned(),
        format!(
            "    heads: Heads {{ query: {query}, kv: {kv}, value: {value}, dim: {dim}, value_dim: {value_dim} }},"
        ),
        format!("    source: Source::{source:?},"),
        self::position(position),
        self::qk_norm(qk_norm),
        format!("    scale: {},", float(scale)),
        tree("modify", modify),
        tree("allow", allow),
        format!("    weights: {},", self::weights(weights)),
        self::mechanism(mechanism),
        self::output(output),
        self::inputs(inputs),
    ];
    format!("Variant {{\n{}\n}}", fields.join("\n"))
}

fn weights(weights: Weights) -> String {
    match weights {
        Weights::Softmax { sink: Sink::Learned { input } } => {
            format!("Weights::Softmax {{ sink: Sink::Learned {{ input: {input} }} }}")
        }
        Weights::Softmax { sink } => format!("Weights::Softmax {{ sink: Sink::{sink:?} }}"),
        Weights::Sigmoid | Weights::Relu => format!("Weights::{weights:?}"),
    }
}

fn mechanism(mechanism: Mechanism<'_>) -> String {
    match mechanism {
        Mechanism::Plain => "    mechanism: Mechanism::Plain,".to_owned(),
        Mechanism::Latent(Latent { rank, nope_dim, rope_dim, value_dim, form }) => {
            let widths =
                [("rank", rank), ("nope_dim", nope_dim), ("rope_dim", rope_dim), ("value_dim", value_dim)];
            let fields = widths.iter().map(|(name, width)| format!("{name}: {width}"));
            let fields: Vec<_> = fields.chain([format!("form: LatentForm::{form:?}")]).collect();
            list(4, "mechanism: Mechanism::Latent(Latent {", " ", &fields, "}),")
        }
        Mechanism::Pseudo(Pseudo { heads, causal_by_token, window_in_tokens, mix, collapse, form }) => {
            let fields = [
                format!("heads: {heads}"),
                format!("causal_by_token: {causal_by_token}"),
                format!("window_in_tokens: {window_in_tokens}"),
                format!("mix: {mix:?}"),
                format!("collapse: {collapse}"),
                format!("form: PseudoForm::{form:?}"),
            ];
            list(4, "mechanism: Mechanism::Pseudo(Pseudo {", " ", &fields, "}),")
        }
        Mechanism::Recurrence(Recurrence { normalize_eps, decay, delta, causal, restart }) => {
            let eps = normalize_eps.map_or("None".to_owned(), |eps| format!("Some({})", float(eps)));
            let fields = [
                format!("normalize_eps: {eps}"),
                format!("decay: Decay::{decay:?}"),
                format!("delta: {delta:?}"),
                format!("causal: {causal}"),
                format!("restart: {restart:?}"),
            ];
            list(4, "mechanism: Mechanism::Recurrence(Recurrence {", " ", &fields, "}),")
        }
        Mechanism::Lookahead(Lookahead { window, rotate, allow: _ }) => {
            let fields =
                [format!("window: {window:?}"), format!("rotate: {rotate}"), "allow: TEACHES".to_owned()];
            list(4, "mechanism: Mechanism::Lookahead(Lookahead {", " ", &fields, "}),")
        }
    }
}

fn position(position: Option<Position>) -> String {
    let Some(Position { frequencies, dim, layout, offset, ids }) = position else {
        return "    position: None,".to_owned();
    };
    let fields = [
        format!("frequencies: {}", self::frequencies(frequencies)),
        format!("dim: {dim}"),
        format!("layout: RopeLayout::{layout:?}"),
        format!("offset: {offset}"),
        format!("ids: {ids:?}"),
    ];
    list(4, "position: Some(Position {", " ", &fields, "}),")
}

fn frequencies(frequencies: Frequencies) -> String {
    match frequencies {
        Frequencies::Input(input) => format!("Frequencies::Input({input})"),
        Frequencies::Theta { theta, scaling } => {
            let fields = [format!("theta: {}", float(theta)), self::scaling(scaling)];
            item(&list(8, "frequencies: Frequencies::Theta {", " ", &fields, "},"))
                .trim_start_matches("frequencies: ")
                .to_owned()
        }
    }
}

/// The field of that name, as an item of a list of two more levels than a field of the variant.
fn scaling(scaling: RopeScaling) -> String {
    let (kind, fields) = match scaling {
        RopeScaling::None => return "scaling: RopeScaling::None".to_owned(),
        RopeScaling::Linear { factor } => ("Linear", vec![format!("factor: {}", float(factor))]),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => (
            "Llama3",
            vec![
                format!("factor: {}", float(factor)),
                format!("low_freq_factor: {}", float(low_freq_factor)),
                format!("high_freq_factor: {}", float(high_freq_factor)),
                format!("original_max_position_embeddings: {original_max_position_embeddings}"),
            ],
        ),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_position_embeddings,
            truncate,
        } => (
            "Yarn",
            vec![
                format!("factor: {}", float(factor)),
                format!("beta_fast: {}", float(beta_fast)),
                format!("beta_slow: {}", float(beta_slow)),
                format!("attention_factor: {}", float(attention_factor)),
                format!("original_max_position_embeddings: {original_max_position_embeddings}"),
                format!("truncate: {truncate}"),
            ],
        ),
    };
    item(&list(12, &format!("scaling: RopeScaling::{kind} {{"), " ", &fields, "},"))
}

fn qk_norm(norm: Option<QkNorm>) -> String {
    let Some(QkNorm { kind, eps, learned, all_heads, after_rope }) = norm else {
        return "    qk_norm: None,".to_owned();
    };
    let fields = [
        format!("kind: NormKind::{kind:?}"),
        format!("eps: {}", float(eps)),
        format!("learned: {learned:?}"),
        format!("all_heads: {all_heads}"),
        format!("after_rope: {after_rope}"),
    ];
    list(4, "qk_norm: Some(QkNorm {", " ", &fields, "}),")
}

fn output(output: Output) -> String {
    let Output { mix, norm, gate, lse } = output;
    let norm = match norm {
        None => "None".to_owned(),
        Some(OutputNorm { eps, learned }) => {
            format!("Some(OutputNorm {{ eps: {}, learned: {learned:?} }})", float(eps))
        }
    };
    let fields =
        [format!("mix: {mix:?}"), format!("norm: {norm}"), format!("gate: {gate:?}"), format!("lse: {lse}")];
    list(4, "output: Output {", " ", &fields, "},")
}

fn inputs(shapes: &[InputShape]) -> String {
    let arguments = |shape: &InputShape| {
        let axes: Vec<_> = shape.axes().iter().map(|axis| format!("Axis::{axis:?}")).collect();
        [format!("InputType::{:?}", shape.dtype), format!("&[{}]", axes.join(", "))]
    };
    if let [only] = shapes {
        return list(4, "inputs: &[InputShape::new(", "", &arguments(only), ")],");
    }
    let shapes: Vec<_> = shapes
        .iter()
        .map(|shape| list(8, "InputShape::new(", "", &arguments(shape), "),"))
        .map(|text| item(&text))
        .collect();
    list(4, "inputs: &[", "", &shapes, "],")
}

/// An expression as a constant of its own.
pub(crate) fn tree_constant(name: &str, tree: Tree<'_>) -> String {
    let nodes: Vec<_> = tree.nodes().iter().map(node).collect();
    list(0, &format!("const {name}: Tree<'static> = Tree::new(&["), "", &nodes, "]);")
}

fn tree(field: &str, tree: Tree<'_>) -> String {
    let nodes: Vec<_> = tree.nodes().iter().map(node).collect();
    list(4, &format!("{field}: Tree::new(&["), "", &nodes, "]),")
}

/// A node, as an item of a list of one more level than a field of the variant.
fn node(node: &Node) -> String {
    let Node { op, ty, exact } = *node;
    let fields = [format!("op: {}", self::op(&op)), format!("ty: Type::{ty:?}"), format!("exact: {exact}")];
    item(&list(8, "Node {", " ", &fields, "},"))
}

/// An item of a list without its margin and its comma, which the list adds.
fn item(text: &str) -> String {
    text.trim_start().trim_end_matches(',').to_owned()
}

fn op(op: &Op) -> String {
    match *op {
        Op::Bool(x) => format!("Op::Bool({x})"),
        Op::Int(x) => format!("Op::Int({x})"),
        Op::Float(x) => format!("Op::Float({})", float(x)),
        Op::Var(var) => format!("Op::Var(Var::{var:?})"),
        Op::Unary(op, a) => format!("Op::Unary(Unary::{op:?}, {a})"),
        Op::Binary(op, a, b) => format!("Op::Binary(Binary::{op:?}, {a}, {b})"),
        Op::Select(c, a, b) => format!("Op::Select({c}, {a}, {b})"),
        Op::Alibi { head, heads } => format!("Op::Alibi {{ head: {head}, heads: {heads} }}"),
        Op::Input { input, rank, index } => {
            format!("Op::Input {{ input: {input}, rank: {rank}, index: {index:?} }}")
        }
    }
}

/// A literal that parses to the same bits; of NaN there is one.
fn float(x: f64) -> String {
    match x {
        _ if x.is_nan() => "f64::NAN".to_owned(),
        f64::INFINITY => "f64::INFINITY".to_owned(),
        f64::NEG_INFINITY => "f64::NEG_INFINITY".to_owned(),
        _ => format!("{x:?}"),
    }
}
