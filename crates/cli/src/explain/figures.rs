//! What a spec costs: cache, operations and bytes of a prefill and of one decoded token.

use regard::{Dtype, Plan, Planned, Problem, Spec};
use regard_ir::cache::{Codec, GROUP, PageFormat};
use regard_ir::expr::Var;
use regard_ir::inputs;
use regard_ir::interval::{Region, Span, Unknown};
use regard_ir::operands::{Operand, Rows};
use regard_ir::problem::Phase;
use regard_ir::rows::{Frequencies, Output, Position};
use regard_ir::spec::{self, CacheFormat, Mechanism};
use regard_ir::text;
use regard_ir::tiles;
use regard_ir::variant::{InputShape, InputType, Sink, Source, Variant, Weights};
use regard_ir::work::{self, Work};
use serde::Serialize;

use crate::failure::Failure;

use super::pairs::Pairs;
use super::quantity::{Product, Sum};

/// Runs of keys that are told one by one.
const MAX_RUNS: usize = 4;

/// Past this many tokens what is seen is taken by blocks.
const TOKENS_ONE_BY_ONE: u32 = 1 << 16;

/// A captured tensor.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Input {
    pub(super) name: String,
    /// As it is declared, `i32[b, k]`.
    pub(super) declared: String,
    /// Which steps read it: mask, score, rope, norms, weights, mixing of heads; none where nothing does.
    pub(super) read_by: Vec<&'static str>,
}

/// Keys and values that are kept from token to token.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cache {
    pub(super) layout: &'static str,
    /// Tokens of a page, where the spec says how many.
    pub(super) page: Option<u32>,
    /// How keys are stored.
    pub(super) k: &'static str,
    /// How values are stored.
    pub(super) v: &'static str,
    /// Whether it is a memory-mapped file.
    pub(super) file: bool,
    pub(super) k_bytes_per_token: u64,
    pub(super) v_bytes_per_token: u64,
    pub(super) bytes_per_token: u64,
    /// Over all sequences.
    pub(super) tokens: u64,
    pub(super) bytes: f64,
    /// What the mask can still reach, for the asked length and for twice that; empty where that cannot be derived.
    pub(super) reach: Vec<Reach>,
}

/// Which tokens of a sequence a query can still see.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Reach {
    /// Tokens that are there.
    pub(super) of: u32,
    /// Those that the last one, or any later one, may see; in cross-attention, any query.
    pub(super) tokens: u64,
    /// The first few runs of them, `[begin, end)`.
    pub(super) runs: Vec<[u32; 2]>,
}

/// A call, and what it takes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Call {
    pub(super) problem: Problem<'static>,
    pub(super) pairs: Pairs,
    /// Operations and bytes.
    pub(super) work: Work,
    /// What the bytes are made of.
    pub(super) moved: Vec<Moved>,
    /// Query tokens over all sequences.
    pub(super) tokens: u64,
}

/// Some bytes that are read or written once.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Moved {
    pub(super) what: String,
    #[serde(skip)]
    pub(super) product: Product,
    pub(super) bytes: f64,
}

