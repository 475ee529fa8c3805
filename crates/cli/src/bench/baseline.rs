//! Attention as it is done without a fused kernel: a matrix product, a softmax over whole rows, a matrix product.
//!
//! Products are `gemm`'s, the softmax is vectorised with the kernel's own exponential, heads are shared out over the
//! same threads, and the scores of one head at a time stay in memory that is allocated once.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use regard::{Kernel, Pool, Problem, Threads};
use regard_engine::dense::{Matrix, MatrixMut, multiply};
use regard_ir::expr::Var;
use regard_ir::interval::{Region, Span, Unknown};
use regard_ir::plan::Dtype;
use regard_ir::rows::Output;
use regard_ir::tiles;
use regard_ir::variant::{Heads, Mechanism, Sink, Variant, Weights};
use regard_measure::softmax::Softmax;

use crate::memory::{self, OutOfMemory};

/// Why a spec has no baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoBaseline {
    /// It stores something else than f32.
    Dtype(Dtype),
    /// Its modifier is not the score itself.
    Modifier,
    /// Its mask reads more than the positions of query and key.
    Mask,
    /// It has a table of positions, norms, weights or outputs.
    Tables,
}

impl std::fmt::Display for NoBaseline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no baseline: it is for ")?;
        match self {
            NoBaseline::Dtype(dtype) => write!(f, "f32 storage, this is {}", dtype.name()),
            NoBaseline::Modifier => f.write_str("unmodified scores"),
            NoBaseline::Mask => f.write_str("masks of query and key positions alone"),
            NoBaseline::Tables => {
                f.write_str("a plain softmax, without rope, norms, sinks, gates and mixed heads")
            }
        }
    }
}

/// Whether the plain way computes what a kernel does.
///
/// # Errors
/// If not, with what is in the way.
pub(super) fn exists(kernel: &Kernel) -> Result<(), NoBaseline> {
    let (variant, dtype) = (kernel.variant(), kernel.plan().dtype);
    let positions_alone = [Var::B, Var::H, Var::G].into_iter().all(|var| !variant.allow.reads(var));
    let plain = variant.mechanism == Mechanism::Plain
        && variant.position.is_none()
        && variant.qk_norm.is_none()
        && variant.weights == Weights::Softmax { sink: Sink::None }
        && Output { lse: false, ..variant.output } == Output::default();
    if dtype != Dtype::F32 {
        Err(NoBaseline::Dtype(dtype))
    } else if !variant.modify.is_var(Var::S) {
        Err(NoBaseline::Modifier)
    } else if !plain {
        Err(NoBaseline::Tables)
    } else if !positions_alone || !variant.inputs.is_empty() {
        Err(NoBaseline::Mask)
    } else {
        Ok(())
    }
}

/// A problem as the baseline takes it.
pub(super) struct Baseline<'a> {
    kernel: &'a Kernel,
    problem: Problem<'a>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// The keys that each query may attend to, as runs.
    visible: Vec<Vec<Range<u32>>>,
    /// Scores of one head, for each thread.
    scores: Vec<Mutex<Vec<f32>>>,
    /// Outputs of each head.
    outputs: Vec<Mutex<Vec<f32>>>,
}

impl<'a> Baseline<'a> {
    /// Prepares what is not timed, for a kernel that has a baseline.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn new(
        kernel: &'a Kernel,
        &problem: &Problem<'a>,
        [q, k, v]: [&'a [f32]; 3],
        threads: usize,
    ) -> Result<Self, OutOfMemory> {
        let variant = kernel.variant();
        let pairs = problem.queries as u128 * problem.keys as u128;
        let scores = (0..threads).map(|_| memory::zeroed("the baseline's scores", pairs).map(Mutex::new));
        let head = problem.queries as u128 * variant.heads.value_dim as u128;
        let n_heads = problem.batch * variant.heads.query;
        let outputs = (0..n_heads).map(|_| memory::zeroed("the baseline's output", head).map(Mutex::new));
        Ok(Self {
            kernel,
            problem,
            q,
            k,
            v,
            visible: visible(&variant, &problem),
            scores: scores.collect::<Result<_, _>>()?,
            outputs: outputs.collect::<Result<_, _>>()?,
        })
    }

