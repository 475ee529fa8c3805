//! Tokens on their way into a cache: normed and turned once, and stored as the cache's codecs do.

use regard_engine::Engine;
use regard_engine::Op;
use regard_engine::grid::Lots;
use regard_engine::isa::Door;
use regard_engine::pack::Rows as _;
use regard_engine::pages::{self, Rows, TOKENS};
use regard_engine::threads::{Solo, Threads};
use regard_ir::cache::PageShape;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::plan::Plan;
use regard_ir::problem::{KeyRange, MAX_FEW, Problem};
use regard_ir::variant::{Mechanism, Variant};

use super::expanded;
use super::lesson::{Learners, Lesson};
use super::teach::{Product, Weighing};
use crate::cache::CachedSequenceMut;
use crate::carve::{ALIGN, align};
use crate::code::{Code, Fault};
use crate::flash::{RunError, WorkspaceLen, check_storage, check_tokens};
use crate::mix::Mixes;
use crate::operands::{self, KeyRows};
use crate::rows::{Change, Changed, Side, Tensor, turns};
use crate::tokens::{self, TokenLayout};
use crate::view::View;

/// Keys and values of tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Their rows.
    pub kv: KeyRows<'a>,
    /// Captured tensors, as long as the sequence is then: the declared ones in the order of their declaration, then those of
    /// learned tables.
    pub captured: &'a [InputData<'a>],
}

impl<'a> Tokens<'a> {
    /// Keys and values of heads, of a variant that captures nothing.
    pub const fn new(k: View<'a>, v: View<'a>) -> Self {
        Self::of(KeyRows::Plain { k, v })
    }

    /// Rows of any mechanism, of a variant that captures nothing.
    pub const fn of(kv: KeyRows<'a>) -> Self {
        Self { kv, captured: &[] }
    }

    /// With captured tensors.
    pub const fn captured(self, captured: &'a [InputData<'a>]) -> Self {
        Self { captured, ..self }
    }
}

impl Tokens<'_> {
    /// Whether they are those that `problem` holds, a part of one sequence without queries: whether [`append`] can write them. Of a
    /// plan whose cache has rows of virtual tokens, the problem is in these.
    ///
    /// # Errors
    /// If a tensor does not fit variant and problem, or a position lies outside the tensor that it is read from.
    pub fn check(
        &self,
        (variant, plan): (&Variant<'_>, &Plan),
        problem: &Problem<'_>,
    ) -> Result<(), RunError> {
        let captured = captured_of((variant, plan), self.captured);
        let variant = &as_given((variant, plan));
        check_tokens(variant, problem)?;
        operands::check((variant, plan.dtype), problem, None, Some(&self.kv))?;
        let captured = Captured::bind(variant.inputs, captured, &variant.heads, variant.source, problem)
            .map_err(RunError::Captured)?;
        Mixes::new(variant, &captured).map_err(RunError::Captured)?;
        if let Some(ids) = variant.position.and_then(|position| position.ids) {
            let input = ids as usize;
            let KeyRange { begin, end } = problem.sequence(0).held;
            let is_i32 = matches!(captured.data(input), InputData::I32(_));
            if !(begin..end).all(|at| is_i32 && captured.offset(input, &[0, at as i32]).is_some()) {
                return Err(RunError::Index { input });
            }
        }
        Ok(())
    }
}

/// The first tokens that a problem holds, of so many positions each: as many as are written at a time.
fn piece<'a>(problem: &Problem<'a>, held: KeyRange, per_token: u32) -> Problem<'a> {
    let count = (tokens::CHUNK as u32 / per_token).max(1) * per_token;
    let end = held.end.min(held.begin.saturating_add(count));
    Problem { part: Some(KeyRange { end, ..held }), ..*problem }
}

/// A variant by whose rows a cache holds: where heads are mixed as rows are read, that of the rows as they are given.
fn as_given<'a>((variant, plan): (&Variant<'a>, &Plan)) -> Variant<'a> {
    match variant.mechanism {
        Mechanism::Pseudo(_) if !plan.cache.mixed => {
            Variant { mechanism: Mechanism::Plain, position: None, qk_norm: None, inputs: &[], ..*variant }
        }
        _ => *variant,
    }
}

