//! Causal attention of two query heads over one key head, in memory on the stack.

use regard_ir::cache::{Codec, PageFormat};
use regard_ir::expr::{Binary, Node, Op, Tree, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::interval::Unknown;
use regard_ir::machine::Isa;
use regard_ir::plan::{Blocks, Dtype, EngineKind, Pieces, Plan, Split};
use regard_ir::problem::Problem;
use regard_ir::rows::Output;
use regard_ir::variant::{Heads, Mechanism, Sink, Source, Variant, Weights};
use regard_runtime::code::{Code, Place};
use regard_runtime::engine::SimdF32;
use regard_runtime::engine::isa::{Door, scalar::Scalar};
use regard_runtime::engine::threads::Solo;
use regard_runtime::flash::{self, Inputs, Outputs, Parts, Workspace};
use regard_runtime::schedule::{Schedule, Share, Task, Work};
use regard_runtime::view::{View, ViewMut};

const N: usize = 5;
const DIM: usize = 4;
const HEADS: Heads = Heads { query: 2, kv: 1, value: 1, dim: DIM as u32, value_dim: DIM as u32 };

const fn node(op: Op, ty: Type) -> Node {
    Node { op, ty, exact: !matches!(ty, Type::Float) }
}

const CAUSAL: &[Node] = &[
    node(Op::Var(Var::K), Type::Int),
    node(Op::Var(Var::Q), Type::Int),
    node(Op::Binary(Binary::Le, 0, 1), Type::Bool),
];

const VARIANT: Variant<'static> = Variant {
    identity: Identity(0),
    heads: HEADS,
    source: Source::SelfAttention,
    scale: 0.5,
    modify: Tree::new(&[node(Op::Var(Var::S), Type::Float)]),
    allow: Tree::new(CAUSAL),
    weights: Weights::Softmax { sink: Sink::None },
    mechanism: Mechanism::Plain,
    position: None,
    qk_norm: None,
    output: Output { mix: None, norm: None, gate: None, lse: false },
    inputs: &[],
};

const PLAN: Plan = Plan {
    identity: Identity(0),
    isa: Isa::Scalar,
    engine: EngineKind::SimdF32,
    dtype: Dtype::F32,
    pieces: Pieces::WHOLE,
    prefill: Blocks { query_block: 3, key_block: 8, key_cell: 8, mask_step: 8, channel_chain: 64 },
    decode: Split { key_cell: 32, key_chunk: 16, stack_rows: 0 },
    cache: PageFormat { tokens: 16, k: Codec::F32, v: Codec::F32, mixed: false },
    reach: None,
    pack_ahead_bytes: 0,
    latent: None,
    recurrence: None,
    tasks_per_thread: 4,
};

/// The causal mask as straight-line code.
struct Causal;

impl<L: Door> Code<L> for Causal {
    fn modifies(&self) -> bool {
        false
    }

    fn scratch_len(&self, _: usize) -> usize {
        0
    }

    fn apply(&self, _: L, place: &Place<'_>, scores: &mut [f32], masked: bool, _: &mut [i32]) {
        for (key, scores) in scores.chunks_exact_mut(place.q.len()).enumerate() {
            for (score, &q) in scores.iter_mut().zip(place.q) {
                if masked && place.first_key + key as i32 > q {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }

    fn allow(&self, _: L, place: &Place<'_>, allowed: &mut [i32], _: &mut [i32]) {
        for (allowed, &q) in allowed.iter_mut().zip(place.q) {
            *allowed = (place.first_key <= q) as i32;
        }
    }
}

/// Runs a kernel; whether each row is the mean of the values that it sees, as equal scores make it.
pub fn gives_what_it_should() -> bool {
    outputs().is_some_and(|o| {
        o.chunks_exact(DIM).enumerate().all(|(row, o)| {
            // Token j's value is j in each channel, so the mean over 0..=i is i / 2.
            let mean = (row % N) as f32 / 2.0;
            o.iter().all(|&x| (x - mean).abs() < 1e-6)
        })
    })
}

fn outputs() -> Option<[f32; 2 * N * DIM]> {
    let problem = Problem::prefill(Source::SelfAttention, 1, N, N).ok()?;
    let inputs = Unknown(&[]);
    let work = Work {
        plan: &PLAN,
        variant: &VARIANT,
        problem: &problem,
        inputs: &inputs,
        threads: 1,
        of: Share::All,
    };
    let (mut tasks, mut order) = ([Task::default(); 16], [0; 16]);
    let schedule = work.cut(&mut tasks, &mut order).ok()?;

    let engine = SimdF32(Scalar);
    let mut floats = [0.0; 4096];
    let needed = flash::workspace(engine, &VARIANT, &PLAN, &Causal, &problem, 1);
    let floats = floats.get_mut(..needed.floats)?;

    let (q, k) = ([1.0f32; 2 * N * DIM], [1.0f32; N * DIM]);
    let v: [f32; N * DIM] = core::array::from_fn(|i| (i / DIM) as f32);
    let mut o = [f32::NAN; 2 * N * DIM];
    let parts =
        Parts { variant: &VARIANT, plan: &PLAN, problem: &problem, schedule, absorbed: Schedule::EMPTY };
    let inputs = Inputs::new(
        View::contiguous(&q, [1, 2, N], DIM).ok()?,
        View::contiguous(&k, [1, 1, N], DIM).ok()?,
        View::contiguous(&v, [1, 1, N], DIM).ok()?,
    );
    let outputs = Outputs { o: ViewMut::contiguous(&mut o, [1, 2, N], DIM).ok()?, lse: None };
    flash::run(engine, parts, &Causal, inputs, outputs.into(), &Solo, Workspace { floats, spans: &mut [] })
        .ok()?;
    Some(o)
}
