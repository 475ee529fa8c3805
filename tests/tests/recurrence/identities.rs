//! What must come out the same in two ways.

use core::ops::Range;

use regard::{Dtype, Pool, Problem};
use regard_ir::variant::Axis;
use regard_oracle::random::CapturedBuffer;
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::cut;
use regard_tests::states::States;

use crate::{RECURRENCES, Trial, serving, spec};

/// max |a − b| / max |b|.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let largest = b.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    a.iter().zip(b).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest
}

fn rows(outputs: &Outputs) -> Vec<f64> {
    super::elements(outputs).into_iter().map(f64::from_bits).collect()
}

/// The outputs of a spec whose inputs of a name are all of a value.
fn outputs_of(lines: &str, inputs: &[(&str, f32)]) -> Vec<f64> {
    let pool = Pool::new(1).expect("no thread");
    let spec = spec("query = 2, dim = 24, value_dim = 16", lines);
    let problem = Problem::prefill(spec.source, 1, 75, 75).expect("short");
    let mut trial = Trial::new(&spec, problem, Dtype::F32, 4);
    for (name, value) in inputs {
        let at = spec.inputs.names.iter().position(|it| it == name).expect("it has one");
        let CapturedBuffer::F32(data) = &mut trial.inputs.captured[at] else { panic!("f32") };
        data.fill(*value);
    }
    let entry = serving(&spec, Dtype::F32).next().expect("an engine");
    rows(&trial.check(entry, 32, &pool).0)
}

#[test]
fn no_decay_is_a_decay_of_zero() {
    let plain = outputs_of("recurrence = {}", &[]);
    for decay in ["head", "token", "channel"] {
        let zero = outputs_of(&format!("recurrence = {{ decay = '{decay}' }}"), &[("decay", 0.0)]);
        assert!(distance(&zero, &plain) < 1e-6, "{decay}");
    }
    let delta = outputs_of("recurrence = { update = 'delta' }\nqk_norm = 'l2'", &[("beta", 0.5)]);
    let lines = "recurrence = { update = 'delta', decay = 'token' }\nqk_norm = 'l2'";
    assert!(distance(&outputs_of(lines, &[("beta", 0.5), ("decay", 0.0)]), &delta) < 1e-6);
}

#[test]
fn one_decay_of_all_channels_is_that_of_their_token() {
    for delta in ["add", "delta"] {
        let of = |decay| {
            let lines = format!("recurrence = {{ decay = '{decay}', update = '{delta}' }}\nqk_norm = 'l2'");
            let beta = ("beta", 0.5);
            let inputs = [("decay", -0.1), beta];
            outputs_of(&lines, if delta == "delta" { &inputs } else { &inputs[..1] })
        };
        assert!(distance(&of("channel"), &of("token")) < 1e-6, "{delta}");
        assert!(distance(&of("head"), &of("token")) < 1e-6, "{delta}");
    }
}

/// A strength of zero leaves a state as it is.
#[test]
fn nothing_is_written_without_strength() {
    let outputs = outputs_of("recurrence = { update = 'delta' }\nqk_norm = 'l2'", &[("beta", 0.0)]);
    assert!(outputs.iter().all(|&o| o == 0.0));
}

/// Keys at right angles recall nothing of each other, so that a delta rule of strength 1 is an addition.
#[test]
fn right_angles_make_an_addition_of_a_delta() {
    let pool = Pool::new(1).expect("no thread");
    let of = |update: &str| {
        let lines = format!("recurrence = {{ update = '{update}' }}");
        let spec = spec("query = 1, dim = 40, value_dim = 16", &lines);
        let problem = Problem::prefill(spec.source, 1, 40, 40).expect("short");
        let mut trial = Trial::new(&spec, problem, Dtype::F32, 4);
        for t in 0..40 {
            (0..40).for_each(|c| trial.inputs.operands[1].set([0, 0, t, c], f32::from(u8::from(c == t))));
        }
        if let Some(CapturedBuffer::F32(betas)) = trial.inputs.captured.first_mut() {
            betas.fill(1.0);
        }
        let entry = serving(&spec, Dtype::F32).next().expect("an engine");
        rows(&trial.check(entry, 16, &pool).0)
    };
    assert!(distance(&of("delta"), &of("add")) < 1e-6);
}

