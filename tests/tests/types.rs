//! Storage types of tensors: a call takes those that its plan names, and tells of the first that is another.

use regard::{Dtype, Kernel, Problem, RunError, Solo, States, Workspace};
use regard_ir::spec::CacheFormat;
use regard_runtime::flash;
use regard_testkit::{Case, Input, Inputs, Layout, Output, Outputs};
use regard_tests::views::{place, places, views};
use regard_tests::{cached, cut, engines, run, specs};

/// A spec of each mechanism, and one with a gate.
const SPECS: [&str; 6] = ["causal", "gated", "iha_window", "mla", "castle", "linear_attention"];

/// A kernel of a shipped spec, narrower.
fn kernel(name: &str, dtype: Dtype) -> Kernel {
    let mut spec = specs::narrow(regard::find_shipped(name).expect("a shipped spec"), 40, 24);
    (spec.cache.k, spec.cache.v) = (CacheFormat::Same, CacheFormat::Same);
    run::compile(&spec, engines::serving(dtype)[0], dtype)
}

/// One sequence of so many tokens.
fn case<'a>(kernel: &'a Kernel, tokens: usize) -> Case<'a> {
    let variant = kernel.variant();
    let problem = Problem::prefill(variant.source, 1, tokens, tokens).expect("short");
    let dtype = kernel.plan().dtype;
    Case { variant, problem, dtype, layout: Layout::Bhnd, seed: 3 }
}

/// A tensor of the same numbers in another type.
fn stored(tensor: &Input, dtype: Dtype) -> Input {
    let of = tensor.view();
    cut(&of, dtype, 0..of.shape()[2])
}

/// A type that a kernel's tensors do not have.
const fn other(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::F32 => Dtype::F16,
        Dtype::F16 | Dtype::Bf16 => Dtype::F32,
    }
}

/// What a call says of a tensor.
fn told(tensor: &'static str, found: Dtype, expected: Dtype) -> flash::RunError {
    flash::RunError::Dtype { tensor, found, expected }
}

#[track_caller]
fn assert_told<R>(result: Result<R, RunError>, error: flash::RunError) {
    match result {
        Err(RunError::Runtime(found)) => assert_eq!(found, error),
        Err(other) => panic!("{other}, expected {error}"),
        Ok(_) => panic!("the call was made, expected {error}"),
    }
}

/// A run into outputs that are given.
fn run_into(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    outputs: &mut Outputs,
) -> Result<(), RunError> {
    let schedule = kernel.schedule(&case.problem, &inputs.captured(), 1).expect("a case is small");
    let mut workspace = Workspace::new(&schedule);
    run::run_scheduled(kernel, &schedule, inputs, outputs, &Solo, &mut workspace).map_err(RunError::Runtime)
}

#[test]
fn operands_of_another_type_are_told() {
    for (name, dtype) in SPECS.iter().flat_map(|name| Dtype::ALL.map(|dtype| (name, dtype))) {
        let kernel = kernel(name, dtype);
        let case = case(&kernel, 5);
        let inputs = case.inputs();
        run_into(&kernel, &case, &inputs, &mut case.outputs()).expect("of the kernel's type");
        for (at, operand) in case.variant.operands().enumerate() {
            let mut inputs = inputs.clone();
            inputs.operands[at] = stored(&inputs.operands[at], other(dtype));
            let result = run_into(&kernel, &case, &inputs, &mut case.outputs());
            assert_told(result, told(operand.name, other(dtype), dtype));
        }
    }
}

#[test]
fn outputs_of_another_type_are_told_and_stay_as_they_are() {
    for dtype in Dtype::ALL {
        let mut spec = specs::parse("heads = { query = 4, kv = 2, dim = 16 }\nmask = 'causal'");
        spec.output.lse = true;
        let kernel = run::compile(&spec, engines::serving(dtype)[0], dtype);
        let case = case(&kernel, 5);
        let inputs = case.inputs();
        let fresh = case.outputs();
        let shape = fresh.o.shape();
        let as_other = |dtype, shape| Output::new(dtype, shape, Layout::Bhnd);

        let mut outputs = Outputs { o: as_other(other(dtype), shape), ..fresh.clone() };
        let result = run_into(&kernel, &case, &inputs, &mut outputs);
        assert_told(result, told("o", other(dtype), dtype));
        let untouched = as_other(other(dtype), shape);
        assert_eq!(format!("{:?}", outputs.o), format!("{untouched:?}"));

        let lse = fresh.lse.as_ref().expect("the spec has it").shape();
        let mut outputs = Outputs { lse: Some(as_other(Dtype::Bf16, lse)), ..fresh.clone() };
        let result = run_into(&kernel, &case, &inputs, &mut outputs);
        assert_told(result, told("lse", Dtype::Bf16, Dtype::F32));
        assert_eq!(format!("{:?}", outputs.o), format!("{:?}", fresh.o));
    }
}

