//! Queries on cached keys: within the bounds of the oracle, with the same bits whatever the threads and the neighbours.

use regard::{
    Cache, CacheLimits, Dtype, Kernel, Pool, Problem, RowOf, RunError, SHIPPED, SequenceId, Solo, StoreError,
    Threads,
};
use regard_engine::catalog::Entry;
use regard_ir::bounds::{self, Quantity};
use regard_ir::cache::Codec;
use regard_ir::plan::Precision;
use regard_ir::spec::{self, CacheFormat, CacheLayout, Spec};
use regard_oracle::Tensor4;
use regard_oracle::sample::Sample;
use regard_testkit::{Case, Failure, Input, Inputs, Layout, Outputs};
use regard_tests::cached::{self, Filled};
use regard_tests::run::Disagreement;
use regard_tests::{cumulative, engines, run, specs};

/// Keys of the sequences of a call: each length that a panel, page, chunk or cell makes special, on each side.
const KEYS: [usize; 14] = [1, 2, 15, 16, 17, 63, 64, 65, 255, 257, 511, 513, 1025, 1600];

/// The packed problem of sequences of some lengths, with as many queries of each.
struct Sizes {
    cu_q: Vec<i32>,
    cu_k: Vec<i32>,
}

impl Sizes {
    fn new(lengths: &[usize], queries: usize) -> Self {
        Self { cu_q: cumulative(lengths.iter().map(|_| queries)), cu_k: cumulative(lengths.iter().copied()) }
    }

    fn case<'a>(&'a self, kernel: &'a Kernel, seed: u64) -> Case<'a> {
        let problem =
            Problem::packed(kernel.spec().source, &self.cu_q, &self.cu_k).expect("offsets that rise from 0");
        let dtype = kernel.plan().dtype;
        Case { variant: kernel.variant(), problem, dtype, layout: Layout::Bnhd, seed }
    }
}

/// Attends the queries of a case to a filled cache.
fn attend(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    filled: &Filled,
    threads: &dyn Threads,
) -> Outputs {
    let queries = case.problem.queries as usize;
    let mut step = kernel.step(&filled.cache, queries, threads.count()).expect("a case is small");
    cached::decode(kernel, case, inputs, filled, (&mut step, threads))
        .unwrap_or_else(|error| panic!("{}: {error}", kernel.spec().name))
}

/// Fills a cache with a case, attends its queries, and judges the outputs. Whether its sums cancel so far that f32 cannot tell
/// them.
fn check(name: &str, entry: &Entry, spec: &Spec, dtype: Dtype, sizes: &Sizes, seed: u64) -> bool {
    let kernel = run::compile(spec, entry, dtype);
    let case = sizes.case(&kernel, seed);
    let inputs = case.inputs();
    let told = || run::describe(name, entry, &case);
    let filled =
        cached::fill(&kernel, &case, &inputs, 100).unwrap_or_else(|error| panic!("{}: {error}", told()));
    let mut step = kernel.step(&filled.cache, case.problem.queries as usize, 1).expect("a case is small");
    let outputs = cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &Solo));
    let outputs = outputs.map_err(|error| match error {
        RunError::Runtime(error) => error,
        error => panic!("{}: {error}", told()),
    });
    match run::judge(&case, &inputs, outputs, kernel.plan()) {
        Ok(()) => false,
        Err(Disagreement::Outputs(Failure::Bound(report))) if run::cancels(&case, &inputs, &report) => true,
        Err(error) => panic!("{}: {error}", told()),
    }
}

fn every_spec(dtype: Dtype) {
    let (mut cases, mut cancelling) = (0, 0);
    for entry in engines::serving(dtype) {
        for shipped in SHIPPED.iter().filter(|shipped| !specs::is_preset(shipped)) {
            let spec = specs::narrow(shipped, 20, 12);
            if !run::serves(&spec, entry, dtype) {
                continue;
            }
            for (queries, lengths) in [(1, &KEYS[..]), (3, &KEYS[2..]), (16, &KEYS[4..])] {
                cases += 1;
                let sizes = Sizes::new(lengths, queries);
                cancelling += u64::from(check(shipped.name, entry, &spec, dtype, &sizes, cases));
            }
        }
    }
    println!("{cancelling} of {cases} cases cancel");
    assert!(cancelling * 100 < cases, "{cancelling} of {cases} cancel");
}

