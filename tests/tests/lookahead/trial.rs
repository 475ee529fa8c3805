//! A variant with lookahead keys on seeded tensors, run on the runtime itself with blocks of one's choice, and judged.

use regard::Pool;
use regard_engine::catalog::Entry;
use regard_ir::cache::{Codec, PageFormat};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::Unknown;
use regard_ir::plan::{Blocks, Dtype, EngineKind, Pieces, Plan, Split};
use regard_ir::problem::Problem;
use regard_ir::spec::Spec;
use regard_launch::{self as launch, VariantCode};
use regard_oracle::compare::{self, Report};
use regard_oracle::random::{self, CapturedBuffer, normal};
use regard_oracle::sample::Sample;
use regard_oracle::{Oracle, Tensors};
use regard_runtime::flash::{self, Parts, RunError};
use regard_runtime::interpreter::LaneProgram;
use regard_runtime::operands::{KeyRows, LookaheadKeys, QueryRows};
use regard_runtime::schedule::{OwnedSchedule, Schedule, Share, Work};
use regard_testkit::{Input, Layout, Output};
use regard_tests::poisoned::Poisoned;
use regard_tests::run;
use regard_tests::views::{place, view};

/// What is run.
pub struct Trial<'a> {
    pub spec: &'a Spec,
    pub problem: Problem<'a>,
    pub dtype: Dtype,
    pub layout: Layout,
    pub seed: u64,
}

/// Its tensors.
pub struct Data {
    pub q_c: Input,
    pub k_c: Input,
    pub v_c: Input,
    pub q_u: Input,
    pub k_u: Input,
    pub v_u: Input,
    pub captured: Vec<CapturedBuffer>,
    pub gate: Option<Input>,
}

/// What a run wrote.
#[derive(Clone)]
pub struct Results {
    pub o: Output,
    pub lse: Option<Output>,
    pub u: Output,
}