/// A gate may be in f32, whatever the type of the rest.
#[test]
fn a_gate_is_of_the_kernels_type_or_in_f32() {
    for dtype in Dtype::ALL {
        let kernel = kernel("gated", dtype);
        let case = case(&kernel, 21);
        for gate in Dtype::ALL {
            let mut inputs = case.inputs();
            inputs.gate = inputs.gate.map(|tensor| stored(&tensor, gate));
            let mut outputs = case.outputs();
            let result = run_into(&kernel, &case, &inputs, &mut outputs);
            if ![dtype, Dtype::F32].contains(&gate) {
                assert_told(result, told("gate", gate, dtype));
                continue;
            }
            result.expect("a gate of that type");
            run::judge(&case, &inputs, Ok(outputs), kernel.plan())
                .unwrap_or_else(|error| panic!("{} beside a gate in {}: {error}", dtype.name(), gate.name()));
        }
    }
}

#[test]
fn states_and_lookahead_keys_are_in_f32() {
    for name in ["castle", "linear_attention"] {
        let kernel = kernel(name, Dtype::Bf16);
        let case = case(&kernel, 5);
        let (inputs, mut outputs) = (case.inputs(), case.outputs());
        let captured = inputs.captured();
        let schedule = kernel.schedule(&case.problem, &captured, 1).expect("a case is small");
        let mut workspace = Workspace::new(&schedule);
        let heads = case.variant.heads;
        let [value, query, dim, width] =
            [heads.value, heads.query, heads.dim, heads.value_dim].map(|n| n as usize);
        let of = |dtype, shape| Output::new(dtype, shape, Layout::Bhnd);
        if name == "castle" {
            let mut u = of(Dtype::Bf16, [1, query, 5, dim]);
            let to = (places(&mut outputs), place(&mut u));
            let given = views(&inputs, &captured);
            let result = kernel.run_lookahead(&schedule, &Solo, given, to, &mut workspace);
            assert_told(result, told("u", Dtype::Bf16, Dtype::F32));
            continue;
        }
        for (tensor, dtypes) in [("state", [Dtype::Bf16, Dtype::F32]), ("norm", [Dtype::F32, Dtype::Bf16])] {
            let mut state = of(dtypes[0], [1, value, dim, width]);
            let mut norm = of(dtypes[1], [1, value, 1, dim]);
            let states = States { state: place(&mut state), norm: Some(place(&mut norm)) };
            let to = (places(&mut outputs), states);
            let given = views(&inputs, &captured);
            let result = kernel.run_recurrence(&schedule, &Solo, given, to, &mut workspace);
            assert_told(result, told(tensor, Dtype::Bf16, Dtype::F32));
        }
    }
}

/// Neither what is appended nor what is asked by may be of another type; where a step appends first, that is taken back.
#[test]
fn caches_are_as_they_were() {
    for name in ["causal", "iha_window", "mla", "castle"] {
        let kernel = kernel(name, Dtype::Bf16);
        let tokens = 3;
        let starts = [0, tokens as i32];
        let problem = Problem::packed(kernel.spec().source, &starts, &starts).expect("starts that rise");
        let case = Case { problem, ..case(&kernel, tokens) };
        let inputs = case.inputs();
        let mut cache = kernel.cache(cached::limits(&case)).expect("a case is small");
        let ids = [cache.open().expect("room for one")];
        let mut step = kernel.step(&cache, tokens, 1).expect("few");
        for (at, operand) in case.variant.operands().enumerate() {
            let mut inputs = inputs.clone();
            inputs.operands[at] = stored(&inputs.operands[at], Dtype::F16);
            let result = cached::step(&kernel, &case, &inputs, (&mut cache, &ids), (&mut step, &Solo));
            assert_told(result, told(operand.name, Dtype::F16, Dtype::Bf16));
            assert_eq!(cache.len(ids[0]).expect("open"), 0, "{name}");
        }
        cached::step(&kernel, &case, &inputs, (&mut cache, &ids), (&mut step, &Solo))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(cache.len(ids[0]).expect("open"), tokens, "{name}");
    }
}
