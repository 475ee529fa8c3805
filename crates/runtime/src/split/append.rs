//! Tokens on their way into a cache: normed and turned once, and stored as the cache's codecs do.

use regard_engine::Engine;
use regard_engine::Op;
use regard_engine::element::Element;
use regard_engine::grid::Lots;
use regard_engine::isa::Door;
use regard_engine::pack::Rows as _;
use regard_engine::pages::{self, Rows, TOKENS};
use regard_engine::threads::{Solo, Threads};
use regard_ir::cache::PageShape;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::plan::Plan;
use regard_ir::problem::{KeyRange, Problem};
use regard_ir::variant::Variant;

use crate::cache::CachedSequenceMut;
use crate::carve::{ALIGN, align};
use crate::code::Fault;
use crate::flash::{RunError, WorkspaceLen, shape};
use crate::rows::{Change, Changed, Side};
use crate::tokens::{self, TokenLayout};
use crate::view::View;

/// Keys and values of tokens, as a variant's k and v are.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a, T> {
    /// Keys, `[1][key head][token]` rows of `dim`.
    pub k: View<'a, T>,
    /// Values, `[1][value head][token]` rows of `value_dim`.
    pub v: View<'a, T>,
    /// Captured tensors, as long as the sequence is then: the declared ones in the order of their declaration, then those of
    /// learned tables.
    pub captured: &'a [InputData<'a>],
}

impl<T: Element> Tokens<'_, T> {
    /// Whether they are those that `problem` holds, a part of one sequence without queries: whether [`append`] can write them.
    ///
    /// # Errors
    /// If a tensor does not fit variant and problem, or a position lies outside the tensor that it is read from.
    pub fn check(&self, variant: &Variant<'_>, problem: &Problem<'_>) -> Result<(), RunError> {
        let (variant, captured) = (&as_cached(variant), captured_of(variant, self.captured));
        let heads = &variant.heads;
        let [_, _, count] = problem.extents().map(|n| n as usize);
        let [kv, value, dim, value_dim] =
            [heads.kv, heads.value, heads.dim, heads.value_dim].map(|n| n as usize);
        shape("k", self.k.counts(), self.k.width(), [1, kv, count, dim])?;
        shape("v", self.v.counts(), self.v.width(), [1, value, count, value_dim])?;
        let captured = Captured::bind(variant.inputs, captured, heads, variant.source, problem)
            .map_err(RunError::Captured)?;
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

/// The first tokens that a problem holds, at most so many as are written at a time.
fn piece<'a>(problem: &Problem<'a>, held: KeyRange) -> Problem<'a> {
    let end = held.end.min(held.begin.saturating_add(tokens::CHUNK as u32));
    Problem { part: Some(KeyRange { end, ..held }), ..*problem }
}

/// What happens to rows before a cache holds them: all that is to happen, but where heads are mixed first, as they are read,
/// nothing.
fn as_cached<'a>(variant: &Variant<'a>) -> Variant<'a> {
    match variant.pseudo() {
        None => *variant,
        Some(_) => Variant { position: None, qk_norm: None, inputs: &[], ..*variant },
    }
}

/// The captured tensors that this reads.
const fn captured_of<'a>(variant: &Variant<'_>, captured: &'a [InputData<'a>]) -> &'a [InputData<'a>] {
    if variant.pseudo().is_some() { &[] } else { captured }
}

/// Floats that [`append`] works in.
pub fn append_len(variant: &Variant<'_>, problem: &Problem<'_>) -> usize {
    let variant = &as_cached(variant);
    let layout = TokenLayout::of_keys(variant, &piece(problem, problem.sequence(0).held));
    rows_len(variant)
        .saturating_add(layout.frequencies_len())
        .saturating_add(layout.table_len())
        .saturating_add(ALIGN)
}

/// Of the rows that are written at a time.
fn rows_len(variant: &Variant<'_>) -> usize {
    let widest = variant.heads.dim.max(variant.heads.value_dim) as usize;
    (TOKENS * pages::stride(widest)).next_multiple_of(ALIGN)
}

