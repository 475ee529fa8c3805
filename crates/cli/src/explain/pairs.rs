//! How many pairs of query and key a mask allows.

use regard::{Planned, Problem};
use regard_ir::expr::{Binary, Expr, Node, NodeId, Op, Tree, Type, Unary, Var};
use regard_ir::interval::{Region, Span, Unknown};
use regard_ir::tiles::{self, Tiles};
use regard_ir::variant::{Heads, Variant};
use serde::Serialize;

use crate::failure::Failure;

/// Boxes that are looked at before the schedule's estimate has to do: about a second.
const MAX_LOOKS: u64 = 1 << 24;

/// A number of pairs of query and key, over all query heads and sequences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Pairs {
    /// Allowed by the mask.
    pub(super) allowed: f64,
    /// Allowed or not.
    pub(super) all: f64,
    /// How the former is known.
    pub(super) known: Known,
}

/// How a number of allowed pairs is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Known {
    /// Counted.
    Exact,
    /// Counted as if declared tensors forbade nothing; their contents are not known here.
    AtMost,
    /// Too many to look at the whole boundary of the mask; as the schedule takes it.
    Estimate,
}

impl Pairs {
    /// Counts by halving, and where that takes too long asks a schedule.
    ///
    /// # Errors
    /// If there are more sequences than one call can hold.
    pub(super) fn count(planned: &Planned, problem: &Problem<'_>) -> Result<Self, Failure> {
        let fail = |error| Failure::Schedule { spec: planned.spec().name.clone(), error };
        let (variant, positions) = (planned.variant().scored(), planned.positions(problem).map_err(fail)?);
        let Problem { batch, queries, keys, .. } = positions.view();
        let all = batch as f64 * variant.heads.query as f64 * queries as f64 * keys as f64;
        let lenient = Lenient::new(variant.allow);
        if let Some(allowed) = counted(&variant, lenient.mask.tree(), &positions.view()) {
            let known = if lenient.reads_data { Known::AtMost } else { Known::Exact };
            return Ok(Self { allowed, all, known });
        }
        let tasks = planned.tasks(problem, None, 1).map_err(fail)?;
        let share = planned.overview(&tasks, None).map_err(fail)?.live_share;
        Ok(Self { allowed: share * all, all, known: Known::Estimate })
    }
}

/// Pairs that `allow`, which reads no declared tensor, leaves; `None` where that takes too many looks.
fn counted(variant: &Variant<'_>, allow: Tree<'_>, problem: &Problem<'_>) -> Option<f64> {
    let Heads { query, .. } = variant.heads;
    let by_sequence = variant.allow.reads(Var::B);
    let by_head = variant.allow.reads(Var::H) || variant.allow.reads(Var::G);
    let kinds = |n: u32, each: bool| if each { (n, 1.0) } else { (n.min(1), n as f64) };
    let ((sequences, per_sequence), (heads, per_head)) =
        (kinds(problem.batch, by_sequence), kinds(query, by_head));
    let (mut looks, mut pairs) = (MAX_LOOKS, 0.0);
    for (b, h) in (0..sequences).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        let region = Region {
            b: Span::point(b as i32),
            h: Span::point(h as i32),
            g: Span::point((h / variant.heads.group()) as i32),
            q: problem.sequence(0).query_span(),
            k: Span { lo: 0, hi: problem.keys as i32 - 1 },
            nq: problem.queries as i32,
            nk: problem.keys as i32,
        };
        // A tile of one pair is dead or full, unless its float is not known to the last bit.
        let Tiles { full, partial, .. } =
            tiles::count(allow, &region, (1, 1), &Unknown(variant.inputs), &mut looks);
        if partial > 0 || looks == 0 {
            return None;
        }
        pairs += full as f64;
    }
    Some(pairs * per_sequence * per_head)
}

/// A mask as it would be if declared tensors forbade nothing: what positions alone allow.
pub(super) struct Lenient {
    pub(super) mask: Expr,
    pub(super) reads_data: bool,
}

