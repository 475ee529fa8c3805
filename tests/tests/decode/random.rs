//! Random variants decoded: whatever becomes of a sequence while it grows, each of its tokens gives what a prefill of all
//! tokens from tensors gives it.
//!
//! A failure shrinks, and is kept in `failures.txt` beside this file, which later runs begin with.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::panic::resume_unwind;
use std::{slice, thread};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use regard::ir::operands::Rows;
use regard::{Dtype, Kernel, MAX_FEW, RowOf, RunError, Solo};
use regard_engine::catalog::Entry;
use regard_ir::bounds::{self, Quantity};
use regard_ir::cache::Codec;
use regard_ir::expr::Var;
use regard_ir::interval::{Liveness, Region, Span, Unknown};
use regard_ir::plan::Plan;
use regard_ir::reach::reach;
use regard_ir::spec::{self, CacheFormat, CacheLayout, Mechanism, Spec};
use regard_ir::tiles;
use regard_ir::variant::{Heads, LatentForm, Variant};
use regard_oracle::Keys;
use regard_oracle::sample::Sample;
use regard_testkit::{Case, Failure, Inputs, Output, Outputs};
use regard_tests::cached::{self, Filled};
use regard_tests::drawn::{self, Draws, Sight};
use regard_tests::{cut, engines, held, run};

use crate::story::{self, Attended, Phase, Story};
use crate::{Sizes, bits};

/// What cases are drawn from: one of those with many sequences of several cells, for their length.
const SEED: u64 = 0x6465_706e_e466;

/// Where failures are kept, from the folder of this package.
const FAILURES: &str = "tests/decode/failures.txt";

/// Numbers that decide a spec, and those that decide what becomes of a sequence.
const DRAWS: [usize; 2] = [60, 400];

/// Products of a prefill at most: wide specs have shorter sequences.
const MOST_PRODUCTS: u64 = 1_000_000_000;

/// Products of a prefill at most on an emulated unit, which is slower by a hundred times.
const MOST_EMULATED: u64 = 5_000_000;

/// Products of a query and a key in all heads.
fn products_of_pair(heads: &Heads) -> u64 {
    u64::from(heads.query) * u64::from(heads.dim + heads.value_dim)
}

// What is counted: specs, and of each engine what it was compared by.
const READS_LENGTHS: &str = "skipped: reads nq or nk";
const SEES_LATER: &str = "skipped: sees later keys";
const MIXED: &str = "of pseudo-heads";
const SEVERAL_CELLS: &str = "of several cells";
const ALL_DIGITS: &str = "in all digits";
const FEWER_DIGITS: &str = "in fewer digits";
const CHANGED_KEYS: &str = "changed keys in fewer digits";
const CANCELLING: &str = "cancelling";
const ASKED: &str = "asked of the oracle";

/// What was seen, by name.
type Counts = RefCell<BTreeMap<&'static str, u32>>;

fn count(counts: &Counts, what: &'static str) {
    *counts.borrow_mut().entry(what).or_default() += 1;
}

/// What is drawn beside the spec.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    dtype: Dtype,
    seed: u64,
    tokens: usize,
    prompt: usize,
    /// Queries of a call at most, and tokens that are taken back.
    at_once: usize,
}

impl Drawn {
    fn new(draws: &mut Draws<'_>, spec: &Spec) -> Self {
        let tokens = match draws.below(8) {
            7 => 1000 + draws.below(300),
            _ => draws.pick(&[33, 1, 2, 16, 17, 63, 64, 65, 97, 150, 257, 400]),
        };
        let most = MOST_PRODUCTS / products_of_pair(&spec.heads).max(1);
        let per_token = spec.variant().per_token() as usize;
        let tokens = (tokens as usize).min(most.isqrt() as usize / per_token);
        let steps = if tokens > 150 || draws.coin() { 60 } else { tokens as u32 };
        let prompt = tokens - draws.below(steps.min(tokens as u32) + 1) as usize;
        let at_once = match spec.cache.layout {
            CacheLayout::Ring => draws.pick(&[20, 5, 1, 64, 150]),
            CacheLayout::Contiguous | CacheLayout::Paged => tokens,
        };
        let dtype = draws.pick(&[Dtype::F32, Dtype::F32, Dtype::Bf16, Dtype::F16]);
        Self { dtype, seed: draws.below(1 << 20).into(), tokens, prompt, at_once }
    }
}

