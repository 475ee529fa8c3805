//! Tokens that sequences of a cache take next: one call, whatever the mechanism.

use regard_engine::threads::Threads;
use regard_ir::inputs::InputData;
use regard_ir::variant::Mechanism;
use regard_launch::Extend;
use regard_runtime::cache::SequenceId;
use regard_runtime::flash::{Inputs, Outputs, Parts};
use regard_runtime::schedule::Schedule as TaskList;
use regard_runtime::split::{Queries, Tokens};

use super::Kernel;
use crate::cache::Cache;
use crate::error::RunError;
use crate::schedule::{Schedule, Workspace};
use crate::step::{Call, Step};

impl Kernel {
    /// A schedule for tokens that a sequence of a cache takes next, by [`Kernel::prefill_next`]: whatever the mechanism, the sequence's
    /// tokens are those before.
    ///
    /// # Errors
    /// As [`Kernel::schedule`], and if there is no such sequence.
    pub fn schedule_next(
        &self,
        cache: &Cache,
        sequence: SequenceId,
        tokens: usize,
        captured: &[InputData<'_>],
        threads: usize,
    ) -> Result<Schedule, RunError> {
        let problem = cache.next_problem(self, sequence, tokens)?;
        self.schedule(&problem, captured, threads).map_err(RunError::Schedule)
    }

    /// Has a sequence of a cache take tokens and attends them: a prompt, or the next piece of one, whatever the mechanism. Keys and
    /// values are appended, lookahead keys learn for good, a state becomes that after the last token.
    ///
    /// `inputs` are of these tokens alone. Captured tensors are as long as the sequence is then; those of a recurrence are of these
    /// tokens alone too, as is all that it knows of the others is their state. `schedule` is of [`Kernel::schedule_next`]. Pieces give
    /// the bits of one piece, but of latents, whose form goes by the queries of a call: with lookahead keys those that end with a query block of the plan, where the cache keeps all digits of
    /// `q_u`, `k_c` and `v_c`; of recurrences those that end with a chunk, and where tokens only add to a
    /// state with the sixteenth.
    ///
    /// # Errors
    /// As [`Kernel::run`], [`Kernel::append`] and [`Kernel::prefill`]. The sequence has no further token then; after an index outside of
    /// a captured tensor its lookahead keys or its state mean nothing, and it is to be cut to 0 or closed.
    pub fn prefill_next(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        (cache, sequence): (&mut Cache, SequenceId),
        inputs: Inputs<'_>,
        outputs: Outputs<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        self.check(schedule, threads)?;
        self.check_cache(cache)?;
        let (variant, problem) = (&self.variant(), &schedule.positions());
        let parts = schedule.parts(variant, self.plan(), problem);
        match variant.mechanism {
            Mechanism::Recurrence(_) => {
                let of = (&[sequence][..], parts);
                cache.advance(self, threads, of, (inputs, outputs), workspace.view())
            }
            Mechanism::Lookahead(_) => cache.extend(self, threads, sequence, problem, |cache, floats| {
                let workspace = workspace.view();
                Extend { parts, code: &self.code, inputs, cache, floats, outputs, threads, workspace }
                    .launch()
            }),
            _ => self.append_then(threads, cache, &[sequence], inputs, |cache, queries| {
                self.prefill(schedule, threads, (cache, &[sequence]), queries, outputs, workspace)
            }),
        }
    }

    /// Has sequences of a cache take a few tokens, as many each, and attends them, whatever the mechanism: [`Kernel::append`] and
    /// [`Kernel::decode`] in one call, or a step of a recurrence.
    ///
    /// `inputs` are `[1][head][token]` rows of these tokens, those of one sequence after those of the other. Captured tensors are as
    /// those of packed sequences; those of a recurrence of these tokens alone. Nothing is allocated, but by what [`Kernel::append_with`]
    /// says of lookahead keys. The same bits come out whatever the count of threads and whichever other sequences there are.
    ///
    /// # Errors
    /// As [`Kernel::append`] and [`Kernel::decode`]. No sequence has a further token then. Of several sequences, if rows of keys are
    /// made with captured tensors along tokens, as by positions that an input gives: append these one by one.
    pub fn decode_next(
        &self,
        step: &mut Step,
        threads: &dyn Threads,
        (cache, sequences): (&mut Cache, &[SequenceId]),
        inputs: Inputs<'_>,
        outputs: Outputs<'_>,
    ) -> Result<(), RunError> {
        self.check_step(step, threads, cache)?;
        let variant = &self.variant();
        if variant.recurrence().is_some() {
            let [_, rows] = inputs.kv.counts();
            let tokens = rows.checked_div(sequences.len()).unwrap_or(0);
            let (Call { ref problem, workspace }, tasks) = step.state_call(self, cache, sequences, tokens)?;
            let absorbed = TaskList::EMPTY;
            let parts = Parts { variant, plan: self.plan(), problem, schedule: tasks, absorbed };
            return cache.advance(self, threads, (sequences, parts), (inputs, outputs), workspace);
        }
        self.append_then(threads, cache, sequences, inputs, |cache, queries| {
            self.decode(step, threads, cache, sequences, queries, outputs)
        })
    }

    /// Appends tokens to sequences, as many to each, and has `attend` attend them. Where something fails they are taken back.
    fn append_then(
        &self,
        threads: &dyn Threads,
        cache: &mut Cache,
        sequences: &[SequenceId],
        inputs: Inputs<'_>,
        attend: impl FnOnce(&Cache, Queries<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let Inputs { q, kv, captured, gate } = inputs;
        let tokens = kv.tokens_of_each().map(|rows| rows.checked_div(sequences.len()).unwrap_or(0));
        let mut appended = 0;
        let run = || {
            for (i, &sequence) in sequences.iter().enumerate() {
                // Of tensors that do not go together appending says which does not.
                let kv = tokens.map_or(kv, |tokens| kv.tokens(i * tokens..(i + 1) * tokens));
                self.append_with(threads, cache, sequence, Tokens { kv, captured })?;
                appended += 1;
            }
            attend(cache, Queries { q, captured, gate })
        };
        let result = run();
        if result.is_err() {
            for &sequence in &sequences[..appended] {
                let len = cache.len(sequence).map_err(RunError::Store)?;
                // A ring that has written over what it would need keeps them.
                let _ = cache.truncate(sequence, len.saturating_sub(tokens.unwrap_or(0)));
            }
        }
        result
    }
}