/// Writes the tokens that `problem` holds, a part of one sequence without queries, to its cache.
///
/// # Errors
/// As [`Tokens::check`], or if `floats` are fewer than [`append_len`] says. Nothing is written then.
pub fn append<E: Engine, T: Element>(
    engine: E,
    (variant, plan, problem): (&Variant<'_>, &Plan, &Problem<'_>),
    tokens: Tokens<'_, T>,
    mut cache: CachedSequenceMut<'_>,
    floats: &mut [f32],
) -> Result<(), RunError> {
    tokens.check(variant, problem)?;
    let (variant, captured) = (&as_cached(variant), captured_of(variant, tokens.captured));
    let captured = Captured::bind(variant.inputs, captured, &variant.heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let needed = append_len(variant, problem);
    if floats.len() < needed {
        let len = |floats| WorkspaceLen { floats, spans: 0 };
        return Err(RunError::Workspace { needed: len(needed), found: len(floats.len()) });
    }
    let held = problem.sequence(0).held;
    let layout = TokenLayout::of_keys(variant, &piece(problem, held));
    let (rows, rest) = align(floats).split_at_mut(rows_len(variant));
    let (frequencies, table) = rest.split_at_mut(layout.frequencies_len());
    if let Some(position) = &variant.position {
        tokens::frequencies(position, &captured, frequencies);
    }
    let mut begin = held.begin;
    while begin < held.end {
        let problem = piece(problem, KeyRange { begin, ..held });
        let now = problem.sequence(0).held;
        let range = (begin - held.begin) as usize..(now.end - held.begin) as usize;
        let tokens = Tokens { k: tokens.k.tokens(range.clone()), v: tokens.v.tokens(range), ..tokens };
        let layout = TokenLayout::of_keys(variant, &problem);
        let table = &mut table[..layout.table_len()];
        let fill = tokens::Fill {
            layout,
            variant,
            problem: &problem,
            rows: tokens::Rows { q: View::empty(variant.heads.dim as usize), k: Some(tokens.k) },
            captured: &captured,
            fault: &Fault::new(),
            frequencies,
        };
        fill_table(engine, &fill, table);
        let change = Change::new(variant, Side::Key, &captured, tokens::Tokens { layout, table });
        engine.enter(Write {
            lanes: engine.lanes(),
            page: plan.cache.shape(&variant.heads),
            tokens,
            change,
            first: begin as usize,
            cache: &mut cache,
            rows,
        });
        begin = now.end;
    }
    Ok(())
}

/// Writes what is known of tokens before their rows are seen, where anything is.
fn fill_table<E: Engine, T: Element>(engine: E, fill: &tokens::Fill<'_, T>, table: &mut [f32]) {
    if table.is_empty() {
        return;
    }
    let lots = Lots::new(table, tokens::CHUNK * fill.layout.stride());
    Solo.run(&|_| engine.enter(tokens::FillTokens { fill, lots: &lots }));
    assert_eq!(fill.fault.input(), None, "`append` looked for each position");
}

/// Writes tokens, inside the engine's instruction set.
struct Write<'a, 'c, D, T> {
    lanes: D,
    page: PageShape,
    tokens: Tokens<'a, T>,
    change: Option<Change<'a>>,
    /// Position of the first token.
    first: usize,
    cache: &'a mut CachedSequenceMut<'c>,
    rows: &'a mut [f32],
}

impl<D: Door, T: Element> Op for Write<'_, '_, D, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, page: shape, tokens: Tokens { k, v, .. }, change, first, cache, rows } = self;
        let [_, key_heads, count] = k.counts();
        let [_, value_heads, _] = v.counts();
        let mut done = 0;
        while done < count {
            let (page, place) = ((first + done) / shape.tokens, (first + done) % shape.tokens);
            let now = (count - done).min(TOKENS - place % TOKENS);
            let page = cache.page(&shape, page);
            for head in 0..key_heads {
                let row = |i: usize, row: &mut [f32]| match change {
                    None => T::widen_into(lanes, k.row(0, head, done + i), row),
                    Some(change) => {
                        let of = |token| (head, k.row(0, head, token));
                        let known = |token| change.tokens.key(0, token);
                        Changed::new(change, of, known).row(lanes, done + i, row);
                    }
                };
                let rows = Rows { rows: made(rows, shape.keys.channels, now, row), first: place, count: now };
                let block = &mut page[shape.keys_at(head)..][..shape.keys_len()];
                pages::write_keys(lanes, &shape.keys, rows, block);
            }
            for head in 0..value_heads {
                let row = |i: usize, row: &mut [f32]| T::widen_into(lanes, v.row(0, head, done + i), row);
                let rows =
                    Rows { rows: made(rows, shape.values.channels, now, row), first: place, count: now };
                let block = &mut page[shape.values_at(head)..][..shape.values_len()];
                pages::write_values(lanes, &shape.values, shape.tokens, rows, block);
            }
            done += now;
        }
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