/// How a spec's keys and values are cached.
fn cache(draws: &mut Draws<'_>, variant: &Variant<'_>) -> spec::Cache {
    let is_ring = |layout: &CacheLayout| *layout == CacheLayout::Ring;
    let layout = draws.pick(&[CacheLayout::Contiguous, CacheLayout::Ring, CacheLayout::Paged]);
    let layout = if is_ring(&layout) && reach(variant).is_none() { CacheLayout::Paged } else { layout };
    let page = Some(draws.pick(&[16, 32, 48, 64, 80]));
    let [k, v] = if draws.coin() {
        [draws.pick(&CacheFormat::ALL), draws.pick(&CacheFormat::ALL)]
    } else {
        [CacheFormat::Same; 2]
    };
    spec::Cache { layout, page, k, v, file: false }
}

/// Every other spec with its heads mixed into pseudo-heads, without what that leaves no meaning, if nothing else keeps it from that.
fn mixed(text: &str, draw: usize) -> Option<Spec> {
    let heads = [0, 3, 0, 1, 0, 2, 0, 5][draw % 8];
    let causal = ["flat", "token"][draw / 8 % 2];
    // Which is chosen by itself may be another for other formats.
    let form = ["expanded", "compact"][draw / 4 % 2];
    let mut text = format!("{text}pseudo = {{ heads = {heads}, causal = '{causal}', form = '{form}' }}\n");
    for meaningless in [
        ", value = 1",
        ", value = 2",
        ", value = 3",
        "lse = true, ",
        "mix = \"learned\", ",
        ", axis = \"all\"",
    ] {
        text = text.replace(meaningless, "");
    }
    if heads == 0 {
        None
    } else {
        regard::parse(&text, "random.toml", &regard::NoFiles).ok().map(|it| it.spec)
    }
}

