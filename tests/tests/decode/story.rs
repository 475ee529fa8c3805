//! What becomes of a sequence while it grows: it is prefilled in pieces, goes on step by step, is taken back, forks, and has
//! relatives that are attended with it, cut, filled with other tokens or closed.

use core::fmt::Write;
use core::ops::Range;

use regard::ir::operands::Rows;
use regard::{Cache, CacheLimits, InputData, Kernel, RunError, SequenceId, Solo, Step};
use regard_ir::problem::Sequence;
use regard_ir::variant::Axis;
use regard_oracle::random::CapturedBuffer;
use regard_testkit::{Case, Input, Inputs};
use regard_tests::cached::{self, Filled};
use regard_tests::drawn::Draws;
use regard_tests::{cut, cut_captured, picked};

use crate::{Sizes, bits};

/// Sequences at once.
const MOST_OPEN: usize = 3;

/// Queries of a step at most.
const MOST_QUERIES: u32 = 5;

/// What a caller names a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Prefill,
    Step,
}

/// The outputs of a token, as often as it was attended.
pub(crate) struct Attended {
    pub(crate) phase: Phase,
    pub(crate) token: usize,
    pub(crate) bits: Vec<u64>,
}

/// A sequence that grows up to the tokens of a case.
pub(crate) struct Story<'a> {
    kernel: &'a Kernel,
    case: &'a Case<'a>,
    inputs: &'a Inputs,
    /// Tokens that are none of the sequence's.
    others: &'a Inputs,
    at_once: usize,
    /// The cache, and the sequences that the last call was about.
    filled: Filled,
    /// The memory of all steps.
    step: Step,
    /// The sequence, and its relatives.
    open: Vec<Branch>,
    pub(crate) attended: Vec<Attended>,
    /// All that was done.
    pub(crate) log: String,
}

/// A sequence of the cache.
struct Branch {
    id: SequenceId,
    len: usize,
    /// How long it was at most.
    written: usize,
    /// Whether it has tokens that are none of the case's.
    is_other: bool,
}

impl Branch {
    /// The fewest tokens that it can be cut to and go on.
    fn least(&self, at_once: usize) -> usize {
        self.written.saturating_sub(at_once)
    }
}