impl Lenient {
    /// Every condition that reads a tensor becomes what allows more: `true`, below an odd number of `!` `false`.
    pub(super) fn new(allow: Tree<'_>) -> Self {
        let mut nodes = allow.nodes().to_vec();
        let mut reads: Vec<bool> = Vec::with_capacity(nodes.len());
        // What stands for each node where less is to be allowed, and where more is.
        let mut ends: Vec<[NodeId; 2]> = Vec::with_capacity(nodes.len());
        for (id, node) in allow.nodes().iter().enumerate() {
            let reads_data = matches!(node.op, Op::Input { .. })
                || node.op.operands().any(|operand| reads[operand as usize]);
            ends.push(match reads_data && node.ty == Type::Bool {
                false => [id as NodeId; 2],
                true => [false, true].map(|more| {
                    let of = |id: NodeId, more: bool| ends[id as usize][usize::from(more)];
                    let op = match node.op {
                        Op::Unary(Unary::Not, a) => Op::Unary(Unary::Not, of(a, !more)),
                        Op::Binary(op @ (Binary::And | Binary::Or), a, b) => {
                            Op::Binary(op, of(a, more), of(b, more))
                        }
                        Op::Select(condition, a, b) if !reads[condition as usize] => {
                            Op::Select(condition, of(a, more), of(b, more))
                        }
                        _ => Op::Bool(more),
                    };
                    nodes.push(Node { op, ..*node });
                    (nodes.len() - 1) as NodeId
                }),
            });
            reads.push(reads_data);
        }
        // The last node that was added is the root where more is allowed.
        let reads_data = reads.last().copied().unwrap_or(false);
        let nodes = if reads_data { nodes } else { allow.nodes().to_vec() };
        Self { mask: Expr::new(nodes), reads_data }
    }
}

#[cfg(test)]
mod tests {
    use regard::{Machine, Options, machine};

    use super::*;

    fn pairs(text: &str, batch: usize, queries: usize, keys: usize) -> Pairs {
        let spec = regard::parse(text, "t.toml", &regard::NoFiles).unwrap_or_else(|e| panic!("{e}")).spec;
        let machine = Machine { isa: regard::Isa::Scalar, ..machine::host() };
        let planned = Planned::new(&spec, &machine, Options::default()).unwrap();
        let problem = Problem::prefill(spec.source, batch, queries, keys).unwrap();
        Pairs::count(&planned, &problem).unwrap()
    }

    fn of(mask: &str, queries: usize, keys: usize) -> (f64, Known) {
        let text = format!(
            "heads = {{ query = 6, kv = 3, dim = 4 }}\ninputs = {{ n = 'i32[b]', open = 'bool[k]' }}\nmask = '{mask}'"
        );
        let Pairs { allowed, known, .. } = pairs(&text, 2, queries, keys);
        (allowed, known)
    }

    #[test]
    fn pairs_are_those_that_one_counts_by_hand() {
        let heads = 2.0 * 6.0;
        assert_eq!(of("causal", 4096, 4096), (heads * 4096.0 * 4097.0 / 2.0, Known::Exact));
        assert_eq!(of("causal", 3, 5), (heads * (3.0 + 4.0 + 5.0), Known::Exact));
        assert_eq!(of("k >= 0", 7, 9), (heads * 63.0, Known::Exact));
        // Four rows of a window of three.
        assert_eq!(of("causal & window(3)", 4, 9), (heads * 12.0, Known::Exact));
        assert_eq!(of("causal", 0, 5), (0.0, Known::Exact));
        assert_eq!(of("causal", 5, 0), (0.0, Known::Exact));
        // Heads 0 to 5 see 0 to 5 keys; sequence 0 nothing.
        assert_eq!(of("k < h & b > 0", 2, 9), (2.0 * 15.0, Known::Exact));
        assert_eq!(of("k < g", 2, 9), (2.0 * 2.0 * 2.0 * 3.0, Known::Exact));
    }

    #[test]
    fn what_tensors_say_is_taken_to_forbid_nothing() {
        let heads = 2.0 * 6.0;
        assert_eq!(of("causal & k < n[b]", 3, 5), (heads * 12.0, Known::AtMost));
        assert_eq!(of("causal & !open[k]", 3, 5), (heads * 12.0, Known::AtMost));
        assert_eq!(of("causal & !(open[k] & q > 3)", 3, 5), (heads * 12.0, Known::AtMost));
        assert_eq!(of("!(open[k] | k > q)", 3, 5), (heads * 12.0, Known::AtMost));
        assert_eq!(of("causal & select(k < 2, open[k], k < 3)", 3, 5), (heads * 9.0, Known::AtMost));
    }

    #[test]
    fn a_boundary_of_billions_is_estimated() {
        let half = i32::MAX as usize;
        let (allowed, known) = of("causal", half, half);
        let exact = 12.0 * half as f64 * half as f64 / 2.0;
        assert_eq!(known, Known::Estimate);
        assert!((allowed / exact - 1.0).abs() < 0.02, "{allowed} of {exact}");
    }
}
