//! Recurrences: how many tokens a chunk has.
//!
//! A token's share of a chunk are products with the state, `2 dim · value_dim`, and with the chunk's other tokens, which grow with its
//! length; and the state is read and written once a chunk, which falls with it. Chunks are whole blocks of 16 rows.

use regard_ir::machine::Machine;
use regard_ir::plan::{Blocks, RecurrencePlan};
use regard_ir::variant::{Decay, Heads, Recurrence};

use crate::inequality::{Inequality, Limit, Unit, factor, term};
use crate::report::{Choice, Reason};

/// Lengths of chunks that are compared.
const CHUNKS: [u32; 4] = [16, 32, 64, 128];

/// What an element of the state costs to be taken from one chunk to the next, in products.
const HANDED_ON: u64 = 16;

/// What a pair of tokens costs beside products of their rows, in products: its decay, and its place in the weights.
const PAIR: u64 = 24;

/// The same of a pair of tokens in one channel, where channels decay: an exponential.
const CHANNEL_PAIR: u64 = 4;

/// Tokens that take no longer one after the other than as a chunk, whose rows are filled up to 16.
const ONE_BY_ONE: u32 = 8;

/// Channels of one chain of sums, as products of rows have them.
const CHANNEL_CHAIN: u32 = 64;

/// The tokens of a chunk, and block sizes that stand for it.
pub(crate) fn choose(
    (heads, recurrence): (&Heads, &Recurrence),
    machine: &Machine,
) -> (RecurrencePlan, Blocks, Vec<Choice>) {
    let fits = |chunk: u32| memory(heads, recurrence, machine, chunk);
    let of = |chunk: u32| (products(heads, recurrence, chunk), chunk);
    let (_, chunk) =
        CHUNKS.into_iter().filter(|&chunk| fits(chunk).holds()).map(of).min().unwrap_or(of(CHUNKS[0]));
    let choice = Choice {
        name: "chunk",
        value: chunk.into(),
        reason: Reason::Chunk { products: products(heads, recurrence, chunk) },
        bounds: vec![fits(chunk)],
        rejected: Vec::new(),
    };
    let blocks = Blocks {
        query_block: chunk,
        key_block: chunk,
        key_cell: chunk,
        mask_step: chunk,
        channel_chain: CHANNEL_CHAIN,
    };
    let steps = Choice::fixed("one_by_one", ONE_BY_ONE.into(), Reason::OneByOne);
    let (cache, held_bytes) = machine.pass_cache();
    let held = Choice::fixed("held_bytes", held_bytes.into(), Reason::HeldStates { cache });
    (RecurrencePlan { chunk, one_by_one: ONE_BY_ONE, held_bytes }, blocks, vec![choice, steps, held])
}

/// Products of a token of a value head, and what counts as such.
pub(crate) fn products(heads: &Heads, recurrence: &Recurrence, chunk: u32) -> u64 {
    let [dim, value_dim, group] = [heads.dim, heads.value_dim, heads.value / heads.kv.max(1)].map(u64::from);
    let state = dim * value_dim;
    let handed_on = HANDED_ON * state / u64::from(chunk);
    if !recurrence.causal {
        return 2 * state + handed_on;
    }
    // Of other tokens a row sees half a chunk, in whole blocks.
    let pairs = u64::from(chunk + 16) / 2;
    let rows = if recurrence.delta.is_some() { 2 } else { 1 };
    let scored = match recurrence.decay {
        // Each head decays its own.
        Decay::Channel(_) => dim * (1 + rows) + CHANNEL_PAIR * dim,
        _ => dim * rows / group + PAIR,
    };
    (1 + rows) * state + handed_on + pairs * (scored + value_dim * rows)
}

/// That a chunk and the state stay in the second-level cache, or where there is none, in the first.
fn memory(heads: &Heads, recurrence: &Recurrence, machine: &Machine, chunk: u32) -> Inequality {
    let [dim, value_dim, chunk] = [heads.dim, heads.value_dim, chunk].map(u64::from);
    let rows = if matches!(recurrence.decay, Decay::Channel(_)) { 8 } else { 3 };
    let (what, value) = machine.pass_cache();
    Inequality {
        terms: vec![
            term("state", &[factor(dim, "dim"), factor(value_dim, "value_dim"), factor(4, "")]),
            term(
                "queries and keys",
                &[factor(rows, ""), factor(chunk, "tokens"), factor(dim, "dim"), factor(4, "")],
            ),
            term(
                "values and outputs",
                &[factor(2, ""), factor(chunk, "tokens"), factor(value_dim, "value_dim"), factor(4, "")],
            ),
            term(
                "weights",
                &[factor(4, ""), factor(chunk, "tokens"), factor(chunk, "tokens"), factor(4, "")],
            ),
        ],
        limit: Limit { what, value: value.into(), numerator: 3, denominator: 4 },
        unit: Unit::Bytes,
    }
}