#[test]
fn f32_storage() {
    every_spec(Dtype::F32);
}

#[test]
fn f16_storage() {
    every_spec(Dtype::F16);
}

#[test]
fn bf16_storage() {
    every_spec(Dtype::Bf16);
}

/// A spec whose keys and values are cached in some formats, in pages of so many tokens.
fn cached_as(spec: Spec, k: CacheFormat, v: CacheFormat, page: u32) -> Spec {
    Spec { cache: spec::Cache { page: Some(page), k, v, ..spec.cache }, ..spec }
}

/// A case's inputs in f32, with what a cache holds of its keys and values.
fn held(case: &Case<'_>, inputs: &Inputs, filled: &Filled) -> Inputs {
    let read = |tensor: &Input, row: fn(usize) -> RowOf| {
        let [_, heads, tokens, width] = tensor.view().shape();
        let mut values = vec![0.0f32; heads * tokens * width];
        for (index, &sequence) in filled.sequences.iter().enumerate() {
            let of = case.problem.sequence(index as u32);
            for token in 0..of.keys as usize {
                for head in 0..heads {
                    let at = (head * tokens + of.first_key as usize + token) * width;
                    let to = &mut values[at..at + width];
                    assert_eq!(filled.cache.read(sequence, token, row(head), to), Ok(true));
                }
            }
        }
        Input::new(Dtype::F32, [1, heads, tokens, width], Layout::Bhnd, values)
    };
    let widened = |tensor: &Input| {
        let view = tensor.view();
        let [_, heads, tokens, _] = view.shape();
        let places = (0..heads).flat_map(|h| (0..tokens).map(move |n| (h, n)));
        let values = places.flat_map(|(h, n)| view.row(0, h, n)).map(|x| x as f32);
        Input::new(Dtype::F32, view.shape(), Layout::Bhnd, values.collect::<Vec<_>>())
    };
    Inputs {
        q: widened(&inputs.q),
        k: read(&inputs.k, RowOf::Key),
        v: read(&inputs.v, RowOf::Value),
        captured: inputs.captured.clone(),
        gate: inputs.gate.as_ref().map(widened),
    }
}

/// A case's outputs in f32.
fn widened(case: &Case<'_>, outputs: &Outputs) -> Outputs {
    let mut wide = Outputs { lse: outputs.lse.clone(), ..case.outputs() };
    let view = outputs.o.view();
    let [batch, heads, tokens, _] = view.shape();
    for (b, h, n) in
        (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..tokens).map(move |n| (b, h, n))))
    {
        for (channel, x) in view.row(b, h, n).into_iter().enumerate() {
            wide.o.set([b, h, n, channel], x);
        }
    }
    wide
}

