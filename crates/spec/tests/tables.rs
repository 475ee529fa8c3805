//! What the tables of positions, norms, weights, outputs and caches resolve to.

use std::collections::BTreeMap;

use regard_ir::expr::{Binary, Op, Unary};
use regard_ir::identity::Identity;
use regard_ir::plan::Dtype;
use regard_ir::rows::{
    Frequencies, Gate, Mix, NormKind, Output, OutputNorm, Position, QkNorm, RopeLayout, RopeScaling,
};
use regard_ir::spec::{Cache, CacheFormat, CacheLayout, Lookahead, Mechanism, Spec};
use regard_ir::text;
use regard_ir::variant::{Heads, Pseudo, PseudoForm, Sink, Turned, Weights};
use regard_spec::{LoadError, Loader, NoFiles, parse};

/// 8 query heads over 4, 64 wide, and these lines.
fn spec(lines: &str) -> Spec {
    let text = format!("heads = {{ query = 8, kv = 4, dim = 64, value_dim = 32 }}\n{lines}\n");
    parse(&text, "test.toml", &NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec
}

/// Names and declarations of a spec's inputs.
fn inputs(spec: &Spec) -> Vec<(&str, String)> {
    let names = spec.inputs.names.iter().map(String::as_str);
    names.zip(spec.inputs.shapes.iter().map(text::declaration)).collect()
}

fn learned<const N: usize>(expected: [(&'static str, &str); N]) -> Vec<(&'static str, String)> {
    expected.map(|(name, shape)| (name, shape.to_string())).into()
}

fn scaling(fields: &str) -> RopeScaling {
    let found =
        spec(&format!("position = {{ rope = {{ theta = 10000 }}, scaling = {{ {fields} }} }}")).position;
    match found.unwrap().frequencies {
        Frequencies::Theta { theta: 10000.0, scaling } => scaling,
        other => panic!("{other:?}"),
    }
}

#[test]
fn absent_tables_are_plain_softmax_attention() {
    let plain = spec("");
    assert_eq!((plain.position, plain.qk_norm, plain.output), (None, None, Output::default()));
    assert_eq!(plain.weights, Weights::Softmax { sink: Sink::None });
    assert_eq!(inputs(&plain), []);
    for same in [
        "weights = 'softmax'",
        "weights = { kind = 'softmax', sink = 'none' }",
        "weights = {}",
        "output = { mix = 'none', norm = 'none', gate = 'none', lse = false }",
        "cache = {}",
        "cache = 'contiguous'",
        "cache = { layout = 'contiguous', k = 'same', v = 'same', file = false }",
        "cache = { dtype = 'same' }",
    ] {
        assert_eq!(spec(same), plain, "{same}");
    }
}

#[test]
fn rope_turns_the_whole_head_in_halves_unless_told_otherwise() {
    let theta = Frequencies::Theta { theta: 500000.0, scaling: RopeScaling::None };
    let plain = Position { frequencies: theta, dim: 64, layout: RopeLayout::Half, offset: 0, ids: None };
    assert_eq!(spec("position = { rope = { theta = 500_000 } }").position, Some(plain));
    assert_eq!(spec("position.rope = { theta = 5e5, layout = 'half', offset = 0 }").position, Some(plain));
    let found = spec(
        "inputs = { doc = 'i32[b, k]', at = 'i32[b, k]' }\n\
         [position]\nids = 'at'\nrope = { theta = 0.5, dim = 16, offset = 48, layout = 'interleaved' }",
    );
    let expected = Position {
        frequencies: Frequencies::Theta { theta: 0.5, scaling: RopeScaling::None },
        dim: 16,
        layout: RopeLayout::Interleaved,
        offset: 48,
        ids: Some(1),
    };
    assert_eq!(found.position, Some(expected));
    assert_eq!(inputs(&found), learned([("doc", "i32[b, k]"), ("at", "i32[b, k]")]));
}

#[test]
fn frequencies_may_be_an_input() {
    let found = spec("inputs = { len = 'i32[b]', f = 'f32[12]' }\nposition.rope = { freqs = 'f', dim = 24 }")
        .position;
    let expected = Position {
        frequencies: Frequencies::Input(1),
        dim: 24,
        layout: RopeLayout::Half,
        offset: 0,
        ids: None,
    };
    assert_eq!(found, Some(expected));
}

#[test]
fn scalings_have_the_defaults_of_model_configs() {
    assert_eq!(scaling("kind = 'linear', factor = 4"), RopeScaling::Linear { factor: 4.0 });
    let llama3 = "kind = 'llama3', factor = 8.0, low_freq_factor = 1.0, high_freq_factor = 4.0, \
                  original_max_position_embeddings = 8192";
    assert_eq!(
        scaling(llama3),
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }
    );
    let yarn = |attention_factor| RopeScaling::Yarn {
        factor: 32.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor,
        original_max_position_embeddings: 4096,
        truncate: true,
    };
    let given = "kind = 'yarn', factor = 32, original_max_position_embeddings = 4096";
    // 0.1 ln 32 + 1, as gpt-oss has it; DeepSeek's configs give both scales alike.
    assert_eq!(scaling(given), yarn(1.3465735902799727));
    assert_eq!(scaling(&format!("{given}, mscale = 0.707, mscale_all_dim = 0.707")), yarn(1.0));
    let RopeScaling::Yarn { attention_factor, .. } =
        scaling(&format!("{given}, mscale = 2, mscale_all_dim = 1"))
    else {
        panic!("yarn is yarn")
    };
    assert!((attention_factor - 1.6931471805599454 / 1.3465735902799727).abs() < 1e-15);
    assert_eq!(
        scaling(&format!("{given}, attention_factor = 1.5, beta_fast = 16, beta_slow = 2, truncate = false")),
        RopeScaling::Yarn {
            factor: 32.0,
            beta_fast: 16.0,
            beta_slow: 2.0,
            attention_factor: 1.5,
            original_max_position_embeddings: 4096,
            truncate: false,
        }
    );
    assert_eq!(
        scaling("kind = 'yarn', factor = 1, original_max_position_embeddings = 4096, beta_fast = 1"),
        RopeScaling::Yarn {
            factor: 1.0,
            beta_fast: 1.0,
            beta_slow: 1.0,
            attention_factor: 1.0,
            original_max_position_embeddings: 4096,
            truncate: true,
        }
    );
}

#[test]
fn rows_of_q_and_k_are_normalised_by_head_or_all_together() {
    let plain = QkNorm { kind: NormKind::L2, eps: 1e-6, learned: None, all_heads: false, after_rope: false };
    for short in ["qk_norm = 'l2'", "qk_norm = { kind = 'l2' }", "qk_norm = { kind = 'l2', axis = 'head' }"] {
        assert_eq!(spec(short).qk_norm, Some(plain), "{short}");
    }
    let by_head = spec("inputs = { a = 'f32[]' }\nqk_norm = { kind = 'rms', learned = true, eps = 0 }");
    let expected =
        QkNorm { kind: NormKind::Rms, eps: 0.0, learned: Some([1, 2]), all_heads: false, after_rope: false };
    assert_eq!(by_head.qk_norm, Some(expected));
    assert_eq!(inputs(&by_head), learned([("a", "f32[]"), ("q_norm", "f32[64]"), ("k_norm", "f32[64]")]));
    let all = spec(
        "position.rope.theta = 1e4\nqk_norm = { kind = 'rms', learned = true, axis = 'all', after_rope = true }",
    );
    let expected =
        QkNorm { kind: NormKind::Rms, eps: 1e-6, learned: Some([0, 1]), all_heads: true, after_rope: true };
    assert_eq!(all.qk_norm, Some(expected));
    assert_eq!(inputs(&all), learned([("q_norm", "f32[512]"), ("k_norm", "f32[256]")]));
}

#[test]
fn weights_and_their_bias() {
    let bias = |weights: &str| {
        text::expression(
            spec(&format!(
                "inputs = {{ slope = 'f32[h]' }}\nweights = {{ {weights} }}\nscore.modify = '2 * s'"
            ))
            .modify
            .tree(),
            &["slope".to_string()],
            100,
        )
    };
    assert_eq!(spec("weights = 'sigmoid'").weights, Weights::Sigmoid);
    assert_eq!(spec("weights = { kind = 'relu', bias = 0 }").weights, Weights::Relu);
    assert_eq!(bias("kind = 'sigmoid'"), "2 * s");
    assert_eq!(bias("kind = 'sigmoid', bias = 0.0"), "2 * s");
    assert_eq!(bias("kind = 'sigmoid', bias = -9"), "2 * s + -9");
    assert_eq!(bias("kind = 'relu', bias = '-log(nk) * slope[h]'"), "2 * s + -log(nk) * slope[h]");
    // The number, and the expression that is that number, are one variant.
    let identity = |bias: &str| spec(&format!("weights = {{ kind = 'relu', bias = {bias} }}")).identity;
    assert_eq!(identity("-9"), identity("'-9'"));
    assert_eq!(identity("-9"), { spec("weights = 'relu'\nscore = { modify = 's + -9' }").identity });
}

#[test]
fn a_bias_shares_nodes_with_the_modifier() {
    let found = spec("weights = { kind = 'relu', bias = 'log(nk)' }\nscore = { modify = 's * log(nk)' }");
    let logs = found.modify.tree().nodes().iter();
    assert_eq!(logs.filter(|node| matches!(node.op, Op::Unary(Unary::Log, _))).count(), 1);
    let root = found.modify.tree().node(found.modify.tree().root());
    assert!(matches!(root.op, Op::Binary(Binary::Add, ..)));
}

#[test]
fn terms_that_grow_are_noted_where_the_weights_would_not_change() {
    let notes = |weights: &str| {
        let text = format!(
            "heads = {{ query = 8, dim = 64 }}\nscore.modify = 's + k / 8'\nweights = {{ {weights} }}"
        );
        parse(&text, "t.toml", &NoFiles).unwrap().notes.len()
    };
    assert_eq!(notes("kind = 'softmax'"), 1);
    for weights in ["sink = 'one'", "sink = 'learned'", "kind = 'relu'", "kind = 'sigmoid', bias = 'k / 8'"] {
        assert_eq!(notes(weights), 0, "{weights}");
    }
}

#[test]
fn sinks_are_nothing_one_or_learned() {
    assert_eq!(spec("weights = { sink = 'one' }").weights, Weights::Softmax { sink: Sink::One });
    let found = spec("inputs = { a = 'f32[]' }\nweights = { sink = 'learned' }");
    assert_eq!(found.weights, Weights::Softmax { sink: Sink::Learned { input: 1 } });
    assert_eq!(inputs(&found), learned([("a", "f32[]"), ("sink", "f32[h]")]));
}

#[test]
fn outputs_are_mixed_normalised_and_gated() {
    let none = Output::default();
    let found = spec("output = { mix = 'learned' }");
    assert_eq!(found.output, Output { mix: Some(Mix { heads: 8, input: 0 }), ..none });
    assert_eq!(inputs(&found), learned([("mix", "f32[8, 8]")]));
    let found = spec("output = { mix = 3, norm = 'rms' }");
    let norm = OutputNorm { eps: 1e-6, learned: Some(1) };
    assert_eq!(found.output, Output { mix: Some(Mix { heads: 3, input: 0 }), norm: Some(norm), ..none });
    assert_eq!(inputs(&found), learned([("mix", "f32[3, 8]"), ("o_norm", "f32[32]")]));
    assert_eq!(found.variant().output_heads(), 3);
    let found = spec("output = { norm = 'rms', norm_eps = 1e-5, norm_learned = false }");
    assert_eq!(found.output, Output { norm: Some(OutputNorm { eps: 1e-5, learned: None }), ..none });
    for (gate, per_head, silu) in [
        ("gate = 'elementwise'", false, false),
        ("gate = 'head'", true, false),
        ("gate = 'elementwise', gate_act = 'silu'", false, true),
        ("gate = 'head', gate_act = 'sigmoid'", true, false),
    ] {
        let found = spec(&format!("output = {{ {gate} }}"));
        assert_eq!(found.output, Output { gate: Some(Gate { per_head, silu }), ..none }, "{gate}");
        assert_eq!(inputs(&found), [], "the call gives the gate");
    }
}

#[test]
fn caches_have_a_layout_and_formats() {
    let cache = |lines: &str| spec(lines).cache;
    let ring = Cache { layout: CacheLayout::Ring, ..Cache::DEFAULT };
    assert_eq!(cache("cache = 'ring'"), ring);
    assert_eq!(cache("source = 'cross'\ncache = { layout = 'ring' }"), ring);
    for page in [None, Some(16), Some(48), Some(1024)] {
        let given = page.map_or(String::new(), |page| format!(", page = {page}"));
        let expected = Cache { layout: CacheLayout::Paged, page, ..Cache::DEFAULT };
        assert_eq!(cache(&format!("cache = {{ layout = 'paged'{given} }}")), expected);
    }
    for (name, format) in [
        ("same", CacheFormat::Same),
        ("f32", CacheFormat::Dtype(Dtype::F32)),
        ("f16", CacheFormat::Dtype(Dtype::F16)),
        ("bf16", CacheFormat::Dtype(Dtype::Bf16)),
        ("int8", CacheFormat::Int8),
        ("int4", CacheFormat::Int4),
    ] {
        let plain = Cache::DEFAULT;
        assert_eq!(cache(&format!("cache.k = '{name}'")), Cache { k: format, ..plain });
        assert_eq!(cache(&format!("cache.v = '{name}'")), Cache { v: format, ..plain });
        assert_eq!(cache(&format!("cache.dtype = '{name}'")), Cache { k: format, v: format, ..plain });
    }
    assert!(cache("cache = { layout = 'ring', file = true }").file);
    // The width of a row is no matter: the last group of an int4 row is as long as what is left.
    let narrow = parse("heads = { query = 1, dim = 20 }\ncache.dtype = 'int4'", "t.toml", &NoFiles);
    assert_eq!(narrow.unwrap().spec.cache.v, CacheFormat::Int4);
}

#[test]
fn several_query_and_key_heads_may_share_a_value_head() {
    let text = "heads = { query = 8, kv = 4, value = 2, dim = 64 }";
    let found = parse(text, "t.toml", &NoFiles).unwrap().spec;
    assert_eq!(found.heads, Heads { query: 8, kv: 4, value: 2, dim: 64, value_dim: 64 });
}

#[test]
fn learned_inputs_follow_the_declared_ones_in_the_order_of_the_language() {
    let found = spec(
        "output = { norm = 'rms', mix = 2 }\nweights = { sink = 'learned' }\nqk_norm = { learned = true, kind = 'l2' }\n\
         inputs = { a = 'f32[h]', doc = 'i32[b, k]' }\nmask = 'same(doc)'",
    );
    assert_eq!(
        inputs(&found),
        learned([
            ("a", "f32[h]"),
            ("doc", "i32[b, k]"),
            ("q_norm", "f32[64]"),
            ("k_norm", "f32[64]"),
            ("sink", "f32[h]"),
            ("mix", "f32[2, 8]"),
            ("o_norm", "f32[32]"),
        ])
    );
}

#[test]
fn pseudo_heads_imply_mixes_and_a_collapse() {
    let found = spec("pseudo.heads = 3\noutput.norm = 'rms'\nweights.sink = 'learned'");
    let pseudo = Pseudo {
        heads: 3,
        causal_by_token: false,
        window_in_tokens: false,
        mix: [1, 2, 3],
        collapse: 4,
        form: PseudoForm::Auto,
    };
    assert_eq!(found.mechanism, Mechanism::Pseudo(pseudo));
    assert_eq!(
        inputs(&found),
        learned([
            ("sink", "f32[h]"),
            ("mix_q", "f32[8, 8, 3]"),
            ("mix_k", "f32[4, 8, 3]"),
            ("mix_v", "f32[4, 8, 3]"),
            ("collapse", "f32[8, 24]"),
            ("o_norm", "f32[32]"),
        ])
    );
}

#[test]
fn the_masks_of_the_prelude_follow_the_tokens_of_pseudo_heads() {
    let allow = |pseudo: &str, mask: &str| spec(&format!("{pseudo}\nmask = '{mask}'")).allow;
    for (pseudo, mask, means) in [
        ("pseudo.heads = 4", "causal & window(8)", "k <= q & abs(q - k) < 8"),
        ("pseudo = { heads = 4, causal = 'token' }", "causal", "k // 4 <= q // 4"),
        ("pseudo = { heads = 4, causal = 'token' }", "window(8)", "abs(q - k) < 8"),
        ("pseudo = { heads = 4, window_unit = 'token' }", "window(8)", "abs(q // 4 - k // 4) < 8"),
        ("pseudo = { heads = 4, window_unit = 'token' }", "causal", "k <= q"),
        ("pseudo = { heads = 4, causal = 'token' }", "prefix(8)", "k < 8 | k <= q"),
    ] {
        assert_eq!(allow(pseudo, mask), allow("", means), "{pseudo}: {mask}");
    }
}

#[test]
fn each_query_head_of_pseudo_heads_has_keys_of_its_own() {
    let modify = |lines: &str| spec(&format!("pseudo.heads = 2\n{lines}")).modify;
    assert_eq!(modify("score.modify = 's + kv_heads'"), modify("score.modify = 's + 8'"));
    assert!(parse("heads = { query = 8, kv = 2, dim = 4 }\npseudo.heads = 2\ninputs.x = 'f32[4]'\nmask = 'x[g] > 0'", "t.toml", &NoFiles).is_err());
}

/// One parent in memory.
struct Parent(&'static str);

impl Loader for Parent {
    fn load(&self, _: &str) -> Result<Vec<u8>, LoadError> {
        Ok(self.0.as_bytes().to_vec())
    }
}

#[test]
fn a_child_replaces_tables_whole() {
    let parent = Parent(
        "heads = { query = 8, dim = 64 }\ninputs = { at = 'i32[b, k]' }\n\
         position = { rope = { theta = 1e4, dim = 32 }, ids = 'at' }\nqk_norm = { kind = 'rms', learned = true }\n\
         weights = { sink = 'learned' }\noutput = { mix = 2, gate = 'head', lse = true }\n",
    );
    let child = |lines: &str| {
        let text = format!("extends = 'parent.toml'\n{lines}");
        parse(&text, "child.toml", &parent).unwrap_or_else(|errors| panic!("{errors}")).spec
    };
    let whole = child("");
    let kept = |spec: &Spec, without: &str| {
        let of = |spec: &Spec| {
            let all: BTreeMap<&str, String> = [
                ("position", format!("{:?}", spec.position)),
                ("qk_norm", format!("{:?}", spec.qk_norm.map(|norm| QkNorm { learned: None, ..norm }))),
                ("weights", format!("{:?}", std::mem::discriminant(&spec.weights))),
                ("output", format!("{:?}", (spec.output.gate, spec.output.lse))),
            ]
            .into();
            all
        };
        let (found, whole) = (of(spec), of(&whole));
        found.into_iter().filter(|(key, _)| *key != without).all(|(key, text)| whole[key] == text)
    };
    assert!(whole.position.is_some() && whole.qk_norm.is_some() && whole.output.gate.is_some());

    let position = child("position = { rope = { theta = 5e5 } }");
    let theta = Frequencies::Theta { theta: 5e5, scaling: RopeScaling::None };
    let expected = Position { frequencies: theta, dim: 64, layout: RopeLayout::Half, offset: 0, ids: None };
    assert!(position.position == Some(expected) && kept(&position, "position"));

    let qk_norm = child("qk_norm = 'l2'");
    assert_eq!(qk_norm.qk_norm.unwrap().learned, None);
    assert!(kept(&qk_norm, "qk_norm"));
    assert_eq!(inputs(&qk_norm), learned([("at", "i32[b, k]"), ("sink", "f32[h]"), ("mix", "f32[2, 8]")]));

    let weighted = child("weights = { kind = 'relu', bias = 1 }\noutput = { norm = 'rms' }");
    assert_eq!(weighted.weights, Weights::Relu);
    assert_eq!(weighted.output, {
        Output { norm: Some(OutputNorm { eps: 1e-6, learned: Some(3) }), ..Output::default() }
    });

    // The heads are the child's, and so are the lengths of what is learned.
    let heads = child("heads = { query = 4, dim = 32 }");
    assert_eq!(heads.position.unwrap().dim, 32);
    assert_eq!(
        inputs(&heads)[1..],
        learned([("q_norm", "f32[32]"), ("k_norm", "f32[32]"), ("sink", "f32[h]"), ("mix", "f32[2, 4]")])
    );
}

/// As many heads of keys as of queries, and these lines.
fn lookahead(lines: &str) -> (Spec, Lookahead) {
    let text = format!("heads = {{ query = 4, dim = 64, value_dim = 32 }}\n{lines}\n");
    let spec = parse(&text, "test.toml", &NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec;
    let Mechanism::Lookahead(lookahead) = spec.mechanism.clone() else { panic!("{:?}", spec.mechanism) };
    (spec, lookahead)
}

#[test]
fn lookahead_keys_are_causal_whatever_the_mask() {
    let allowed = |lines: &str| {
        let (spec, lookahead) = lookahead(lines);
        let told = |tree| text::expression(tree, &spec.inputs.names, 160);
        [told(spec.allow.tree()), told(lookahead.allow.tree())]
    };
    assert_eq!(allowed("lookahead = {}"), ["k <= q", "k < q"]);
    assert_eq!(allowed("lookahead = {}\nmask = 'all'"), ["k <= q", "k < q"]);
    assert_eq!(allowed("lookahead = {}\nmask = 'causal'"), ["k <= q", "k < q"]);
    let window = "lookahead.window = 128\nmask = 'window(512) & causal'";
    assert_eq!(allowed(window), ["abs(q - k) < 512 & k <= q", "k < q & q - k <= 128"]);
    assert_eq!(allowed("lookahead.window = 0")[1], "k < q & q - k <= 0");
    let documents = "inputs.doc = 'i32[b, k]'\nlookahead.allow = 'same(doc)'\nmask = 'same(doc) & window(9)'";
    let [mask, teaches] = allowed(documents);
    assert_eq!(teaches, "k < q & doc[b, q] == doc[b, k]");
    assert_eq!(mask, "k <= q & (doc[b, q] == doc[b, k] & abs(q - k) < 9)");
    assert_eq!(allowed("lookahead.allow = 'false'")[1], "false");
}

#[test]
fn lookahead_says_what_rope_turns() {
    let rope = |rotate: &str| lookahead(&format!("position.rope.theta = 1e4\nlookahead = {{ {rotate} }}")).1;
    let turned = |rotate: &str| {
        let lookahead = rope(rotate);
        Turned::ALL.map(|tensor| lookahead.rotate & tensor.bit() != 0)
    };
    assert_eq!(turned(""), [true; 5]);
    assert_eq!(turned("rotate = []"), [false; 5]);
    assert_eq!(turned("rotate = ['v_u', 'q_c']"), [true, false, false, false, true]);
    assert_eq!(rope("").window, None);
    assert_eq!(rope("window = 2147483647").window, Some(i32::MAX as u32));
}

#[test]
fn every_choice_is_part_of_the_identity() {
    let rope = |more: &str| {
        format!(
            "inputs = {{ at = 'i32[b, k]', to = 'i32[b, k]', f = 'f32[32]', f2 = 'f32[32]' }}\nposition = {{ {more} }}"
        )
    };
    let yarn = |more: &str| {
        rope(&format!(
            "rope.theta = 1e4, scaling = {{ kind = 'yarn', factor = 4, original_max_position_embeddings = 4096{more} }}"
        ))
    };
    let llama3 = |factor: u32, low: u32, high: u32, len: u32| {
        rope(&format!(
            "rope.theta = 1e4, scaling = {{ kind = 'llama3', factor = {factor}, low_freq_factor = {low}, \
             high_freq_factor = {high}, original_max_position_embeddings = {len} }}"
        ))
    };
    let lines = [
        String::new(),
        rope("rope.theta = 1e4").replace("position", "# "),
        rope("rope.theta = 1e4"),
        rope("rope.theta = 1e5"),
        rope("rope = { theta = 1e4, dim = 32 }"),
        rope("rope = { theta = 1e4, dim = 32, offset = 2 }"),
        rope("rope = { theta = 1e4, layout = 'interleaved' }"),
        rope("rope.theta = 1e4, ids = 'at'"),
        rope("rope.theta = 1e4, ids = 'to'"),
        rope("rope.freqs = 'f'"),
        rope("rope.freqs = 'f2'"),
        rope("rope.theta = 1e4, scaling = { kind = 'linear', factor = 4 }"),
        rope("rope.theta = 1e4, scaling = { kind = 'linear', factor = 1 }"),
        llama3(8, 1, 4, 8192),
        llama3(9, 1, 4, 8192),
        llama3(8, 2, 4, 8192),
        llama3(8, 1, 5, 8192),
        llama3(8, 1, 4, 8193),
        yarn(""),
        yarn("").replace("factor = 4", "factor = 5"),
        yarn("").replace("4096", "4097"),
        yarn(", beta_fast = 31"),
        yarn(", beta_slow = 2"),
        yarn(", attention_factor = 1"),
        yarn(", truncate = false"),
        "qk_norm = 'rms'".into(),
        "qk_norm = 'l2'".into(),
        "qk_norm = { kind = 'rms', eps = 1e-5 }".into(),
        "qk_norm = { kind = 'rms', learned = true }".into(),
        "qk_norm = { kind = 'rms', axis = 'all' }".into(),
        "position.rope.theta = 1e4\nqk_norm = 'rms'".into(),
        "position.rope.theta = 1e4\nqk_norm = { kind = 'rms', after_rope = true }".into(),
        "weights = 'sigmoid'".into(),
        "weights = 'relu'".into(),
        "weights = { kind = 'relu', bias = 1 }".into(),
        "weights = { kind = 'relu', bias = '1 / nk' }".into(),
        "weights.sink = 'one'".into(),
        "weights.sink = 'learned'".into(),
        "pseudo.heads = 1".into(),
        "pseudo.heads = 2".into(),
        "pseudo = { heads = 2, causal = 'token' }".into(),
        "pseudo = { heads = 2, window_unit = 'token' }".into(),
        "output.mix = 'learned'".into(),
        "output.mix = 4".into(),
        "output.norm = 'rms'".into(),
        "output = { norm = 'rms', norm_eps = 1e-5 }".into(),
        "output = { norm = 'rms', norm_learned = false }".into(),
        "output.gate = 'elementwise'".into(),
        "output.gate = 'head'".into(),
        "output = { gate = 'head', gate_act = 'silu' }".into(),
        "output = { gate = 'head', lse = true }".into(),
    ];
    all_differ(&lines, |lines| spec(lines).identity);
    let mechanisms = [
        "lookahead = {}",
        "lookahead = {}\nmask = 'window(9)'",
        "lookahead = { window = 128 }",
        "lookahead = { window = 127 }",
        "lookahead = { window = 0 }",
        "lookahead = { allow = 'k < 9' }",
        "lookahead = { allow = 'k < 9', window = 128 }",
        "position.rope.theta = 1e4\nlookahead = {}",
        "position.rope.theta = 1e4\nlookahead.rotate = ['q_c', 'k_c']",
        "position.rope.theta = 1e4\nlookahead.rotate = ['q_c', 'k_u']",
        "mask = 'causal'",
    ];
    all_differ(&mechanisms.map(str::to_owned), |lines| {
        let text = format!("heads = {{ query = 4, dim = 64 }}\n{lines}\n");
        parse(&text, "test.toml", &NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec.identity
    });
    let heads = |heads: &str| parse(&format!("heads = {{ {heads} }}"), "t.toml", &NoFiles).unwrap().spec;
    assert_ne!(
        heads("query = 8, kv = 4, dim = 64").identity,
        heads("query = 8, kv = 4, value = 2, dim = 64").identity
    );
}

fn all_differ(all: &[String], identity: impl Fn(&str) -> Identity) {
    let mut found: BTreeMap<Identity, &str> = BTreeMap::new();
    for lines in all {
        if let Some(other) = found.insert(identity(lines), lines) {
            panic!("these have one identity:\n{lines}\nand\n{other}");
        }
    }
}

#[test]
fn shipped_specs_keep_the_identities_that_they_had_without_these_tables() {
    for (name, identity) in [
        ("alibi", "c13ab4b2d8319a8578e73e1c1967983b"),
        ("causal", "b46df558274b6c01838a7107afccc56e"),
        ("cross", "ade1a35b5ee288b0a2e87663d2e0a27b"),
        ("document", "9a2b64e8d5014d35c31c5f7b3ef3bd3c"),
        ("gqa", "67a68be2a0c6c6544665c130c2772687"),
        ("softcap_bias", "480ac93782f24695c9883803d4de8e4f"),
    ] {
        assert_eq!(regard_spec::shipped(name).unwrap().spec.identity.to_string(), identity, "{name}");
        let text =
            format!("extends = '{name}'\ncache = {{ layout = 'paged', page = 32, k = 'int8', v = 'f16' }}");
        let cached = parse(&text, "t.toml", &NoFiles).unwrap().spec;
        assert_eq!(cached.identity.to_string(), identity, "{name} with a cache");
    }
}