/// However chunks are cut, within twice the bound of each; and a state that is handed on at the grid of chunks shows nowhere.
#[test]
fn cuts_do_not_show() {
    let pool = Pool::new(1).expect("no thread");
    for (seed, lines) in (0..).zip(RECURRENCES) {
        let spec = spec("query = 2, dim = 24, value_dim = 16", lines);
        let problem = Problem::prefill(spec.source, 1, 100, 100).expect("short");
        let trial = Trial::new(&spec, problem, Dtype::F32, 2 * seed + 1);
        let entry = serving(&spec, Dtype::F32).next().expect("an engine");
        let [short, long] = [16, 64].map(|chunk| rows(&trial.check(entry, chunk, &pool).0));
        assert!(distance(&short, &long) < 4e-6, "{lines}");
    }
}

/// Some tokens of a trial's one sequence, as a trial that begins with a state.
fn piece<'a>(trial: &Trial<'a>, tokens: Range<usize>, start: States) -> Trial<'a> {
    let Case { variant, dtype, .. } = trial.case;
    let problem = Problem::prefill(variant.source, 1, tokens.len(), tokens.len()).expect("short");
    let problem = problem.with_q_offset(tokens.start as i64).expect("near");
    let whole = trial.case.problem.keys as usize;
    let operands = trial.inputs.operands.iter();
    let gate = trial.inputs.gate.as_ref();
    let captured = trial.inputs.captured.iter().zip(variant.inputs).map(|(data, shape)| {
        let CapturedBuffer::F32(data) = data else { panic!("f32") };
        let Some(at) = shape.axes().iter().position(|axis| *axis == Axis::Key) else {
            return CapturedBuffer::F32(data.clone());
        };
        let inner: usize = shape.axes()[at + 1..]
            .iter()
            .map(|axis| match axis {
                Axis::Len(len) => *len as usize,
                other => panic!("{other:?}"),
            })
            .product();
        let rows =
            data.chunks(whole * inner).flat_map(|rows| &rows[tokens.start * inner..tokens.end * inner]);
        CapturedBuffer::F32(rows.copied().collect())
    });
    let inputs = Inputs {
        operands: operands.map(|rows| cut(&rows.view(), dtype, tokens.clone())).collect(),
        captured: captured.collect(),
        gate: gate.map(|gate| cut(&gate.view(), dtype, tokens.clone())),
        ..trial.inputs.clone()
    };
    Trial { case: Case { problem, layout: Layout::Gapped, ..trial.case }, inputs, start }
}

/// A prompt, and then token by token or some at a time, is the whole: with its bits where it is cut between chunks, or where tokens only
/// add to a state, between cells of 16.
#[test]
fn tokens_go_on_where_a_prompt_ends() {
    let pool = Pool::new(2).expect("two threads");
    for (seed, lines) in (0..).zip(RECURRENCES) {
        let spec = spec("query = 2, dim = 24, value_dim = 16", lines);
        let chunk = if lines.contains("delta") { 128 } else { 16 };
        let problem = Problem::prefill(spec.source, 1, 600, 600).expect("short");
        let trial = Trial::new(&spec, problem, Dtype::F32, 2 * seed + 1);
        for entry in serving(&spec, Dtype::F32) {
            let (whole, left) = trial.check(entry, chunk, &pool);
            let of = |outputs: &Outputs, head: usize, token: usize| outputs.o.view().row(0, head, token);
            for cuts in [&[0, 256, 512, 600][..], &[0, 40, 41, 42, 45, 53, 600]] {
                let mut states = trial.start.clone();
                for pair in cuts.windows(2) {
                    let part = piece(&trial, pair[0]..pair[1], states);
                    let (outputs, after) = part.check(entry, chunk, &pool);
                    states = after;
                    for (head, token) in (0..2).flat_map(|head| (pair[0]..pair[1]).map(move |t| (head, t))) {
                        let (found, expected) =
                            (of(&outputs, head, token - pair[0]), of(&whole, head, token));
                        let near = distance(&found, &expected);
                        let is_same = near == 0.0 || cuts[1] != 256 && near < 1e-5;
                        assert!(is_same, "{lines}: token {token} of {cuts:?} is {near} away");
                    }
                }
                assert!(cuts[1] != 256 || super::same_states(&states, &left), "{lines}");
            }
        }
    }
}
