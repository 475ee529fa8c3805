//! A picture in words and cells: what all ways of drawing it have in common.

use regard::{Planned, Problem};
use regard_ir::expr::{Op, Var};
use regard_ir::text;
use regard_ir::variant::Source;

use super::grid::{Depth, Grid, Kind};

/// Characters of a mask that are shown.
const MAX_MASK: usize = 240;

/// A mask drawn, and all that is said about it.
pub(crate) struct Picture {
    /// What the variant is called.
    pub(crate) title: String,
    /// The mask, all definitions expanded.
    pub(crate) mask: String,
    /// Which part of which problem is drawn.
    pub(crate) problem: String,
    /// What the colours mean.
    pub(crate) legend: Vec<Entry>,
    /// Numbers, each with what it is.
    pub(crate) facts: Vec<Fact>,
    /// The mask.
    pub(crate) grid: Grid,
    /// Position of the first query.
    pub(crate) first_query: i64,
    /// Queries and keys of a tile.
    pub(crate) tile: (u64, u64),
    /// Some pairs that the grid is too coarse for, each a cell.
    pub(crate) detail: Option<Grid>,
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
    /// What the tensors hold, by the tensors' names.
    pub(crate) inputs: Option<Fact>,
}

impl Picture {
    /// Says what is drawn in `grid`.
    pub(crate) fn new(planned: &Planned, problem: &Problem, scope: Scope, live_share: f64, grid: Grid) -> Self {
        let spec = planned.spec();
        let mut facts = Vec::new();
        let mut fact = |what: String, meaning: &str| facts.push(Fact { what, meaning: meaning.to_owned() });
        fact(format!("{:.2} % live", 100.0 * live_share), "of the pairs, as the plan estimates");
        if let Some(allowed) = grid.allowed {
            let pairs = u64::from(problem.queries) * u64::from(problem.keys);
            fact(format!("{} allowed", grouped(allowed)), &format!("of {} pairs, counted", grouped(pairs)));
        }
        let (plan, blocks) = (planned.plan(), planned.plan().prefill);
        let tile = format!("{} x {}", grouped(blocks.query_block), grouped(blocks.key_block));
        fact(tile, "queries by keys of a tile");
        fact(format!("{} on {}", plan.dtype.name(), plan.isa.name()), &caches(planned));
        facts.extend(scope.inputs);
        Self {
            title: spec.name.clone(),
            mask: text::expression(spec.allow.tree(), &spec.inputs.names, MAX_MASK).replace('…', "..."),
            problem: sizes(planned, problem, scope.head, scope.sequence),
            legend: legend(&grid),
            facts,
            first_query: problem.q_offset.into(),
            grid,
            tile: (blocks.query_block.into(), blocks.key_block.into()),
            detail: None,
        }
    }
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

fn sizes(planned: &Planned, problem: &Problem, head: u32, sequence: u32) -> String {
    let spec = planned.spec();
    let mut text = format!("{} queries x {} keys", grouped(problem.queries), grouped(problem.keys));
    let aligned = spec.source == Source::Cross || problem.queries == problem.keys;
    if !aligned || problem.q_offset != 0 {
        text.push_str(&format!(", first query at {}", problem.q_offset));
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

/// A number with its digits in threes.
pub(crate) fn grouped(n: impl Into<i128>) -> String {
    let n: i128 = n.into();
    let digits = n.unsigned_abs().to_string();
    let mut text = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