/// The root mean square of the difference of two outputs by that of the second, of the head where it is largest.
fn relative_rms(found: &Tensor4<'_>, expected: &Tensor4<'_>) -> f64 {
    let [_, heads, tokens, _] = expected.shape();
    let of_head = |h: usize| {
        let rows =
            |tensor: &Tensor4<'_>| -> Vec<f64> { (0..tokens).flat_map(|n| tensor.row(0, h, n)).collect() };
        let (found, expected) = (rows(found), rows(expected));
        let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
        let difference = squares(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        (difference / squares(&mut expected.iter().copied())).sqrt()
    };
    (0..heads).map(of_head).fold(0.0, f64::max)
}

#[test]
fn every_format_holds_its_bounds() {
    use CacheFormat::{Dtype as Float, Int4, Int8};
    let formats = [
        (Int8, Int8, 64),
        (Int4, Int4, 64),
        (Int8, Int4, 16),
        (Int4, Float(Dtype::Bf16), 48),
        (Float(Dtype::F16), Int8, 80),
        (Float(Dtype::F16), Float(Dtype::F16), 32),
        (Float(Dtype::Bf16), Float(Dtype::F32), 160),
        (Float(Dtype::F32), Float(Dtype::Bf16), 1024),
    ];
    // None of them turns or norms keys, so that the oracle can be asked about what the cache holds.
    let names = [
        "causal",
        "sliding_window",
        "alibi",
        "softcap_bias",
        "document",
        "mqa",
        "attention_sink",
        "sigmoid",
        "cross",
    ];
    let mut seed = 0;
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for entry in engines::serving(dtype) {
            for ((k, v, page), name) in formats.into_iter().zip(names.iter().cycle().skip(seed as usize)) {
                seed += 1;
                let spec = specs::narrow(named(name), 72, 40);
                let kernel = run::compile(&cached_as(spec, k, v, page), entry, dtype);
                let queries = [1, 5][seed as usize % 2];
                let sizes = Sizes::new(&KEYS[4..], queries);
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 100).expect("a case is small");
                let outputs = attend(&kernel, &case, &inputs, &filled, &Solo);
                let told = || format!("{} in {:?}", run::describe(name, entry, &case), kernel.plan().cache);
                let cache = kernel.plan().cache;
                let storage = bounds::bound(Quantity::Output, dtype, Precision::Exact, 0.0);
                let of = |codec| bounds::cached(codec, dtype).unwrap_or(storage);
                let rms = of(cache.k).max(of(cache.v));
                let sample = Sample::new(&case.problem, &case.variant.heads, 1, seed);
                // Queries and weights of 16 bits leave more than f32 does, and less than any bound on 16-bit storage.
                let of_integers =
                    [cache.k, cache.v].iter().any(|codec| matches!(codec, Codec::Int8 | Codec::Int4));
                let allowed = if of_integers && dtype == Dtype::F32 { Dtype::F16 } else { dtype };
                let wide = Case { dtype: Dtype::F32, ..case };
                match wide.judge(&held(&case, &inputs, &filled), &widened(&wide, &outputs), &sample) {
                    Ok(_) => {}
                    Err(Failure::Bound(report)) if report.share() <= loosened(allowed) => {}
                    Err(error) => panic!("{}: {error}", told()),
                }
                let exact = run::run(&kernel, &case, &inputs, &Solo).expect("a case that was judged");
                let found = relative_rms(&outputs.o.view(), &exact.o.view());
                assert!(found <= rms, "{}: {found:.1e} of {rms:.1e}", told());
            }
        }
    }
}

/// How much wider the bounds of a storage type are than those of f32.
fn loosened(dtype: Dtype) -> f64 {
    let of = |dtype| bounds::bound(Quantity::Output, dtype, Precision::Exact, 0.0);
    of(dtype) / of(Dtype::F32)
}

/// The bits of some rows of the outputs, of all heads.
fn bits(outputs: &Outputs, first: usize, count: usize) -> Vec<u64> {
    let rows = |tensor: &Tensor4<'_>| -> Vec<u64> {
        let places = (0..tensor.shape()[1]).flat_map(|h| (first..first + count).map(move |n| (h, n)));
        places.flat_map(|(h, n)| tensor.row(0, h, n)).map(f64::to_bits).collect()
    };
    let lse = outputs.lse.as_ref().map(|lse| rows(&lse.view())).unwrap_or_default();
    [rows(&outputs.o.view()), lse].concat()
}

fn named(name: &str) -> &'static regard::Shipped {
    SHIPPED.iter().find(|shipped| shipped.name == name).unwrap_or_else(|| panic!("{name} is shipped"))
}