/// The captured tensors that this reads.
const fn captured_of<'a>(
    (variant, plan): (&Variant<'_>, &Plan),
    captured: &'a [InputData<'a>],
) -> &'a [InputData<'a>] {
    if variant.pseudo().is_some() && !plan.cache.mixed { &[] } else { captured }
}

/// Floats that [`append`] works in where so many threads teach lookahead keys; those that one needs will do.
pub fn append_len<E: Engine>(
    _: E,
    (variant, plan): (&Variant<'_>, &Plan),
    code: &dyn Code<E::Lanes>,
    problem: &Problem<'_>,
    threads: usize,
) -> usize {
    let variant = &stored((variant, plan));
    let per_token = variant.per_token();
    let piece = piece(problem, problem.sequence(0).held, per_token);
    let layout = TokenLayout::of_keys(variant, &piece);
    let lesson = code.teaches().map_or(0, Weighing::<E::Lanes>::len);
    let mixed = variant.pseudo().map_or(0, |_| {
        let held = piece.sequence(0).held;
        expanded::kv_len(variant, (held.len() / per_token) as usize)
    });
    rows_len(variant)
        .saturating_add(mixed)
        .saturating_add(layout.frequencies_len())
        .saturating_add(layout.table_len())
        .saturating_add(lesson.saturating_mul(threads))
        .saturating_add(ALIGN)
}

/// The variant whose keys and values are the rows that are cached.
fn stored<'a>((variant, plan): (&Variant<'a>, &Plan)) -> Variant<'a> {
    match &variant.mechanism {
        Mechanism::Latent(latent) => variant.absorbed(latent),
        Mechanism::Plain | Mechanism::Lookahead(_) | Mechanism::Recurrence(_) => *variant,
        Mechanism::Pseudo(_) => as_given((variant, plan)).scored(),
    }
}

/// Of the rows that are written at a time, of a variant with such keys and values.
pub(crate) fn rows_len(variant: &Variant<'_>) -> usize {
    let widest = variant.heads.dim.max(variant.heads.value_dim) as usize;
    (TOKENS * pages::stride(widest)).next_multiple_of(ALIGN)
}