impl Moved {
    fn new(what: impl Into<String>, product: Vec<(u64, &'static str)>) -> Self {
        let product = Product(product);
        Self { what: what.into(), bytes: product.value(), product }
    }
}

/// The captured tensors of a spec, and who reads them.
pub(super) fn captured(spec: &Spec) -> Vec<Input> {
    let position = spec.position.map(|Position { frequencies, ids, .. }| {
        let frequencies = match frequencies {
            Frequencies::Input(input) => Some(input),
            Frequencies::Theta { .. } => None,
        };
        [ids, frequencies]
    });
    let sink = match spec.weights {
        Weights::Softmax { sink: Sink::Learned { input } } => Some(input),
        _ => None,
    };
    let learned = spec.qk_norm.and_then(|norm| norm.learned);
    let Output { mix, norm, .. } = spec.output;
    let (pseudo, recurrence) = (spec.variant().pseudo(), spec.variant().recurrence());
    let by_tables = [
        ("rope", position.unwrap_or_default().to_vec()),
        ("norms", learned.map_or(Vec::new(), |inputs| inputs.map(Some).to_vec())),
        ("weights", vec![sink]),
        ("mixing of heads", vec![mix.map(|mix| mix.input)]),
        (
            "pseudo-heads",
            pseudo.map_or(Vec::new(), |it| it.mix.into_iter().chain([it.collapse]).map(Some).collect()),
        ),
        ("norm of the output", vec![norm.and_then(|norm| norm.learned)]),
        ("decay of the state", vec![recurrence.and_then(|it| it.decay.input())]),
        ("delta rule", vec![recurrence.and_then(|it| it.delta)]),
    ];
    let declared = spec.inputs.names.iter().zip(&spec.inputs.shapes).enumerate();
    let input = |(i, (name, shape)): (usize, (&String, &InputShape))| {
        let i = i as u16;
        let trees = [("mask", spec.allow.tree()), ("score", spec.modify.tree())];
        let by_trees = trees.into_iter().filter(|(_, tree)| tree.reads_input(i)).map(|(by, _)| by);
        let by_tables = by_tables.iter().filter(|(_, inputs)| inputs.contains(&Some(i))).map(|(by, _)| *by);
        let read_by = by_trees.chain(by_tables).collect();
        Input { name: name.clone(), declared: text::declaration(shape), read_by }
    };
    declared.map(input).collect()
}

/// What is kept of `batch` sequences of `keys` tokens.
pub(super) fn cache(spec: &Spec, plan: &Plan, problem: &Problem<'_>) -> Cache {
    let variant = spec.variant();
    if variant.recurrence().is_some() {
        return states(&variant, problem);
    }
    let dtype = plan.dtype;
    let spec::Cache { layout, page, k, v, file } = spec.cache;
    let rows: Vec<u64> = cached_rows(spec, spec.cache, plan.dtype, &plan.cache)
        .iter()
        .map(|(_, row)| row.value() as u64)
        .collect();
    let [k_bytes_per_token, v_bytes_per_token] = [0, 1].map(|at| rows.get(at).copied().unwrap_or(0));
    let bytes_per_token = rows.into_iter().fold(0, u64::saturating_add);
    let tokens = u64::from(problem.batch) * u64::from(problem.keys);
    let lengths = [Some(problem.keys), problem.keys.checked_mul(2).filter(|&n| n <= i32::MAX as u32)];
    Cache {
        layout: layout.name(),
        page,
        k: stored(k, dtype),
        v: stored(v, dtype),
        file,
        k_bytes_per_token,
        v_bytes_per_token,
        bytes_per_token,
        tokens,
        bytes: bytes_per_token as f64 * tokens as f64,
        reach: lengths.into_iter().flatten().filter_map(|n| reach(spec, problem.batch, n)).collect(),
    }
}

/// What is kept in place of keys and values: states, however many tokens there are.
fn states(variant: &Variant<'_>, problem: &Problem<'_>) -> Cache {
    Cache {
        layout: "state",
        page: None,
        k: Dtype::F32.name(),
        v: Dtype::F32.name(),
        file: false,
        k_bytes_per_token: 0,
        v_bytes_per_token: 0,
        bytes_per_token: 0,
        tokens: u64::from(problem.batch) * u64::from(problem.keys),
        bytes: work::state_bytes(variant, problem.batch),
        reach: Vec::new(),
    }
}

/// The name of a format where tensors of the call are of type `dtype`.
fn stored(format: CacheFormat, dtype: Dtype) -> &'static str {
    if format == CacheFormat::Same { dtype.name() } else { format.name() }
}

/// What a cache keeps of a token where tensors of the call are of type `dtype`, in bytes: keys, then values where they are rows of
/// their own, then what is beside them.
pub(super) fn cached_rows(
    spec: &Spec,
    cache: spec::Cache,
    dtype: Dtype,
    page: &PageFormat,
) -> Vec<(&'static str, Sum)> {
    if let Mechanism::Pseudo(pseudo) = spec.mechanism
        && page.mixed
    {
        let rows = spec.heads.query.saturating_mul(pseudo.heads);
        let row =
            |width, format| Sum(cached_row((rows, ["pseudo-head", "pseudo-heads"]), width, format, dtype));
        return vec![("K", row(spec.heads.dim, cache.k)), ("V", row(spec.heads.value_dim, cache.v))];
    }
    let row = |n, width, format| Sum(cached_row((n, ["head", "heads"]), width, format, dtype));
    let heads = spec.variant().cached_heads();
    let keys = || row(heads.kv, heads.dim, cache.k);
    let values = || row(heads.value, heads.value_dim, cache.v);
    match spec.mechanism {
        // Values are the first channels of keys.
        Mechanism::Latent(_) => vec![("latent", keys())],
        Mechanism::Lookahead(_) => {
            let learned = row(heads.kv, heads.dim, CacheFormat::Dtype(Dtype::F32));
            vec![("k_c", keys()), ("v_c", values()), ("q_u", keys()), ("u", learned)]
        }
        _ => vec![("K", keys()), ("V", values())],
    }
}