/// Formats of keys and values, with the tokens of a page.
const FORMATS: [(CacheFormat, CacheFormat, u32); 4] = [
    (CacheFormat::Same, CacheFormat::Same, 64),
    (CacheFormat::Int8, CacheFormat::Int8, 32),
    (CacheFormat::Int4, CacheFormat::Same, 16),
    (CacheFormat::Dtype(Dtype::F16), CacheFormat::Int4, 48),
];

#[test]
fn threads_and_neighbours_change_no_bit() {
    let pools = [Pool::new(2).expect("threads"), Pool::new(3).expect("threads")];
    let lengths = [1600, 17, 700, 1, 64, 1030];
    let mut seed = 0;
    for entry in engines::available() {
        for (format, name) in
            FORMATS.into_iter().cycle().zip(["causal", "attention_sink", "document", "gqa", "qk_norm"])
        {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                seed += 1;
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&cached_as(spec, format.0, format.1, format.2), entry, dtype);
                let sizes = Sizes::new(&lengths, 1);
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 64).expect("a case is small");
                let together = attend(&kernel, &case, &inputs, &filled, &Solo);
                for pool in &pools {
                    let again = attend(&kernel, &case, &inputs, &filled, pool);
                    assert!(
                        bits(&together, 0, lengths.len()) == bits(&again, 0, lengths.len()),
                        "{name} on {entry:?}"
                    );
                }
                for (index, &len) in lengths.iter().enumerate() {
                    let alone = Sizes::new(&[len], 1);
                    let one = alone.case(&kernel, seed);
                    let inputs = cached::sequence_of(&case, &inputs, index as u32);
                    let filled = cached::fill(&kernel, &one, &inputs, 1000).expect("a case is small");
                    let outputs = attend(&kernel, &one, &inputs, &filled, &pools[0]);
                    assert!(
                        bits(&outputs, 0, 1) == bits(&together, index, 1),
                        "{name} on {entry:?}: sequence {index}"
                    );
                }
            }
        }
    }
}

#[test]
fn queries_at_once_are_what_they_are_one_by_one() {
    let (len, queries) = (1100, 7);
    for entry in engines::available() {
        for (format, name) in FORMATS.into_iter().zip(["causal", "sliding_window", "alibi", "rope"]) {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&cached_as(spec, format.0, format.1, format.2), entry, dtype);
                let sizes = Sizes::new(&[len], queries);
                let case = sizes.case(&kernel, 5);
                let inputs = case.inputs();
                let mut filled = cached::fill(&kernel, &case, &inputs, 64).expect("a case is small");
                let together = attend(&kernel, &case, &inputs, &filled, &Solo);
                // From the last one back: each is then the last token.
                for query in (0..queries).rev() {
                    let keys = len - (queries - 1 - query);
                    filled.cache.truncate(filled.sequences[0], keys).expect("it is as long");
                    let one = Sizes::new(&[keys], 1);
                    let one = one.case(&kernel, 5);
                    let inputs = Inputs {
                        q: regard_tests::cut(&inputs.q.view(), dtype, query..query + 1),
                        ..inputs.clone()
                    };
                    let outputs = attend(&kernel, &one, &inputs, &filled, &Solo);
                    assert!(
                        bits(&outputs, 0, 1) == bits(&together, query, 1),
                        "{name} on {entry:?}: query {query}"
                    );
                }
            }
        }
    }
}

/// What a cache and the rows of its sequences should be, kept the plain way.
struct Model {
    cache: Cache,
    /// Each open sequence, and which rows of the inputs its tokens are.
    open: Vec<(SequenceId, Vec<usize>)>,
}