/// Writes the tokens that `problem` holds, a part of one sequence without queries, to its cache.
///
/// Lookahead keys first learn for good from tokens that are not to be taken back, and at last those that are written weigh what they
/// teach, both on all threads; the rest is the work of one.
///
/// # Errors
/// As [`Tokens::check`], if the engine does not compute the storage type, or if `floats` are fewer than [`append_len`] says of one
/// thread. Nothing is written then, or, where who teaches whom reads outside of a captured tensor, nothing but the tokens.
pub fn append<E: Engine>(
    engine: E,
    (variant, plan, problem): (&Variant<'_>, &Plan, &Problem<'_>),
    code: &dyn Code<E::Lanes>,
    tokens: Tokens<'_>,
    mut cache: CachedSequenceMut<'_>,
    threads: &dyn Threads,
    floats: &mut [f32],
) -> Result<(), RunError> {
    check_storage::<E>(plan.dtype)?;
    if variant.recurrence().is_some() {
        return Err(RunError::Mechanism);
    }
    tokens.check((variant, plan), problem)?;
    let captured = captured_of((variant, plan), tokens.captured);
    let needed = append_len(engine, (variant, plan), code, problem, 1);
    let page = plan.cache.shape(variant);
    let variant = &as_given((variant, plan));
    let captured = Captured::bind(variant.inputs, captured, &variant.heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    if floats.len() < needed {
        let len = |floats| WorkspaceLen { floats, spans: 0 };
        return Err(RunError::Workspace { needed: len(needed), found: len(floats.len()) });
    }
    let mixes = Mixes::new(variant, &captured).map_err(RunError::Captured)?;
    let held = problem.sequence(0).held;
    if let Mechanism::Lookahead(lookahead) = &variant.mechanism {
        let (Some(learned), Some(_)) = (&mut cache.learned, code.teaches()) else {
            return Err(RunError::Mechanism);
        };
        if learned.kept.is_some() && held.len() > MAX_FEW {
            return Err(RunError::AtOnce { found: held.len() as usize, most: MAX_FEW as usize });
        }
        if let Some(until) = learned.due(held.begin, held.len()) {
            let (lanes, allow) = (engine.lanes(), lookahead.allow);
            Lesson { lanes, variant, problem, allow, until }.give(engine, learned, threads);
        }
    }
    let variant = &stored((variant, plan));
    let per_token = variant.per_token();
    let layout = TokenLayout::of_keys(variant, &piece(problem, held, per_token));
    let (rows, rest) = align(floats).split_at_mut(rows_len(variant));
    let (frequencies, rest) = rest.split_at_mut(layout.frequencies_len());
    let (table, mixed) = rest.split_at_mut(layout.table_len());
    if let Some(position) = &variant.position {
        tokens::frequencies(position, &captured, frequencies);
    }
    let mut begin = held.begin;
    while begin < held.end {
        let problem = piece(problem, KeyRange { begin, ..held }, per_token);
        let now = problem.sequence(0).held;
        let [first, end] = [begin, now.end].map(|at| ((at - held.begin) / per_token) as usize);
        let kv = tokens.kv.tokens(first..end);
        let (keys, values) = match (mixes, &kv) {
            (Some(mixes), &KeyRows::Plain { k, v }) => {
                let [k, v] = expanded::mix_kv(engine, (variant, mixes), [k, v], mixed)?;
                (Tensor::Made(k), Some(Tensor::Made(v)))
            }
            _ => kv.tensors(),
        };
        let layout = TokenLayout::of_keys(variant, &problem);
        let table = &mut table[..layout.table_len()];
        let fill = tokens::Fill {
            layout,
            variant,
            problem: &problem,
            rows: tokens::Rows { q: None, k: keys.one() },
            captured: &captured,
            fault: &Fault::new(),
            frequencies,
        };
        fill_table(engine, &fill, table);
        let known = tokens::Tokens { layout, table };
        let change = Change::new(variant, Side::Key, &captured, known);
        let lookahead = Learners::new(variant, &kv, change);
        let change = change.filter(|_| turns(variant, Side::Key));
        engine.enter(Write {
            lanes: engine.lanes(),
            tokens: Stored { page, keys, values, asks: lookahead.map(|it| it.q_u), change },
            learners: lookahead,
            product: Product::new(variant, plan, &page),
            first: begin as usize,
            count: now.len() as usize,
            cache: &mut cache,
            rows: &mut *rows,
        });
        begin = now.end;
    }
    let waits = cache.learned.as_ref().is_some_and(|learned| learned.kept.is_some());
    if let (Mechanism::Lookahead(lookahead), Some(code), true) = (&variant.mechanism, code.teaches(), waits) {
        let (lanes, allow, fault) = (engine.lanes(), lookahead.allow, &Fault::new());
        let weighing =
            Weighing { lanes, variant, plan, problem, page, captured: &captured, code, allow, fault };
        weighing.weigh(engine, &mut cache, [held.begin, held.end], threads, align(floats));
        // The caller does not count the tokens then.
        return fault.input().map_or(Ok(()), |input| Err(RunError::Index { input }));
    }
    Ok(())
}

/// Writes what is known of tokens before their rows are seen, where anything is.
fn fill_table<E: Engine>(engine: E, fill: &tokens::Fill<'_>, table: &mut [f32]) {
    if table.is_empty() {
        return;
    }
    let lots = Lots::new(table, tokens::CHUNK * fill.layout.stride());
    Solo.run(&|_| engine.enter(tokens::FillTokens { fill, lots: &lots }));
    assert_eq!(fill.fault.input(), None, "`append` looked for each position");
}

/// Rows on their way into pages.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// What the pages are.
    pub page: PageShape,
    /// Keys.
    pub keys: Tensor<'a>,
    /// Values, where they are not the first channels of keys.
    pub values: Option<Tensor<'a>>,
    /// What keys ask of later tokens, where keys are lookahead keys, and how its rows change.
    pub asks: Option<(View<'a>, Option<Change<'a>>)>,
    /// How rows of keys change on their way.
    pub change: Option<Change<'a>>,
}

