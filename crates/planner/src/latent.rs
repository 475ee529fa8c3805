//! Latents: block sizes of the absorbed form, and what either form costs.
//!
//! Products are what both forms are made of: of an expanded pair there are `nope_dim + rope_dim + value_dim`, of an absorbed one
//! `2 rank + rope_dim`; a key and a value are made by `rank (nope_dim + value_dim)`, and a query is brought to the latents and its
//! output back by as many. They do not all run at one rate. Measured on a Zen 5 core (16 heads, rank 512, 128 + 64 and 128
//! channels; 4 to 256 queries of 256 to 4,096 keys), 10⁹ a second:
//!
//! | | pairs | keys and values that are made | queries that are brought, and outputs |
//! |---|---|---|---|
//! | f32 | 90 to 103 | 99 | 25 |
//! | bf16 in pairs | 208 to 213 | 175 | 21 |
//!
//! Of the two forms on each of these problems the costs below take the faster one, or one that takes 4 % longer at most:
//! docs/measuring.md has the times. For AVX2, NEON and matrix tiles the same formulas are estimates.

use regard_engine::catalog::Entry;
use regard_ir::plan::{EngineKind, LatentCosts, LatentPlan};
use regard_ir::variant::{Latent, LatentForm};

use crate::blocks::{Target, fma_per_cycle, peak_products_per_cycle};
use crate::inequality::{Inequality, Limit, Unit, factor, term};
use crate::report::{Choice, Reason};

/// Units of a product of a pair.
const PAIR: u64 = 4;

/// The same of a product that makes a key or a value, where bf16 is multiplied in pairs.
const EXPANDING_PAIRS: u64 = 5;

/// Products of a query with a matrix that is read for it alone, in a cycle: loads bind them, whatever the engine multiplies.
const ABSORBED_PER_CYCLE: u64 = 7;

/// Units of a product that makes a key or a value, and of one with a query or its output.
fn units(entry: &Entry) -> [u32; 2] {
    let (pairs, vectors) = (peak_products_per_cycle(entry), fma_per_cycle(entry.isa));
    let expanding = match entry.engine {
        EngineKind::DotBf16 => EXPANDING_PAIRS,
        // On vectors, also where pairs are products of matrix tiles.
        EngineKind::SimdF32 | EngineKind::AmxBf16 => PAIR * pairs / vectors,
    };
    [expanding, PAIR * pairs / ABSORBED_PER_CYCLE].map(|units| units.clamp(1, u64::from(u16::MAX)) as u32)
}

/// What the plan has for a latent of so many query heads; `target` is that of the absorbed form.
pub(crate) fn choose(latent: &Latent, target: &Target<'_>) -> (LatentPlan, Vec<Choice>) {
    let (absorbed, choices) = target.choose();
    let &Latent { rank, nope_dim, rope_dim, value_dim, form } = latent;
    let made = rank.saturating_mul(nope_dim + value_dim);
    let [expanding, absorbing] = units(target.entry);
    let costs = LatentCosts {
        expand_key: made.saturating_mul(expanding),
        expanded_pair: (nope_dim + rope_dim + value_dim).saturating_mul(PAIR as u32),
        absorb_query: made.saturating_mul(absorbing),
        absorbed_pair: (2 * rank + rope_dim).saturating_mul(PAIR as u32),
    };
    let mut kept: Vec<Choice> = choices
        .into_iter()
        .filter_map(|choice| {
            let name = match choice.name {
                "key_block" => "absorbed_keys",
                "query_block" => "absorbed_queries",
                "mask_step" => "absorbed_step",
                _ => return None,
            };
            Some(Choice { name, ..choice })
        })
        .collect();
    if form == LatentForm::Auto {
        kept.insert(0, crossover(&costs));
    }
    (LatentPlan { absorbed, costs }, kept)
}

/// The fewest queries for which keys and values are made, where each sees as many keys as there are queries for each.
fn crossover(costs: &LatentCosts) -> Choice {
    let saved = costs.absorbed_pair.saturating_sub(costs.expanded_pair);
    let least = costs.expand_key.checked_div(saved).map_or(u64::from(u32::MAX), |n| u64::from(n) + 1);
    let bound = Inequality {
        terms: vec![term("making a key and a value", &[factor(costs.expand_key.into(), "")])],
        limit: Limit {
            what: "what queries that see it save",
            value: least * u64::from(saved),
            numerator: 1,
            denominator: 1,
        },
        unit: Unit::Products,
    };
    Choice {
        name: "expand_from",
        value: least,
        reason: Reason::Crossover,
        bounds: vec![bound],
        rejected: Vec::new(),
    }
}
