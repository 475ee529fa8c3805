//! Long sequences: states do not drift.

use regard::{Dtype, Pool, Problem};
use regard_oracle::compare::Report;
use regard_tests::states;

use crate::{Trial, serving, spec};

/// Each member at lengths around a chunk and at some thousands; the longest lengths are run by hand, see docs/exhaustive.md.
#[test]
fn long_sequences_keep_to_the_bounds() {
    for lines in ["recurrence = {}", "recurrence = { update = 'delta', decay = 'token' }\nqk_norm = 'l2'"] {
        check(lines, &[15, 17, 33, 4096]);
    }
}

#[test]
#[ignore = "long"]
fn the_longest_sequences_keep_to_the_bounds() {
    for lines in crate::RECURRENCES {
        let errors = check(lines, &[1, 15, 16, 17, 4096, 65_536]);
        // What decays forgets its errors too.
        let most = if lines.contains("decay") { 2.0 } else { 5.0 };
        for (short, long) in errors[4].iter().zip(&errors[5]) {
            assert!(*long < most * short, "{lines}: {short:.1e} after 4,096 tokens, {long:.1e} after 65,536");
        }
    }
}

/// The errors of outputs of each length, in f32 and in bf16.
fn check(lines: &str, lengths: &[usize]) -> Vec<[f64; 2]> {
    let pool = Pool::new(2).expect("two threads");
    let of = |tokens: usize| {
        let spec = spec("query = 1, dim = 32", lines);
        let problem = Problem::prefill(spec.source, 1, tokens, tokens).expect("short");
        [Dtype::F32, Dtype::Bf16].map(|dtype| {
            let trial = Trial::new(&spec, problem, dtype, 2);
            let entry = serving(&spec, dtype).next().expect("an engine");
            let (outputs, left) = trial.check(entry, 16, &pool);
            let report: Report =
                states::judge(&trial.case, &trial.inputs, &outputs, (&trial.start, &left)).expect("checked");
            println!("{tokens} tokens in {}: {report}; {lines}", dtype.name());
            report.output.error
        })
    };
    lengths.iter().map(|&tokens| of(tokens)).collect()
}