/// The bytes of a token in `n` rows of this width, which are called so: of its elements, and of their scales.
fn cached_row(
    (n, called): (u32, [&'static str; 2]),
    width: u32,
    format: CacheFormat,
    dtype: Dtype,
) -> Vec<Product> {
    let counted = |n: u32, one, more| (u64::from(n), if n == 1 { one } else { more });
    let heads = counted(n, called[0], called[1]);
    let elements = |dtype: Dtype| Product(vec![heads, (width.into(), ""), (dtype.size_bytes().into(), "B")]);
    match format {
        CacheFormat::Same => vec![elements(dtype)],
        CacheFormat::Dtype(dtype) => vec![elements(dtype)],
        CacheFormat::Int8 => vec![
            Product(vec![heads, (width.into(), ""), (1, "B")]),
            Product(vec![counted(n, "scale", "scales"), (Codec::Int8.scale_bytes().into(), "B")]),
        ],
        CacheFormat::Int4 => vec![
            Product(vec![heads, counted(width.div_ceil(2), "pair", "pairs"), (1, "B")]),
            Product(vec![
                heads,
                counted(width.div_ceil(GROUP), "scale", "scales"),
                (Codec::Int4.scale_bytes().into(), "B"),
            ]),
        ],
    }
}

/// What of `n` tokens can still be seen; `None` where lengths, which grow with each token, decide it.
fn reach(spec: &Spec, batch: u32, n: u32) -> Option<Reach> {
    let variant = spec.variant();
    let variant = variant.scored();
    let per_token = variant.per_token();
    let positions = n.checked_mul(per_token).filter(|&n| n <= i32::MAX as u32)?;
    if n == 0 || batch == 0 || variant.allow.reads(Var::Nq) || variant.allow.reads(Var::Nk) {
        return None;
    }
    let up_to = |n: u32| Span { lo: 0, hi: n as i32 - 1 };
    let queries = match spec.source {
        Source::SelfAttention => Span { lo: (positions - per_token) as i32, hi: i32::MAX },
        Source::Cross => Span { lo: 0, hi: i32::MAX },
    };
    let region = Region {
        b: up_to(batch),
        h: up_to(variant.heads.query),
        g: up_to(variant.heads.kv),
        q: queries,
        k: Span::ALL,
        nq: 0,
        nk: 0,
    };
    let unknown = Unknown(variant.inputs);
    let classify = |k| tiles::liveness(variant.allow, &Region { k, ..region }, &unknown);
    let (mut tokens, mut runs) = (0, Vec::<[u32; 2]>::new());
    for (run, _) in tiles::runs(0..positions, positions.div_ceil(TOKENS_ONE_BY_ONE), classify) {
        let run = run.start / per_token..run.end.div_ceil(per_token);
        tokens += run.len() as u64;
        // One more than is told says that there are more.
        let has_room = runs.len() <= MAX_RUNS;
        match runs.last_mut() {
            Some([_, end]) if *end == run.start => *end = run.end,
            _ if has_room => runs.push([run.start, run.end]),
            _ => {}
        }
    }
    Some(Reach { of: n, tokens, runs })
}

impl Reach {
    /// The runs in words: `0..4, 3072..4096`.
    pub(super) fn told(&self) -> String {
        let told: Vec<_> =
            self.runs.iter().take(MAX_RUNS).map(|[begin, end]| format!("{begin}..{end}")).collect();
        let more = if self.runs.len() > MAX_RUNS { ", …" } else { "" };
        format!("{}{more}", told.join(", "))
    }
}

impl Call {
    /// What a problem takes.
    ///
    /// # Errors
    /// If there are more sequences than one call can hold.
    pub(super) fn new(planned: &Planned, problem: Problem<'static>) -> Result<Self, Failure> {
        let pairs = Pairs::count(planned, &problem)?;
        let dtype = planned.plan().dtype;
        let fail = |error| Failure::Schedule { spec: planned.spec().name.clone(), error };
        let positions = planned.positions(&problem).map_err(fail)?;
        let work = Work::new(&planned.variant(), &positions.view(), dtype, pairs.allowed);
        let moved = moved(planned.spec(), dtype, &problem, &positions.view());
        Ok(Self {
            problem,
            pairs,
            work,
            moved,
            tokens: u64::from(problem.batch) * u64::from(problem.queries),
        })
    }

    /// One query of each sequence, at the position of its last key.
    ///
    /// # Errors
    /// As [`Call::new`].
    pub(super) fn decode(planned: &Planned, problem: &Problem<'_>) -> Result<Self, Failure> {
        let Problem { batch, keys, .. } = *problem;
        // A state stands for all keys but that of the token itself.
        let keys = if planned.variant().pairs_queries() && planned.variant().recurrence().is_some() {
            1
        } else {
            keys
        };
        let one = Problem::prefill(planned.spec().source, batch as usize, 1, keys as usize)?;
        Self::new(planned, Problem { phase: Phase::Decode, ..one })
    }

    /// Operations for each byte; `None` where nothing moves.
    pub(super) fn intensity(&self) -> Option<f64> {
        (self.work.bytes() > 0.0).then(|| self.work.flops / self.work.bytes())
    }
}

/// What [`Work`] adds up.
fn moved(spec: &Spec, dtype: Dtype, problem: &Problem<'_>, positions: &Problem<'_>) -> Vec<Moved> {
    let variant = spec.variant();
    let heads = &spec.heads;
    let batch = (u64::from(problem.batch), if problem.batch == 1 { "sequence" } else { "sequences" });
    let queries = (u64::from(problem.queries), if problem.queries == 1 { "query" } else { "queries" });
    let keys = work::live_keys(&variant, positions).checked_div(problem.batch.into()).unwrap_or(0);
    let keys = (keys, if keys == 1 { "key" } else { "keys" });
    let row = |n: u32, width: u32| {
        let heads = if n == 1 { "head" } else { "heads" };
        vec![(u64::from(n), heads), (width.into(), ""), (dtype.size_bytes().into(), "B")]
    };
    let times = |tokens, row: Vec<_>| [vec![batch, tokens], row].concat();
    let operand = |Operand { name, heads, rows, width }| {
        let row = row(heads.unwrap_or(1), width);
        let name = match name {
            "k" => "K",
            "v" => "V",
            other => other,
        };
        match rows {
            Rows::Queries => Moved::new(name, times(queries, row)),
            Rows::Keys => Moved::new(name, times(keys, row)),
            Rows::Matrix(rows) => Moved::new(name, [vec![(u64::from(rows), "rows")], row].concat()),
        }
    };
    let mut moved: Vec<_> = variant.operands().map(operand).collect();
    let lens = inputs::lens(variant.inputs, heads, variant.source, positions);
    moved.extend(spec.inputs.names.iter().zip(variant.inputs).zip(lens).map(|((name, shape), len)| {
        let size = if shape.dtype == InputType::Bool { 1 } else { 4 };
        Moved::new(name.clone(), vec![(len as u64, "elements"), (size, "B")])
    }));
    let outputs = variant.output_heads();
    if let Some(gate) = variant.output.gate {
        let width = if gate.per_head { 1 } else { heads.value_dim };
        moved.push(Moved::new("gate", times(queries, row(outputs, width))));
    }
    moved.push(Moved::new("o, written", times(queries, row(outputs, heads.value_dim))));
    if let Some(recurrence) = variant.recurrence() {
        let norm = u64::from(recurrence.normalize_eps.is_some());
        let state = vec![
            batch,
            (heads.value.into(), "heads"),
            (heads.dim.into(), ""),
            (u64::from(heads.value_dim) + norm, ""),
            (4, "B"),
        ];
        moved.extend(["states", "states, written"].map(|what| Moved::new(what, state.clone())));
    }
    if variant.output.lse {
        moved.push(Moved::new("lse, written", vec![batch, queries, (heads.query.into(), "heads"), (4, "B")]));
    }
    moved
}

#[cfg(test)]
mod tests {
    use regard::ir::variant::Heads;
    use regard::{Isa, Machine, Options, machine};

    use super::*;

    fn parse(text: &str) -> Spec {
        regard::parse(text, "t.toml", &regard::NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec
    }

    fn problem(spec: &Spec, batch: usize, queries: usize, keys: usize) -> Problem<'static> {
        Problem::prefill(spec.source, batch, queries, keys).unwrap()
    }

    fn plan(spec: &Spec, dtype: Dtype) -> Plan {
        let options = Options { dtype: Some(dtype), ..Options::default() };
        *Planned::new(spec, &machine::host(), options).unwrap().plan()
    }

    #[test]
    fn a_token_of_pseudo_heads_costs_the_rows_that_are_kept() {
        for (form, rows) in [("compact", [2 * 96, 2 * 40]), ("expanded", [6 * 3 * 96, 6 * 3 * 40])] {
            let heads = "heads = { query = 6, kv = 2, dim = 96, value_dim = 40 }";
            let spec = parse(&format!("{heads}\npseudo = {{ heads = 3, form = '{form}' }}\nmask = 'causal'"));
            let cache = cache(&spec, &plan(&spec, Dtype::F32), &problem(&spec, 3, 1, 1000));
            assert_eq!([cache.k_bytes_per_token, cache.v_bytes_per_token], rows.map(|n| 4 * n), "{form}");
        }
    }

    #[test]
    fn a_token_costs_its_rows() {
        let spec = parse("heads = { query = 12, kv = 6, value = 2, dim = 96, value_dim = 128 }");
        for (dtype, bytes) in [(Dtype::F32, 4), (Dtype::F16, 2), (Dtype::Bf16, 2)] {
            let cache = cache(&spec, &plan(&spec, dtype), &problem(&spec, 3, 1, 1000));
            assert_eq!(cache.k_bytes_per_token, 6 * 96 * bytes);
            assert_eq!(cache.v_bytes_per_token, 2 * 128 * bytes);
            assert_eq!((cache.tokens, cache.bytes), (3000, 3000.0 * cache.bytes_per_token as f64));
        }
    }

    #[test]
    fn a_cached_token_costs_its_elements_and_their_scales() {
        let heads = "heads = { query = 12, kv = 6, value = 2, dim = 96, value_dim = 77 }";
        for (table, k, v) in [
            ("dtype = 'same'", 6 * 96 * 2, 2 * 77 * 2),
            ("k = 'f32'", 6 * 96 * 4, 2 * 77 * 2),
            ("dtype = 'bf16', layout = 'ring'", 6 * 96 * 2, 2 * 77 * 2),
            ("dtype = 'int8'", 6 * (96 + 4), 2 * (77 + 4)),
            // 77 channels are 39 pairs, and 2 groups of 32 with one of 13.
            ("dtype = 'int4', layout = 'paged', page = 64", 6 * (48 + 3 * 2), 2 * (39 + 3 * 2)),
            ("k = 'int8', v = 'int4'", 6 * (96 + 4), 2 * (39 + 3 * 2)),
        ] {
            let mask = "mask = 'causal & window(9)'";
            let spec = parse(&format!("{heads}\n{mask}\ncache = {{ {table} }}"));
            let cache = cache(&spec, &plan(&spec, Dtype::F16), &problem(&spec, 3, 1, 1000));
            assert_eq!((cache.k_bytes_per_token, cache.v_bytes_per_token), (k, v), "{table}");
            assert_eq!(cache.bytes, 3000.0 * (k + v) as f64, "{table}");
        }
    }

    #[test]
    fn what_is_moved_is_what_work_counts() {
        let scalar = Machine { isa: Isa::Scalar, ..machine::host() };
        for shipped in regard::SHIPPED {
            let spec = regard::shipped(shipped.name).unwrap().spec;
            for dtype in [Dtype::F32, Dtype::F16] {
                let options = Options { dtype: Some(dtype), ..Options::default() };
                let planned = Planned::new(&spec, &scalar, options).unwrap();
                for (batch, queries, keys) in [(1, 1, 1), (2, 5, 70), (3, 0, 4), (1, 3, 0), (0, 1, 1)] {
                    let problem = problem(&spec, batch, queries, keys);
                    let calls = [Call::new(&planned, problem), Call::decode(&planned, &problem)];
                    for call in calls.map(Result::unwrap) {
                        let moved: f64 = call.moved.iter().map(|moved| moved.bytes).sum();
                        assert_eq!(moved, call.work.bytes(), "{}, {:?}", spec.name, call.problem);
                        let Heads { value, dim, value_dim, .. } = spec.heads;
                        let products = match spec.mechanism {
                            Mechanism::Recurrence(recurrence) => {
                                let updates = if recurrence.delta.is_some() { 2.0 } else { 1.0 };
                                let Problem { batch, queries, keys, .. } = call.problem;
                                let tokens = f64::from(queries) + updates * f64::from(keys);
                                f64::from(dim)
                                    * f64::from(value_dim)
                                    * f64::from(value)
                                    * f64::from(batch)
                                    * tokens
                            }
                            _ => f64::from(dim + value_dim) * call.pairs.allowed,
                        };
                        assert_eq!(call.work.flops, 2.0 * products, "{}", spec.name);
                    }
                }
            }
        }
    }

    #[test]
    fn decode_is_one_query_at_the_last_position() {
        let spec = regard::shipped("gqa").unwrap().spec;
        let planned = Planned::new(&spec, &machine::host(), Options::default()).unwrap();
        let call = Call::decode(&planned, &problem(&spec, 2, 7, 100)).unwrap();
        assert_eq!(call.tokens, 2);
        assert_eq!(call.problem.q_offset, 99);
        // 32 heads of 128 over 8: each sees all 100 keys.
        assert_eq!(call.pairs.allowed, 2.0 * 32.0 * 100.0);
        assert_eq!(call.work.flops, 2.0 * 256.0 * 6400.0);
        assert_eq!(call.work.read_bytes, 4.0 * 128.0 * 2.0 * (32.0 + 2.0 * 8.0 * 100.0));
    }

    #[test]
    fn a_cache_must_hold_what_masks_can_reach() {
        let reach = |mask: &str, n| {
            let spec = parse(&format!(
                "heads = {{ query = 4, dim = 8 }}\ninputs = {{ doc = 'i32[b, k]' }}\nmask = '{mask}'"
            ));
            reach(&spec, 2, n).map(|reach| (reach.tokens, reach.told()))
        };
        let told = |tokens, runs: &str| Some((tokens, runs.to_owned()));
        assert_eq!(reach("causal", 1000), told(1000, "0..1000"));
        assert_eq!(reach("causal & window(64)", 1000), told(64, "936..1000"));
        assert_eq!(reach("causal & q - k < 64", 1000), told(64, "936..1000"));
        assert_eq!(reach("causal & (window(64) | first(4)) & same(doc)", 1000), told(68, "0..4, 936..1000"));
        // Position 999 is in the chunk that begins at 768.
        assert_eq!(reach("chunk(256)", 1000), told(232, "768..1000"));
        assert_eq!(reach("k % 4 == 0", 1000), told(250, "0..1, 4..5, 8..9, 12..13, …"));
        // Blocks of keys are told apart, not keys.
        assert_eq!(reach("causal & window(64)", 1 << 30), told(1 << 14, "1073725440..1073741824"));
        assert_eq!(reach("k < nk", 1000), None);
        assert_eq!(reach("causal", 0), None);
    }

    #[test]
    fn in_cross_attention_any_query_may_come() {
        let spec = parse("source = 'cross'\nheads = { query = 4, dim = 8 }\nmask = 'k < 10 & k <= q'");
        assert_eq!(reach(&spec, 1, 100).unwrap().runs, [[0, 10]]);
    }

    #[test]
    fn readers_of_tensors_are_told() {
        let spec = regard::shipped("softcap_bias").unwrap().spec;
        let told: Vec<_> = captured(&spec).into_iter().map(|input| (input.declared, input.read_by)).collect();
        assert_eq!(told, [("i32[b, k]".to_owned(), vec!["mask"]), ("f32[h]".to_owned(), vec!["score"])]);
        let spec = parse(
            "heads = { query = 4, dim = 8 }\ninputs = { at = 'i32[b, k]', f = 'f32[4]', unread = 'f32[]' }\n\
             position = { rope = { freqs = 'f' }, ids = 'at' }\nqk_norm = { kind = 'rms', learned = true }\n\
             weights = { sink = 'learned' }\noutput = { mix = 3, norm = 'rms' }\nmask = 'at[b, k] > 0'",
        );
        let told: Vec<_> =
            captured(&spec).into_iter().map(|it| format!("{}: {}", it.name, it.read_by.join(", "))).collect();
        assert_eq!(
            told,
            [
                "at: mask, rope",
                "f: rope",
                "unread: ",
                "q_norm: norms",
                "k_norm: norms",
                "sink: weights",
                "mix: mixing of heads",
                "o_norm: norm of the output"
            ]
        );
    }
}
