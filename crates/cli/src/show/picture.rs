//! A picture in words and cells: what all ways of drawing it have in common.

use regard::{Dtype, Planned, Problem};
use regard_ir::expr::{Op, Var};
use regard_ir::text::{self, grouped};
use regard_ir::tiles::Tiles;
use regard_ir::variant::Source;
use serde::Serialize;

use super::cell::Kind;
use super::grid::{Depth, Grid};
use crate::source;

/// Characters of a mask that are shown.
const MAX_MASK: usize = 240;

/// A mask drawn, and all that is said about it.
pub(crate) struct Picture {
    /// Its numbers.
    pub(crate) numbers: Numbers,
    /// What the variant is called.
    pub(crate) title: String,
    /// Which part of which problem is drawn.
    pub(crate) sizes: String,
    /// What the colours mean.
    pub(crate) legend: Vec<Entry>,
    /// Numbers, each with what it is.
    pub(crate) facts: Vec<Fact>,
    /// The mask.
    pub(crate) grid: Grid,
    /// Position of the first query.
    pub(crate) first_query: i64,
    /// Some pairs that the grid is too coarse for, each a cell.
    pub(crate) detail: Option<Grid>,
}

/// The numbers of a picture, as JSON has them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Numbers {
    spec: String,
    summary: String,
    /// The mask, all definitions expanded.
    mask: String,
    problem: Problem<'static>,
    /// The query head that is drawn.
    head: u32,
    /// The sequence that is drawn.
    sequence: u32,
    isa: &'static str,
    dtype: Dtype,
    query_block: u32,
    key_block: u32,
    /// Of one key head of the sequence.
    tiles: Tiles,
    /// As the plan estimates it.
    live_share: f64,
    /// Allowed pairs, where each was looked at.
    allowed: Option<u64>,
    /// The tensors that the mask reads.
    reads: Vec<String>,
}

/// A line of the legend.
pub(crate) struct Entry {
    /// Its colours.
    pub(crate) kinds: Vec<Kind>,
    /// The class of tiles, and how many there are.
    pub(crate) name: &'static str,
    /// How many tiles.
    pub(crate) count: u64,
    /// What is done with them.
    pub(crate) meaning: &'static str,
}

/// A number, and what it is.
pub(crate) struct Fact {
    /// The number.
    pub(crate) what: String,
    /// What it is.
    pub(crate) meaning: String,
}

/// Which head is drawn, and what is known of the tensors that the mask reads.
pub(crate) struct Scope {
    /// The query head.
    pub(crate) head: u32,
    /// The sequence.
    pub(crate) sequence: u32,
    /// How the tensors' contents are known.
    pub(crate) known: &'static str,
}

impl Picture {
    /// Says what is drawn in `grid`, of which `live_share` is live.
    pub(crate) fn new(
        planned: &Planned,
        problem: &Problem<'static>,
        scope: Scope,
        live_share: f64,
        grid: Grid,
    ) -> Self {
        let spec = planned.spec();
        let (plan, blocks) = (planned.plan(), planned.plan().prefill);
        let names = &spec.inputs.names;
        let numbers = Numbers {
            spec: spec.name.clone(),
            summary: spec.summary.clone(),
            mask: text::expression(spec.allow.tree(), names, MAX_MASK).replace('…', "..."),
            problem: *problem,
            head: scope.head,
            sequence: scope.sequence,
            isa: plan.isa.name(),
            dtype: plan.dtype,
            query_block: blocks.query_block,
            key_block: blocks.key_block,
            tiles: grid.tiles,
            live_share,
            allowed: grid.allowed,
            reads: source::read_by_mask(spec).map(|at| names[at].clone()).collect(),
        };
        Self {
            title: spec.name.clone(),
            sizes: sizes(planned, problem, &scope),
            legend: legend(&grid),
            facts: facts(&numbers, planned, scope.known),
            first_query: problem.q_offset.into(),
            numbers,
            grid,
            detail: None,
        }
    }

    /// Queries and keys of a tile.
    pub(crate) fn tile(&self) -> (u64, u64) {
        (self.numbers.query_block.into(), self.numbers.key_block.into())
    }

    /// The mask, all definitions expanded.
    pub(crate) fn mask(&self) -> &str {
        &self.numbers.mask
    }
}

fn facts(numbers: &Numbers, planned: &Planned, known: &str) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |what: String, meaning: &str| facts.push(Fact { what, meaning: meaning.to_owned() });
    fact(format!("{:.2} % live", 100.0 * numbers.live_share), "of the pairs, as the plan estimates");
    if let Some(allowed) = numbers.allowed {
        let pairs = u64::from(numbers.problem.queries) * u64::from(numbers.problem.keys);
        fact(format!("{} allowed", grouped(allowed)), &format!("of {} pairs, counted", grouped(pairs)));
    }
    let tile = format!("{} × {}", grouped(numbers.query_block), grouped(numbers.key_block));
    fact(tile, "queries by keys of a tile");
    fact(format!("{} on {}", numbers.dtype.name(), numbers.isa), &caches(planned));
    if !numbers.reads.is_empty() {
        fact(numbers.reads.join(", "), known);
    }
    facts
}

fn legend(grid: &Grid) -> Vec<Entry> {
    let partial: (&[Kind], _) = match (grid.depth, grid.allowed) {
        (Depth::Pairs, Some(_)) => (&[Kind::Allowed, Kind::Masked], "tested: allowed, masked out"),
        (Depth::Tiles, _) => (&[Kind::Tested], "tested lane by lane"),
        _ => (&[Kind::Allowed, Kind::Tested, Kind::Masked], "tested: allowed, mixed, masked"),
    };
    let entry = |kinds: &[Kind], name, count, meaning| Entry { kinds: kinds.to_vec(), name, count, meaning };
    vec![
        entry(&[Kind::Full], "full", grid.tiles.full, "all allowed, no mask code"),
        entry(partial.0, "partial", grid.tiles.partial, partial.1),
        entry(&[Kind::Dead], "dead", grid.tiles.dead, "never visited"),
    ]
}

fn sizes(planned: &Planned, problem: &Problem<'_>, scope: &Scope) -> String {
    let Scope { head, sequence, .. } = scope;
    let spec = planned.spec();
    let (queries, keys) = (problem.queries, problem.keys);
    let queries_word = if queries == 1 { "query" } else { "queries" };
    let keys_word = if keys == 1 { "key" } else { "keys" };
    let mut text = format!("{} {queries_word} × {} {keys_word}", grouped(queries), grouped(keys));
    let aligned = spec.source == Source::Cross || problem.queries == problem.keys;
    if !aligned || problem.q_offset != 0 {
        text.push_str(&format!(", first query at {}", grouped(problem.q_offset)));
    }
    let nodes = spec.allow.tree().nodes();
    let reads = |var: Var| nodes.iter().any(|node| matches!(node.op, Op::Var(read) if read == var));
    if reads(Var::H) || reads(Var::G) {
        text.push_str(&format!(", head {head} of {}", spec.heads.query));
    }
    if problem.batch > 1 {
        text.push_str(&format!(", sequence {sequence} of {}", grouped(problem.batch)));
    }
    text
}

fn caches(planned: &Planned) -> String {
    let machine = planned.report().machine;
    let mut text = format!("L1d {} KiB", grouped(machine.l1d_bytes >> 10));
    if machine.l2_bytes > 0 {
        text.push_str(&format!(", L2 {} KiB", grouped(machine.l2_bytes >> 10)));
    }
    text
}