/// Why a sequence of a spec cannot grow, if it cannot: what a token gives would hang on later ones.
fn hangs_on_later(variant: &Variant<'_>, tokens: usize) -> Option<&'static str> {
    let reads = |var| variant.allow.reads(var) || variant.modify.reads(var);
    if reads(Var::Nq) || reads(Var::Nk) {
        return Some(READS_LENGTHS);
    }
    let heads = variant.scored().heads;
    let (per_token, up_to) = (variant.per_token() as i32, |n: u32| Span { lo: 0, hi: n as i32 - 1 });
    let positions = tokens as i32 * per_token;
    let sees_later = |token: i32| {
        let next = (token + 1) * per_token;
        let region = Region {
            b: Span::point(0),
            h: up_to(heads.query),
            g: up_to(heads.kv),
            q: Span { lo: token * per_token, hi: next - 1 },
            k: Span { lo: next, hi: positions - 1 },
            nq: positions,
            nk: positions,
        };
        tiles::liveness(variant.allow, &region, &Unknown(variant.inputs)) != Liveness::Dead
    };
    (0..tokens as i32 - 1).any(sees_later).then_some(SEES_LATER)
}

/// Compares what the draws say on every engine.
fn check(
    entries: &[&'static Entry],
    of_spec: &[u32],
    of_story: &[u32],
    counts: &Counts,
) -> Result<(), TestCaseError> {
    let text = drawn::text(&mut Draws::new(of_spec), Sight::Back);
    let parsed = regard::parse(&text, "random.toml", &regard::NoFiles);
    let spec = parsed.map_err(|diagnostics| TestCaseError::fail(format!("{text}\n{diagnostics}")))?.spec;
    let mut draws = Draws::new(of_story);
    let spec = mixed(&text, of_spec.len()).unwrap_or(spec);
    if spec.variant().pseudo().is_some() {
        count(counts, MIXED);
    }
    let cache = cache(&mut draws, &spec.variant());
    let mut spec = Spec { cache, ..spec };
    // Which is chosen by itself may be another for a piece than for the whole.
    if let Mechanism::Latent(latent) = &mut spec.mechanism
        && latent.form == LatentForm::Auto
    {
        latent.form = LatentForm::ALL[1 + of_story.len() % 2];
    }
    let drawn = Drawn::new(&mut draws, &spec);
    if let Some(reason) = hangs_on_later(&spec.variant(), drawn.tokens) {
        count(counts, reason);
        return Ok(());
    }
    count(counts, cache.layout.name());
    if drawn.tokens > 1024 {
        count(counts, SEVERAL_CELLS);
    }
    let positions = drawn.tokens as u64 * u64::from(spec.variant().per_token());
    let is_short = positions.pow(2) * products_of_pair(&spec.heads) <= MOST_EMULATED;
    for &entry in entries {
        if run::serves(&spec, entry, drawn.dtype) && (is_short || !entry.emulated) {
            let told = Telling { spec: &spec, entry, drawn, counts };
            told.check(draws.clone()).map_err(|error| {
                let engine = [entry.engine.name(), entry.isa.name()];
                let of = (spec.mechanism.clone(), cache);
                TestCaseError::fail(format!("{text}{of:?}\n{drawn:?} on {engine:?}: {error}"))
            })?;
        }
    }
    Ok(())
}

/// A story on an engine.
struct Telling<'a> {
    spec: &'a Spec,
    entry: &'a Entry,
    drawn: Drawn,
    counts: &'a Counts,
}

impl Telling<'_> {
    fn check(&self, mut draws: Draws<'_>) -> Result<(), String> {
        let Self { spec, entry, drawn: Drawn { dtype, seed, tokens, prompt, at_once }, .. } = *self;
        let kernel = run::compile(spec, entry, dtype);
        let sizes = Sizes::new(&[tokens], tokens);
        let case = sizes.case(&kernel, seed);
        let (inputs, others) = (case.inputs(), Case { seed: seed + 1, ..case }.inputs());
        let mut story = Story::new(&kernel, &case, [&inputs, &others], at_once);
        let told = story.tell(&mut draws, prompt);
        let fail = |error: &dyn Display| format!("{error}\nafter{}", story.log);
        told.map_err(|error| fail(&error))?;
        let plain =
            Plain::new(spec, entry, (&case, &inputs), &story.attended).map_err(|error| fail(&error))?;
        plain.agrees(&story, &kernel.variant().cached_heads()).map_err(|error| fail(&error))?;
        self.near_tensors(&plain, &kernel, (&case, &inputs)).map_err(|error| fail(&error))
    }

    /// Whether the outputs are near those of a prefill from tensors, or of what the cache holds where that has fewer digits.
    fn near_tensors(
        &self,
        plain: &Plain,
        kernel: &Kernel,
        (case, inputs): (&Case<'_>, &Inputs),
    ) -> Result<(), String> {
        let tokens = self.drawn.tokens;
        let exact = run::run(kernel, case, inputs, &Solo).map_err(|error| error.to_string())?;
        let variant = kernel.variant();
        let format = kernel.plan().cache;
        let changed = variant.position.is_some() || variant.qk_norm.is_some() || format.mixed;
        // Turned or normed keys have more digits than 16 bits.
        let changed_fit = !changed || format.k == Codec::F32;
        if bounds::kept(&format, case.dtype).is_none() && changed_fit {
            count(self.counts, ALL_DIGITS);
            for rows in (0..tokens).step_by(bounds::ROWS).map(|row| row..tokens.min(row + bounds::ROWS)) {
                let near = plain.parts(&rows).all(|(rows, (first, outputs))| {
                    is_near(kernel, (outputs, rows.start - first), (&exact, rows.start), rows.len())
                });
                if !near {
                    count(self.counts, ASKED);
                    self.judge(plain, kernel, (case, inputs, None), &rows)?;
                }
            }
            return Ok(());
        }
        count(self.counts, if changed { CHANGED_KEYS } else { FEWER_DIGITS });
        let held = held::inputs(kernel, case, inputs, &plain.filled);
        for end in [tokens, plain.stepped.0 + 2, tokens / 2, 1026, 3] {
            let end = end.clamp(1, tokens);
            self.judge(plain, kernel, (case, inputs, Some(&held)), &(end.saturating_sub(4)..end))?;
        }
        Ok(())
    }

    /// Judges some rows by the oracle, on the inputs or on what the cache holds of them.
    fn judge(
        &self,
        plain: &Plain,
        kernel: &Kernel,
        (case, inputs, held): (&Case<'_>, &Inputs, Option<&Inputs>),
        rows: &Range<usize>,
    ) -> Result<(), String> {
        for (rows, (first, outputs)) in plain.parts(rows) {
            let sizes = Sizes { cu_q: vec![0, rows.len() as i32], cu_k: vec![0, rows.end as i32] };
            let part = sizes.case(kernel, case.seed);
            let given = held.unwrap_or(inputs);
            let dtype = held.map_or(case.dtype, |_| Dtype::F32);
            let wide = Case { dtype, ..part };
            let asked = story::queries(&Case { dtype, ..*case }, given, slice::from_ref(&rows));
            let rows_of_token = match given.keys {
                Keys::Mixed => case.variant.per_token() as usize,
                Keys::Given | Keys::Cached => 1,
            };
            let given = given.map(&case.variant, |of_rows, tensor| match of_rows {
                Rows::Keys => cut(&tensor.view(), dtype, 0..rows.end * rows_of_token),
                Rows::Queries | Rows::Matrix(_) => tensor.clone(),
            });
            let given = asked.with_keys_of(&case.variant, &given);
            let mut found = part.outputs();
            copy((outputs, rows.start - first), (&mut found, 0), rows.len());
            let judged = match held {
                Some(_) => held::judge(kernel, &part, &given, &found).map(|_| ()),
                None => {
                    let sample = Sample::new(&part.problem, &part.variant.heads, 1, case.seed);
                    part.judge_as(kernel.plan().precision(), &given, &found, &sample).map(|_| ())
                }
            };
            match judged {
                Err(Failure::Bound(report)) if run::cancels(&wide, &given, &report) => {
                    count(self.counts, CANCELLING);
                }
                judged => judged.map_err(|failure| format!("tokens {rows:?}: {failure}"))?,
            }
        }
        Ok(())
    }
}

/// What a cache of one block gives that was filled at once and that nothing else became of.
struct Plain {
    filled: Filled,
    /// The outputs of all tokens by a prefill.
    prefilled: Outputs,
    /// The first token that was attended in a step, and the outputs of it and all later ones by steps of as many as can be.
    stepped: (usize, Outputs),
    /// How each token was attended the last time.
    phases: Vec<Phase>,
}

impl Plain {
    fn new(
        spec: &Spec,
        entry: &Entry,
        (case, inputs): (&Case<'_>, &Inputs),
        attended: &[Attended],
    ) -> Result<Self, RunError> {
        let cache = spec::Cache { layout: CacheLayout::Contiguous, ..spec.cache };
        let kernel = run::compile(&Spec { cache, ..spec.clone() }, entry, case.dtype);
        let tokens = case.problem.keys as usize;
        let filled = cached::fill(&kernel, case, inputs, tokens.max(1))?;
        let prefilled = cached::prefill(&kernel, case, inputs, &filled, &Solo)?;
        let steps = attended.iter().filter(|it| it.phase == Phase::Step);
        let first = steps.map(|it| it.token).min().unwrap_or(tokens);
        let sizes = Sizes { cu_q: vec![0, (tokens - first) as i32], cu_k: vec![0, tokens as i32] };
        let mut stepped = sizes.case(&kernel, case.seed).outputs();
        // From the last ones back: they are then the last tokens.
        let mut cut = cached::fill(&kernel, case, inputs, tokens.max(1))?;
        let mut step = kernel.step(&cut.cache, MAX_FEW as usize, 1)?;
        for end in (first + 1..=tokens).rev().step_by(MAX_FEW as usize) {
            let rows = first.max(end.saturating_sub(MAX_FEW as usize))..end;
            cut.cache.truncate(cut.sequences[0], end).expect("it has more");
            let sizes = Sizes::new(&[end], rows.len());
            let (part, queries) =
                (sizes.case(&kernel, case.seed), story::queries(case, inputs, slice::from_ref(&rows)));
            let outputs = cached::decode(&kernel, &part, &queries, &cut, (&mut step, &Solo))?;
            copy((&outputs, 0), (&mut stepped, rows.start - first), rows.len());
        }
        let mut phases = vec![Phase::Prefill; tokens];
        attended.iter().for_each(|it| phases[it.token] = it.phase);
        Ok(Self { filled, prefilled, stepped: (first, stepped), phases })
    }

    /// The outputs of a phase, and their first token.
    fn of(&self, phase: Phase) -> (usize, &Outputs) {
        match phase {
            Phase::Prefill => (0, &self.prefilled),
            Phase::Step => (self.stepped.0, &self.stepped.1),
        }
    }

    /// Some tokens, cut where their phase changes, each with its outputs and the first token of those.
    fn parts(&self, rows: &Range<usize>) -> impl Iterator<Item = (Range<usize>, (usize, &Outputs))> {
        let mut begin = rows.start;
        self.phases[rows.clone()].chunk_by(|a, b| a == b).map(move |chunk| {
            let part = begin..begin + chunk.len();
            begin = part.end;
            (part, self.of(chunk[0]))
        })
    }

    /// Whether all that a story gave has the same bits, and its cache has the same rows.
    fn agrees(&self, story: &Story<'_>, heads: &Heads) -> Result<(), String> {
        for Attended { phase, token, bits: found } in &story.attended {
            let (first, outputs) = self.of(*phase);
            if *found != bits(outputs, token - first, 1) {
                let expected = bits(outputs, token - first, 1);
                let pairs = found.iter().zip(&expected).map(|(&a, &b)| [a, b].map(f64::from_bits));
                let other: Vec<_> =
                    pairs.enumerate().filter(|(_, [a, b])| a.to_bits() != b.to_bits()).collect();
                return Err(format!(
                    "token {token} in phase {phase:?}: {} of {} numbers have other bits than without a story: {:?}",
                    other.len(),
                    found.len(),
                    &other[..other.len().min(4)],
                ));
            }
        }
        let (cache, sequence) = story.sequence();
        let keys = (0..heads.kv as usize).map(|head| (RowOf::Key(head), heads.dim));
        let values = (0..heads.value as usize).map(|head| (RowOf::Value(head), heads.value_dim));
        for (row, width) in keys.chain(values) {
            let (mut found, mut expected) = (vec![0.0; width as usize], vec![0.0; width as usize]);
            for token in 0..self.phases.len() {
                let is_there = cache.read(sequence, token, row, &mut found);
                let is_whole = self.filled.cache.read(self.filled.sequences[0], token, row, &mut expected);
                assert_eq!(is_whole, Ok(true), "it was filled");
                if is_there.map_err(|error| error.to_string())? && found != expected {
                    return Err(format!("{row:?} of token {token} is {found:?}, not {expected:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Whether some rows of some outputs are within their bound of those of others, as it is for small scores.
fn is_near(kernel: &Kernel, found: (&Outputs, usize), expected: (&Outputs, usize), count: usize) -> bool {
    let Plan { dtype, .. } = *kernel.plan();
    let near = |quantity, [found_of, expected_of]: [&Output; 2]| {
        let (found_of, expected_of) = (found_of.view(), expected_of.view());
        let bound = bounds::bound(quantity, dtype, kernel.plan().precision(), 0.0);
        (0..expected_of.shape()[1]).all(|head| {
            let (mut error, mut largest) = (0.0f64, 0.0f64);
            for row in 0..count {
                let rows = [found_of.row(0, head, found.1 + row), expected_of.row(0, head, expected.1 + row)];
                for (&found, &expected) in rows[0].iter().zip(&rows[1]) {
                    if found.to_bits() != expected.to_bits() {
                        // No number is near nothing.
                        let apart = (found - expected).abs();
                        error = if apart.is_finite() { error.max(apart) } else { f64::INFINITY };
                    }
                    if expected.is_finite() {
                        largest = largest.max(expected.abs());
                    }
                }
            }
            error <= bound * bounds::denominator(quantity, largest)
        })
    };
    near(Quantity::Output, [&found.0.o, &expected.0.o])
        && match (&found.0.lse, &expected.0.lse) {
            (Some(found), Some(expected)) => near(Quantity::Lse, [found, expected]),
            _ => true,
        }
}

/// Copies some rows of outputs.
fn copy((from, first): (&Outputs, usize), (to, at): (&mut Outputs, usize), count: usize) {
    let copy = |from: &Output, to: &mut Output| {
        let (from, heads) = (from.view(), to.shape()[1]);
        for (head, row) in (0..heads).flat_map(|head| (0..count).map(move |row| (head, row))) {
            for (channel, x) in from.row(0, head, first + row).into_iter().enumerate() {
                to.set([0, head, at + row, channel], x);
            }
        }
    };
    copy(&from.o, &mut to.o);
    if let (Some(from), Some(to)) = (&from.lse, &mut to.lse) {
        copy(from, to);
    }
}

/// What was seen while half of the cases were compared, and how many these are.
fn stories_agree(half: u64) -> (u32, BTreeMap<&'static str, u32>) {
    let config = ProptestConfig { max_shrink_iters: 100, ..drawn::half_of(120, SEED, half, FAILURES) };
    let (cases, entries, counts) = (config.cases, engines::available(), Counts::default());
    let mut runner = TestRunner::new(config);
    let draws = DRAWS.map(|most| proptest::collection::vec(any::<u32>(), most / 4..most));
    let result = runner.run(&(draws[0].clone(), draws[1].clone()), |(of_spec, of_story)| {
        check(&entries, &of_spec, &of_story, &counts)
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    (cases, counts.into_inner())
}

#[test]
fn whatever_became_of_a_sequence_its_tokens_give_what_a_prefill_gives() {
    let halves = thread::scope(|scope| {
        let halves = [0, 1].map(|half| scope.spawn(move || stories_agree(half)));
        halves.map(|half| half.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let (mut cases, mut counts) = (0, BTreeMap::new());
    for (cases_of_half, counts_of_half) in halves {
        cases += cases_of_half;
        counts_of_half.into_iter().for_each(|(what, n)| *counts.entry(what).or_insert(0) += n);
    }
    println!("of {cases}: {counts:?}");
    let counted = |names: &[&str]| names.iter().filter_map(|name| counts.get(name)).sum::<u32>();
    let skipped = counted(&[READS_LENGTHS, SEES_LATER]);
    assert!(skipped * 4 < cases, "{skipped} of {cases} were skipped");
    for layout in CacheLayout::ALL {
        assert!(counted(&[layout.name()]) * 20 > cases, "few sequences are {}", layout.name());
    }
    assert!(counted(&[SEVERAL_CELLS]) * 40 > cases, "few sequences have more than a cell");
    assert!(counted(&[MIXED]) * 20 > cases, "few have pseudo-heads");
    let compared = counted(&[ALL_DIGITS, FEWER_DIGITS, CHANGED_KEYS]);
    let cancelling = counted(&[CANCELLING]);
    assert!(cancelling * 100 < compared, "{cancelling} of {compared} cancel");
}