#[test]
fn sequences_that_fork_grow_and_shrink_are_what_they_would_be_alone() {
    let spec = specs::parse(
        "heads = { query = 4, kv = 2, dim = 24 }\nmask = 'causal'\ncache = { layout = 'paged', page = 16 }",
    );
    let rows = 400;
    for (seed, entry) in engines::serving(Dtype::F32).into_iter().enumerate() {
        for (layout, format) in [
            (CacheLayout::Paged, CacheFormat::Same),
            (CacheLayout::Contiguous, CacheFormat::Int8),
            (CacheLayout::Paged, CacheFormat::Int4),
        ] {
            let cache = spec::Cache { layout, k: format, v: format, ..spec.cache };
            let kernel = run::compile(&Spec { cache, ..spec.clone() }, entry, Dtype::F32);
            let sizes = Sizes::new(&[rows], rows);
            let case = sizes.case(&kernel, 3);
            let inputs = case.inputs();
            let limits = CacheLimits { all_tokens: Some(500), ..CacheLimits::new(5, 200) };
            let mut model = Model { cache: kernel.cache(limits).expect("small"), open: Vec::new() };
            let mut dice = Dice(seed as u64 + 1);
            for _ in 0..300 {
                act(&kernel, (&case, &inputs), &mut model, &mut dice);
            }
            for (sequence, tokens) in &model.open {
                assert_eq!(model.cache.len(*sequence), Ok(tokens.len()));
                for head in 0..2 {
                    for (at, &row) in tokens.iter().enumerate() {
                        same_as_alone(&kernel, (&case, &inputs), &model.cache, (*sequence, at), (head, row));
                    }
                }
            }
            for (sequence, _) in model.open {
                model.cache.close(sequence).expect("it is open");
                assert_eq!(model.cache.close(sequence), Err(StoreError::Unknown));
            }
            let all = (layout == CacheLayout::Paged).then_some(500usize.div_ceil(16));
            assert_eq!(model.cache.free_pages(), all, "no page is lost");
        }
    }
}