impl<'a> Story<'a> {
    /// An empty sequence. `at_once`: queries of a call at most, and tokens that are taken back.
    pub(crate) fn new(
        kernel: &'a Kernel,
        case: &'a Case<'a>,
        [inputs, others]: [&'a Inputs; 2],
        at_once: usize,
    ) -> Self {
        let limits =
            CacheLimits { at_once, ..CacheLimits::new(MOST_OPEN, case.problem.keys.max(1) as usize) };
        let mut cache = kernel.cache(limits).expect("a case is small");
        let id = cache.open().expect("room for one");
        let open = vec![Branch { id, len: 0, written: 0, is_other: false }];
        let log = String::new();
        let step = kernel.step(&cache, MOST_QUERIES as usize, 1).expect("a case is small");
        let filled = Filled { cache, sequences: Vec::new() };
        Self { kernel, case, inputs, others, at_once, filled, step, open, attended: Vec::new(), log }
    }

    /// The cache and the sequence that it has now.
    pub(crate) fn sequence(&self) -> (&Cache, SequenceId) {
        (&self.filled.cache, self.open[0].id)
    }

    /// Prefills `prompt` tokens, then goes on to the last.
    pub(crate) fn tell(&mut self, draws: &mut Draws<'_>, prompt: usize) -> Result<(), RunError> {
        let tokens = self.case.problem.keys as usize;
        while self.open[0].len < prompt {
            let most = (prompt - self.open[0].len).min(self.at_once);
            let count = most - draws.below(most as u32) as usize;
            self.prefill(draws, count)?;
        }
        while self.open[0].len < tokens {
            let left = tokens - self.open[0].len;
            let up_to = |draw: u32| (1 + draw as usize).min(left).min(self.at_once);
            match draws.below(10) {
                6 => self.take_back(draws, 0),
                7 => self.fork(draws)?,
                8 => {
                    let count = up_to(draws.below(40));
                    self.prefill(draws, count)?;
                }
                _ => {
                    let count = up_to(draws.below(MOST_QUERIES));
                    self.step(draws, count)?;
                }
            }
        }
        Ok(())
    }

    /// Appends tokens in a few pieces and attends them as a prefill does.
    fn prefill(&mut self, draws: &mut Draws<'_>, count: usize) -> Result<(), RunError> {
        let end = self.open[0].len + count;
        let piece = draws.pick(&[count, 1 + count / 3, 64]);
        while self.open[0].len < end {
            self.append(0, piece.min(end - self.open[0].len))?;
        }
        let _ = write!(self.log, " prefill {count} to {end} by {piece},");
        self.attend(Phase::Prefill, &[0], count)
    }

    /// Appends a few tokens and attends them, beside relatives that have as many: those may grow too.
    fn step(&mut self, draws: &mut Draws<'_>, count: usize) -> Result<(), RunError> {
        self.append(0, count)?;
        let mut together = vec![0];
        for at in 1..self.open.len() {
            let (tokens, grows) = (self.case.problem.keys as usize, draws.coin());
            if !self.open[at].is_other && grows && self.open[at].len + count <= tokens {
                self.append(at, count)?;
            }
            let Branch { len, is_other, .. } = self.open[at];
            if !is_other && len >= self.open[at].least(self.at_once) + count {
                together.push(at);
            }
        }
        let lengths: Vec<usize> = together.iter().map(|&at| self.open[at].len).collect();
        let _ = write!(self.log, " step {count} to {lengths:?},");
        self.attend(Phase::Step, &together, count)
    }

    /// Takes tokens back from the sequence or a relative.
    fn take_back(&mut self, draws: &mut Draws<'_>, at: usize) {
        let branch = &mut self.open[at];
        let most = (branch.len - branch.least(self.at_once).min(branch.len)).min(20);
        let len = branch.len - draws.below(most as u32 + 1) as usize;
        let _ = write!(self.log, " cut {at} to {len},");
        self.filled.cache.truncate(branch.id, len).expect("it has them");
        branch.len = len;
    }

    /// Forks the sequence; one of the two goes on, and something becomes of the other.
    fn fork(&mut self, draws: &mut Draws<'_>) -> Result<(), RunError> {
        if self.open.len() == MOST_OPEN {
            let oldest = self.open.remove(1);
            self.filled.cache.close(oldest.id).expect("it is open");
        }
        let Branch { id, len, written, .. } = self.open[0];
        let id = self.filled.cache.fork(id).expect("there is room");
        let at = self.open.len();
        self.open.push(Branch { id, len, written, is_other: false });
        let child_goes_on = draws.coin();
        if child_goes_on {
            self.open.swap(0, at);
        }
        let fate = draws.below(4);
        let _ = write!(self.log, " fork at {len}, {}", if child_goes_on { "child goes on," } else { "" });
        match fate {
            0 => {
                let _ = write!(self.log, " close,");
                let other = self.open.pop().expect("it was just opened");
                self.filled.cache.close(other.id).expect("it is open");
            }
            1 => self.take_back(draws, at),
            2 => {
                self.take_back(draws, at);
                let tokens = self.case.problem.keys as usize;
                let branch = &mut self.open[at];
                let count = (1 + draws.below(40) as usize).min(tokens - branch.len);
                let rows = branch.len..branch.len + count;
                let _ = write!(self.log, " {count} others,");
                cached::append(
                    self.kernel,
                    (self.case, self.others),
                    (&mut self.filled.cache, branch.id),
                    0,
                    rows,
                )?;
                branch.len += count;
                branch.written = branch.written.max(branch.len);
                branch.is_other = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn append(&mut self, at: usize, count: usize) -> Result<(), RunError> {
        let branch = &mut self.open[at];
        let rows = branch.len..branch.len + count;
        cached::append(self.kernel, (self.case, self.inputs), (&mut self.filled.cache, branch.id), 0, rows)?;
        branch.len += count;
        branch.written = branch.written.max(branch.len);
        Ok(())
    }

    /// Attends the last tokens of some sequences.
    fn attend(&mut self, phase: Phase, together: &[usize], count: usize) -> Result<(), RunError> {
        let rows: Vec<Range<usize>> =
            together.iter().map(|&at| self.open[at].len - count..self.open[at].len).collect();
        let lengths: Vec<usize> = rows.iter().map(|rows| rows.end).collect();
        let sizes = Sizes::new(&lengths, count);
        let case = sizes.case(self.kernel, self.case.seed);
        let inputs = queries(self.case, self.inputs, &rows);
        self.filled.sequences = together.iter().map(|&at| self.open[at].id).collect();
        let outputs = match phase {
            Phase::Prefill => cached::prefill(self.kernel, &case, &inputs, &self.filled, &Solo)?,
            Phase::Step => {
                cached::decode(self.kernel, &case, &inputs, &self.filled, (&mut self.step, &Solo))?
            }
        };
        for (index, token) in rows.into_iter().flatten().enumerate() {
            self.attended.push(Attended { phase, token, bits: bits(&outputs, index, 1) });
        }
        Ok(())
    }
}

/// Some tokens of the one sequence of a case as the queries of packed sequences, each of which ends with its last one; without
/// keys and values, which are cached.
pub(crate) fn queries(case: &Case<'_>, inputs: &Inputs, rows: &[Range<usize>]) -> Inputs {
    let of = case.problem.sequence(0);
    let longest = rows.iter().map(|rows| rows.end).max().unwrap_or(0);
    let up_to = |keys: usize| Sequence { keys: keys as u32, ..of };
    let captured = inputs.captured();
    let captured = captured.iter().enumerate().map(|(input, &data)| {
        let one = |keys: usize| cut_captured(data, &case.variant, input, 0, &up_to(keys));
        if case.variant.inputs[input].axes().contains(&Axis::Batch) {
            joined(rows.iter().map(|rows| one(rows.end)))
        } else {
            one(longest)
        }
    });
    let pick = |tensor: &Input| picked(case, tensor, rows);
    Inputs {
        captured: captured.collect(),
        gate: inputs.gate.as_ref().map(pick),
        ..inputs.map(&case.variant, |rows, tensor| match rows {
            Rows::Queries => pick(tensor),
            Rows::Keys => cut(&tensor.view(), case.dtype, 0..0),
            Rows::Matrix(_) => tensor.clone(),
        })
    }
}

fn joined(parts: impl Iterator<Item = CapturedBuffer>) -> CapturedBuffer {
    let join = |mut all: CapturedBuffer, part: CapturedBuffer| {
        match (&mut all, part.data()) {
            (CapturedBuffer::F32(all), InputData::F32(part)) => all.extend(part),
            (CapturedBuffer::I32(all), InputData::I32(part)) => all.extend(part),
            (CapturedBuffer::Bool(all), InputData::Bool(part)) => all.extend(part),
            _ => unreachable!("parts of one tensor"),
        }
        all
    };
    parts.reduce(join).expect("at least one sequence")
}