    /// Runs once and gives the time in seconds.
    pub(super) fn run(&self, pool: &Pool) -> f64 {
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        pool.run(&|worker| {
            let Some(Ok(mut scores)) = self.scores.get(worker).map(Mutex::lock) else { return };
            loop {
                let head = next.fetch_add(1, Ordering::Relaxed);
                let Some(Ok(mut output)) = self.outputs.get(head).map(Mutex::lock) else { return };
                self.head(head, &mut scores, &mut output);
            }
        });
        start.elapsed().as_secs_f64()
    }

    /// The largest difference from the kernel's output, `[batch, head, query, value_dim]`, by its largest element.
    pub(super) fn error(&self, kernel: &[f32]) -> f64 {
        let (mut largest, mut error) = (0.0f32, 0.0f32);
        let head = self.problem.queries as usize * self.kernel.variant().heads.value_dim as usize;
        for (theirs, ours) in self.outputs.iter().zip(kernel.chunks_exact(head.max(1))) {
            let Ok(theirs) = theirs.lock() else { continue };
            for (a, b) in theirs.iter().zip(ours) {
                largest = largest.max(b.abs());
                error = error.max((a - b).abs());
            }
        }
        if largest > 0.0 { (error / largest) as f64 } else { error as f64 }
    }

    /// One head: `S = Q · Kᵀ`, softmax of its rows, `O = S · V`.
    fn head(&self, index: usize, scores: &mut [f32], output: &mut [f32]) {
        let Heads { query, kv, value, dim, value_dim } = self.kernel.variant().heads;
        let [n_heads, kv_heads, value_heads, dim, value_dim] =
            [query, kv, value, dim, value_dim].map(|n| n as usize);
        let (queries, keys) = (self.problem.queries as usize, self.problem.keys as usize);
        let (sequence, head) = (index / n_heads, index % n_heads);
        let kv_head = head / (n_heads / kv_heads);
        let value_head = kv_head / (kv_heads / value_heads);
        let q = Matrix {
            data: &self.q[index * queries * dim..][..queries * dim],
            shape: [queries, dim],
            strides: [dim, 1],
        };
        let k_turned = Matrix {
            data: &self.k[(sequence * kv_heads + kv_head) * keys * dim..][..keys * dim],
            shape: [dim, keys],
            strides: [1, dim],
        };
        let v = Matrix {
            data: &self.v[(sequence * value_heads + value_head) * keys * value_dim..][..keys * value_dim],
            shape: [keys, value_dim],
            strides: [value_dim, 1],
        };
        let shape = [queries, keys];
        multiply(MatrixMut { data: scores, shape, strides: [keys, 1] }, q, k_turned);
        let scale = self.kernel.variant().scale as f32;
        let softmax = Softmax { scores: &mut *scores, keys, visible: &self.visible, scale };
        let plan = self.kernel.plan();
        // The kernel runs on the same set, so it is there.
        let _ = softmax.run(plan.engine, plan.isa);
        let weights = Matrix { data: scores, shape, strides: [keys, 1] };
        multiply(
            MatrixMut { data: output, shape: [queries, value_dim], strides: [value_dim, 1] },
            weights,
            v,
        );
    }
}

/// The keys that each query may attend to, as runs; no test of single pairs is timed.
fn visible(variant: &Variant<'_>, problem: &Problem<'_>) -> Vec<Vec<Range<u32>>> {
    let zero = Span::point(0);
    let row = |i: u32| {
        let q = Span::point(problem.q_offset + i as i32);
        let region = Region {
            b: zero,
            h: zero,
            g: zero,
            q,
            k: zero,
            nq: problem.queries as i32,
            nk: problem.keys as i32,
        };
        let inputs = Unknown(&[]);
        let classify = |k| tiles::liveness(variant.allow, &Region { k, ..region }, &inputs);
        tiles::runs(0..problem.keys, 1, classify).map(|(keys, _)| keys).collect()
    };
    (0..problem.queries).map(row).collect()
}