/// Numbers that are drawn: xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// Does one thing with a cache; what it refuses must leave it as it was.
fn act(kernel: &Kernel, (case, inputs): (&Case<'_>, &Inputs), model: &mut Model, dice: &mut Dice) {
    let Model { cache, open } = model;
    let one = dice.below(open.len().max(1));
    match (dice.below(10), open.is_empty()) {
        (0, _) | (_, true) => match cache.open() {
            Ok(sequence) => open.push((sequence, Vec::new())),
            Err(error) => assert_eq!((error, open.len()), (StoreError::Sequences { open: 5 }, 5)),
        },
        (1, _) => {
            let (sequence, tokens) = &open[one];
            if let Ok(forked) = cache.fork(*sequence) {
                let tokens = tokens.clone();
                open.push((forked, tokens));
            }
        }
        (2 | 3, _) => {
            let (sequence, tokens) = &mut open[one];
            let len = dice.below(tokens.len() + 1);
            cache.truncate(*sequence, len).expect("it has as many");
            tokens.truncate(len);
            assert!(cache.truncate(*sequence, len + 1).is_err());
        }
        (4, _) if open.len() > 2 => {
            let (sequence, _) = open.swap_remove(one);
            cache.close(sequence).expect("it is open");
        }
        _ => {
            let (sequence, tokens) = &mut open[one];
            let first = dice.below(300);
            let rows: Vec<usize> = (first..first + 1 + dice.below(60)).collect();
            let appended =
                cached::append(kernel, (case, inputs), (cache, *sequence), 0, first..first + rows.len());
            match appended {
                Ok(()) => tokens.extend(rows),
                Err(RunError::Store(StoreError::TooLong { .. } | StoreError::Pages { .. })) => {
                    assert_eq!(cache.len(*sequence), Ok(tokens.len()), "nothing was changed");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Whether a cached row is what it is in a cache that has nothing else.
fn same_as_alone(
    kernel: &Kernel,
    (case, inputs): (&Case<'_>, &Inputs),
    cache: &Cache,
    (sequence, at): (SequenceId, usize),
    (head, row): (usize, usize),
) {
    let mut alone = kernel.cache(CacheLimits::new(1, 1)).expect("small");
    let only = alone.open().expect("room for one");
    cached::append(kernel, (case, inputs), (&mut alone, only), 0, row..row + 1).expect("room for one");
    for of in [RowOf::Key(head), RowOf::Value(head)] {
        let (mut found, mut expected) = ([0.0; 24], [0.0; 24]);
        assert_eq!(cache.read(sequence, at, of, &mut found), Ok(true));
        assert_eq!(alone.read(only, 0, of, &mut expected), Ok(true));
        assert_eq!(found, expected, "{of:?} of token {at}");
    }
}

#[test]
fn prefills_of_caches_are_what_tensors_give() {
    let lengths = [1, 17, 64, 300, 1100];
    let mut seed = 0;
    for dtype in Dtype::ALL {
        for entry in engines::serving(dtype) {
            for name in [
                "causal",
                "document",
                "softcap_bias",
                "qk_norm",
                "rope",
                "gated",
                "talking_output",
                "value_heads",
            ] {
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                seed += 1;
                let kernel =
                    run::compile(&cached_as(spec, CacheFormat::Same, CacheFormat::Same, 48), entry, dtype);
                let sizes =
                    Sizes { cu_q: cumulative([1, 9, 64, 40, 77].into_iter()), ..Sizes::new(&lengths, 1) };
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 64).expect("a case is small");
                let told = || run::describe(name, entry, &case);
                let outputs = cached::prefill(&kernel, &case, &inputs, &filled, &Solo)
                    .unwrap_or_else(|error| panic!("{}: {error}", told()));
                // Turned or normed keys are rounded to the storage type once more than without a cache.
                let turned = kernel.variant().position.is_some() || kernel.variant().qk_norm.is_some();
                if dtype == Dtype::F32 || !turned {
                    let exact = run::run(&kernel, &case, &inputs, &Solo).expect("a case is small");
                    let all = case.problem.all_queries() as usize;
                    assert!(bits(&outputs, 0, all) == bits(&exact, 0, all), "{}", told());
                }
                run::judge(&case, &inputs, Ok(outputs), kernel.plan())
                    .unwrap_or_else(|error| panic!("{}: {error}", told()));
            }
        }
    }
}

#[test]
fn a_prompt_in_pieces_is_what_it_is_at_once() {
    let (len, pieces) = (700, [1, 40, 263, 64, 300, 32]);
    for entry in engines::available() {
        for (format, name) in FORMATS.into_iter().zip(["causal", "sliding_window", "alibi", "gqa"]) {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&cached_as(spec, format.0, format.1, format.2), entry, dtype);
                let sizes = Sizes::new(&[len], len);
                let case = sizes.case(&kernel, 11);
                let inputs = case.inputs();
                let whole = cached::fill(&kernel, &case, &inputs, len).expect("a case is small");
                let at_once =
                    cached::prefill(&kernel, &case, &inputs, &whole, &Solo).expect("a case is small");
                let mut cache = kernel.cache(cached::limits(&case)).expect("small");
                let sequence = cache.open().expect("room for one");
                let mut filled = Filled { cache, sequences: vec![sequence] };
                let mut first = 0;
                for piece in pieces {
                    cached::append(
                        &kernel,
                        (&case, &inputs),
                        (&mut filled.cache, sequence),
                        0,
                        first..first + piece,
                    )
                    .expect("room for all");
                    let sizes = Sizes { cu_q: vec![0, piece as i32], cu_k: vec![0, (first + piece) as i32] };
                    let part = sizes.case(&kernel, 11);
                    let q = regard_tests::cut(&inputs.q.view(), dtype, first..first + piece);
                    let inputs = Inputs { q, ..inputs.clone() };
                    let outputs =
                        cached::prefill(&kernel, &part, &inputs, &filled, &Solo).expect("a case is small");
                    assert!(
                        bits(&outputs, 0, piece) == bits(&at_once, first, piece),
                        "{name} on {entry:?}: tokens from {first}"
                    );
                    first += piece;
                }
                assert_eq!(first, len);
            }
        }
    }
}

/// Specs whose keys a ring can hold, with tokens that it needs.
const RINGS: [&str; 4] = [
    "mask = 'causal & window(100)'",
    "mask = 'causal & (window(37) | first(5))'\nweights = { sink = 'one' }",
    "mask = 'causal & q // 64 == k // 64'",
    "mask = 'causal & band(50, 0) & k % 3 != 1'\nposition = { rope = { theta = 10_000 } }",
];

#[test]
fn rings_give_what_whole_caches_do() {
    for mask in RINGS {
        let text = format!(
            "heads = {{ query = 4, kv = 2, dim = 24 }}\n{mask}\ncache = {{ layout = 'ring', page = 16 }}"
        );
        let ring = specs::parse(&text);
        let whole =
            Spec { cache: spec::Cache { layout: CacheLayout::Contiguous, ..ring.cache }, ..ring.clone() };
        for entry in engines::serving(Dtype::F32) {
            let kernels = [&ring, &whole].map(|spec| run::compile(spec, entry, Dtype::F32));
            let len = 900;
            let sizes = Sizes::new(&[len], len);
            let cases = [0, 1].map(|i| sizes.case(&kernels[i], 2));
            let inputs = cases[0].inputs();
            let limits = CacheLimits { at_once: 20, ..CacheLimits::new(1, len) };
            let mut filled = [0, 1].map(|i| {
                let mut cache = kernels[i].cache(limits).expect("small");
                let sequence = cache.open().expect("room for one");
                Filled { cache, sequences: vec![sequence] }
            });
            assert!(filled[0].cache.bytes() * 2 < filled[1].cache.bytes(), "a ring is smaller: {mask}");
            let mut dice = Dice(7);
            let mut tokens = 0;
            while tokens < len {
                // Some tokens, of which the last are taken back as often as not.
                let count = (1 + dice.below(20)).min(len - tokens);
                let back = if dice.below(2) == 0 { 0 } else { dice.below(count) };
                let outputs = [0, 1].map(|i| {
                    let at = (&mut filled[i].cache, filled[i].sequences[0]);
                    cached::append(&kernels[i], (&cases[i], &inputs), at, 0, tokens..tokens + count)
                        .expect("room");
                    filled[i]
                        .cache
                        .truncate(filled[i].sequences[0], tokens + count - back)
                        .expect("it has them");
                    let queries = count - back;
                    let end = tokens + queries;
                    let sizes = Sizes { cu_q: vec![0, queries as i32], cu_k: vec![0, end as i32] };
                    let case = sizes.case(&kernels[i], 2);
                    let q = regard_tests::cut(&inputs.q.view(), Dtype::F32, tokens..end);
                    let inputs = Inputs { q, ..inputs.clone() };
                    let prefilled = cached::prefill(&kernels[i], &case, &inputs, &filled[i], &Solo)
                        .expect("a case is small");
                    let attended = attend(&kernels[i], &case, &inputs, &filled[i], &Solo);
                    [bits(&prefilled, 0, queries), bits(&attended, 0, queries)]
                });
                assert!(
                    outputs[0] == outputs[1],
                    "{mask} on {entry:?}: {count} tokens from {tokens}, {back} taken back"
                );
                tokens += count - back;
            }
            let sequence = filled[0].sequences[0];
            assert!(
                matches!(filled[0].cache.truncate(sequence, 500), Err(StoreError::Lost { .. })),
                "{mask}"
            );
            assert_eq!(filled[0].cache.len(sequence), Ok(len));
        }
    }
}

#[test]
fn rings_are_refused_where_keys_stay_in_sight() {
    let machine = regard::machine::host();
    for mask in
        ["causal", "all", "causal & k % 7 == 0", "causal & window(nk)", "causal & (window(9) | k % 64 == 0)"]
    {
        let text = format!("heads = {{ query = 2, dim = 8 }}\nmask = '{mask}'\ncache = 'ring'");
        let error = Kernel::compile(&specs::parse(&text), &machine).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("`cache.layout` is `ring`")), "{mask}");
    }
}
