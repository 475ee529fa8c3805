//! How far results move with roundings: sums that cancel move far, and no arithmetic of that precision holds them still.

use regard_oracle::compare::CompareError;
use regard_oracle::random::{self, CapturedBuffer};
use regard_oracle::sample::Sample;

use crate::case::{Case, Failure, Inputs, Outputs};
use crate::poison::Input;

/// How many nudges are tried.
const NUDGES: u64 = 4;

impl Case<'_> {
    /// The share of its bound by which the oracle's own result moves when it rounds to f32 and each f32 of the inputs
    /// moves by one unit in its last place, up or down by a coin; the largest share of a few trials.
    ///
    /// # Errors
    /// If an expression reads a captured input outside one of its axes.
    ///
    /// # Panics
    /// If `inputs` are not of this case.
    pub fn sensitivity(&self, inputs: &Inputs, sample: &Sample) -> Result<f64, CompareError> {
        let mut largest = 0.0f64;
        for seed in 0..NUDGES {
            let nudged = inputs.nudged(seed);
            let moved = self.by_rounding_oracle(&nudged)?;
            let report = match self.judge(inputs, &moved, sample) {
                Ok(report) => report,
                Err(Failure::Bound(report)) => *report,
                Err(Failure::Compare(error)) => return Err(error),
                Err(Failure::Poison(name, error)) => unreachable!("`{name}` was written whole: {error}"),
            };
            largest = largest.max(report.share());
        }
        Ok(largest)
    }

    /// What the oracle says when it rounds to f32.
    fn by_rounding_oracle(&self, inputs: &Inputs) -> Result<Outputs, CompareError> {
        let data = inputs.captured();
        let (operands, positions) = (inputs.views(), self.positions());
        let oracle = self.oracle(inputs, &operands, &data, &positions).rounding();
        let mut outputs = self.outputs();
        for part in (0..oracle.parts()).map(|part| oracle.part(part)) {
            let of = part.rows();
            for i in 0..of.queries as usize {
                let row = part.row(i)?;
                let at = |h, channel| [of.batch as usize, h, of.first_query as usize + i, channel];
                for (h, o) in part.output_heads().zip(row.o) {
                    o.into_iter().enumerate().for_each(|(channel, o)| outputs.o.set(at(h, channel), o));
                }
                if let (Some(to), Some(lse)) = (&mut outputs.lse, row.lse) {
                    part.query_heads().zip(lse).for_each(|(h, lse)| to.set(at(h, 0), lse));
                }
            }
        }
        Ok(outputs)
    }
}

impl Inputs {
    fn nudged(&self, seed: u64) -> Self {
        let mut coins = random::normal(seed).map(|x| x > 0.0);
        let mut nudge = |x: f32| if coins.next() == Some(true) { x.next_up() } else { x.next_down() };
        let mut row = |input: &Input| input.map_f32(&mut nudge);
        let operands = self.operands.iter().map(&mut row).collect();
        let gate = self.gate.as_ref().map(row);
        let captured = self.captured.iter().map(|buffer| match buffer {
            CapturedBuffer::F32(data) => CapturedBuffer::F32(data.iter().map(|&x| nudge(x)).collect()),
            other => other.clone(),
        });
        Self { operands, captured: captured.collect(), gate, ..self.clone() }
    }
}