impl Trial<'_> {
    pub fn data(&self) -> Data {
        let variant = self.spec.variant();
        let (heads, [batch, queries, keys]) = (variant.heads, self.problem.extents().map(|n| n as usize));
        let tensor = |seed: u64, heads: u32, tokens, width: u32, factor: f32| {
            let values = normal(8 * self.seed + seed).map(move |x| factor * x);
            Input::new(self.dtype, [batch, heads as usize, tokens, width as usize], self.layout, values)
        };
        let of_keys = |seed, width, factor| tensor(seed, heads.query, keys, width, factor);
        // The bounds are stated for lookahead scores as large as others.
        let learned = 1.0 / (self.problem.keys.max(1) as f32).sqrt();
        let captured = (0..variant.inputs.len())
            .map(|input| random::captured(&variant, &self.problem, input, self.seed + input as u64));
        let gate = variant.output.gate.map(|gate| {
            let width = if gate.per_head { 1 } else { heads.value_dim };
            tensor(6, variant.output_heads(), queries, width, 1.0)
        });
        Data {
            q_c: tensor(0, heads.query, queries, heads.dim, 1.0),
            k_c: of_keys(1, heads.dim, 1.0),
            v_c: of_keys(2, heads.value_dim, 1.0),
            q_u: of_keys(3, heads.dim, 1.0),
            k_u: of_keys(4, heads.dim, 1.0),
            v_u: of_keys(5, heads.dim, learned),
            captured: captured.collect(),
            gate,
        }
    }

    pub fn plan(&self, entry: &Entry, blocks: Blocks) -> Plan {
        let variant = self.spec.variant();
        let whole = |keys: u32| keys.next_multiple_of(entry.tile.keys);
        Plan {
            identity: variant.identity,
            isa: entry.isa,
            engine: entry.engine,
            dtype: self.dtype,
            pieces: pieces(entry, self.dtype, variant.position.is_some()),
            prefill: Blocks {
                key_block: whole(blocks.key_block),
                key_cell: whole(blocks.key_cell),
                mask_step: whole(blocks.mask_step),
                ..blocks
            },
            latent: None,
            recurrence: None,
            decode: Split { key_cell: 32, key_chunk: 16, stack_rows: 16 },
            cache: PageFormat {
                tokens: 16,
                k: Codec::of(self.dtype),
                v: Codec::of(self.dtype),
                mixed: false,
            },
            reach: None,
            pack_ahead_bytes: if self.seed.is_multiple_of(2) { 0 } else { 1 << 30 },
            tasks_per_thread: 3,
        }
    }

    pub fn run(&self, plan: &Plan, data: &Data, threads: usize) -> Result<Results, RunError> {
        let variant = self.spec.variant();
        let captured: Vec<InputData<'_>> = data.captured.iter().map(CapturedBuffer::data).collect();
        let [batch, heads, queries, _] = data.q_c.view().shape();
        let widths = (variant.heads.dim as usize, variant.heads.value_dim as usize);
        let o_shape = [batch, variant.output_heads() as usize, queries, widths.1];
        let floats = |width| Output::new(Dtype::F32, [batch, heads, queries, width], self.layout);
        let mut results = Results {
            o: Output::new(self.dtype, o_shape, self.layout),
            lse: variant.output.lse.then(|| floats(1)),
            u: floats(widths.0),
        };
        let pool = Pool::new(threads).expect("threads start");
        let work = Work {
            plan,
            variant: &variant,
            problem: &self.problem,
            inputs: &Unknown(variant.inputs),
            threads: threads as u32,
            of: Share::All,
        };
        let schedule = OwnedSchedule::new(&work).expect("a case is small");
        let gate = data.gate.as_ref().map(view);
        let keys = LookaheadKeys {
            k_c: view(&data.k_c),
            v_c: view(&data.v_c),
            q_u: view(&data.q_u),
            k_u: view(&data.k_u),
            v_u: view(&data.v_u),
        };
        let inputs = flash::Inputs::of(QueryRows::Plain(view(&data.q_c)), KeyRows::Lookahead(keys));
        let schedule = schedule.view();
        let parts =
            Parts { variant: &variant, plan, problem: &self.problem, schedule, absorbed: Schedule::EMPTY };
        let code = &VariantCode::Loaded(LaneProgram::new(&variant));
        let of = (&variant, plan, &self.problem);
        let len = launch::Sizes { of, code, threads }.run().expect("only what is available is run");
        let mut memory = Poisoned::new(len);
        let (u, lse) = (place(&mut results.u), results.lse.as_mut().map(place));
        let run = launch::Run {
            parts,
            code,
            inputs: flash::Inputs { gate, ..inputs.captured(&captured) },
            target: flash::Outputs { o: place(&mut results.o), lse }.into(),
            left: launch::Left::Keys(u),
            threads: &pool,
            workspace: memory.view(),
        };
        run::launched(run.launch())?;
        for output in [Some(&results.o), results.lse.as_ref(), Some(&results.u)].into_iter().flatten() {
            output.check().unwrap_or_else(|error| panic!("{error}"));
        }
        Ok(results)
    }

    /// How results compare with the oracle.
    pub fn judge(&self, plan: &Plan, data: &Data, results: &Results) -> Report {
        let variant = self.spec.variant();
        let captured: Vec<InputData<'_>> = data.captured.iter().map(CapturedBuffer::data).collect();
        let captured =
            Captured::bind(variant.inputs, &captured, &variant.heads, variant.source, &self.problem).unwrap();
        let rows = [&data.q_c, &data.k_c, &data.v_c, &data.q_u, &data.k_u, &data.v_u];
        let (operands, gate) = (rows.map(Input::view), data.gate.as_ref().map(Input::view));
        let oracle = Oracle::new(variant, self.problem, Tensors { operands: &operands, captured, gate })
            .unwrap()
            .with_precision(plan.precision());
        let lse = results.lse.as_ref().map(Output::view);
        let outputs = compare::Outputs { o: results.o.view(), lse, u: Some(results.u.view()), state: None };
        let sample = Sample::new(&self.problem, &variant.heads, plan.prefill.query_block, self.seed);
        compare::compare(&oracle, &outputs, &sample).unwrap()
    }
}

/// What an engine must split operands into, as planners decide it.
fn pieces(entry: &Entry, dtype: Dtype, turns: bool) -> Pieces {
    match (entry.engine, dtype) {
        (EngineKind::AmxBf16, Dtype::F32) => Pieces { scores: 3, weights: 3, values: 3, order: 3 },
        (EngineKind::AmxBf16, Dtype::Bf16) => Pieces { scores: 1 + u8::from(turns), ..Pieces::WHOLE },
        _ => entry.exact(dtype).expect("it is served"),
    }
}