impl Stored<'_> {
    /// Writes `count` tokens of a sequence, from number `token` of its tensors on, to a cache, where the first is number `first`.
    /// `rows` are as long as [`rows_len`] says.
    #[inline(always)]
    pub fn write<D: Door>(
        &self,
        lanes: D,
        (batch, token, count): (usize, usize, usize),
        (cache, first): (&mut CachedSequenceMut<'_>, usize),
        rows: &mut [f32],
    ) {
        let Self { page: shape, keys, values, asks, change } = *self;
        let mut done = 0;
        while done < count {
            let (token, first) = (token + done, first + done);
            let (page, place) = (first / shape.tokens, first % shape.tokens);
            // Pages are whole panels.
            let now = (count - done).min(TOKENS - place % TOKENS);
            for head in 0..shape.key_head_count() {
                let at = |i| [batch, head, token + i];
                if let Some((asks, change)) = asks {
                    let changed = Changed { change, tensor: Tensor::One(asks), at };
                    let row = |i, row: &mut [f32]| {
                        changed.row(lanes, i, row);
                    };
                    let rows = made(&mut *rows, shape.keys.channels, now, row);
                    let block = cache.part(&shape, page, shape.asks_at(head));
                    pages::write_keys(lanes, &shape.keys, Rows { rows, first: place, count: now }, block);
                }
                let changed = Changed { change, tensor: keys, at };
                let row = |i, row: &mut [f32]| {
                    changed.row(lanes, i, row);
                };
                let rows = Rows { rows: made(rows, shape.keys.channels, now, row), first: place, count: now };
                let block = cache.part(&shape, page, shape.keys_at(head));
                pages::write_keys(lanes, &shape.keys, rows, block);
                if values.is_none() {
                    let odd = cache.part(&shape, page, shape.values_at(shape.value_head(head)));
                    pages::write_odd(shape.values.codec, (&shape.keys, shape.values.channels), rows, odd);
                }
            }
            for (head, v) in (0..shape.value_head_count()).filter_map(|head| Some((head, values?))) {
                let row = |i, row: &mut [f32]| v.read(lanes, [batch, head, token + i], row);
                let rows =
                    Rows { rows: made(rows, shape.values.channels, now, row), first: place, count: now };
                let block = cache.part(&shape, page, shape.values_at(head));
                pages::write_values(lanes, &shape.values, shape.tokens, rows, block);
            }
            done += now;
        }
    }
}

/// Writes tokens, inside the engine's instruction set.
struct Write<'a, 'c, D> {
    lanes: D,
    tokens: Stored<'a>,
    /// What keys learn from, where they are lookahead keys.
    learners: Option<Learners<'a>>,
    product: Product,
    /// Position of the first token.
    first: usize,
    count: usize,
    cache: &'a mut CachedSequenceMut<'c>,
    rows: &'a mut [f32],
}

impl<D: Door> Op for Write<'_, '_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, tokens, learners, product, first, count, cache, rows } = self;
        // A prefill teaches keys itself, from nothing on.
        let waits = cache.learned.as_mut().filter(|learned| learned.kept.is_some());
        if let (Some(learners), Some(learned)) = (&learners, waits) {
            learners.wait(lanes, (&tokens.page, product), (first, count), learned, rows);
        }
        tokens.write(lanes, (0, 0, count), (cache, first), rows);
    }
}

/// So many rows, with zeros behind their channels.
#[inline(always)]
fn made(rows: &mut [f32], channels: usize, count: usize, make: impl Fn(usize, &mut [f32])) -> &[f32] {
    let stride = pages::stride(channels);
    for i in 0..count {
        let (row, behind) = rows[i * stride..][..stride].split_at_mut(channels);
        make(i, row);
        behind.fill(0.0);
    }
    rows
}
