//! Latents: block sizes of the absorbed form, and what either form costs.
//!
//! Products are what both forms are made of: of an expanded pair there are `nope_dim + rope_dim + value_dim`, of an absorbed one
//! `2 rank + rope_dim`; a key and a value are made by `rank (nope_dim + value_dim)`, and a query is brought to the latents and its
//! output back by as many. They do not all run at one rate: how far each kind falls short of the products of pairs
//! is estimated, and not measured yet.

use regard_ir::plan::{LatentCosts, LatentPlan};
use regard_ir::variant::{Latent, LatentForm};

use crate::blocks::Target;
use crate::inequality::{Inequality, Limit, Unit, factor, term};
use crate::report::{Choice, Reason};

/// Units of a product of a pair.
const PAIR: u32 = 4;

/// The same of a product that makes a key or a value.
const EXPANDING: u32 = 6;

/// The same of a product with a query or its output, for which matrices are read once more each.
const ABSORBING: u32 = 12;

/// What the plan has for a latent of so many query heads; `target` is that of the absorbed form.
pub(crate) fn choose(latent: &Latent, target: &Target<'_>) -> (LatentPlan, Vec<Choice>) {
    let (absorbed, choices) = target.choose();
    let &Latent { rank, nope_dim, rope_dim, value_dim, form } = latent;
    let made = rank.saturating_mul(nope_dim + value_dim);
    let costs = LatentCosts {
        expand_key: made.saturating_mul(EXPANDING),
        expanded_pair: (nope_dim + rope_dim + value_dim).saturating_mul(PAIR),
        absorb_query: made.saturating_mul(ABSORBING),
        absorbed_pair: (2 * rank + rope_dim).saturating_mul(PAIR),
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
