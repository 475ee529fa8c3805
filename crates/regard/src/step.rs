//! Calls on a cache: a few queries of each sequence at a time.

use regard_ir::identity::Identity;
use regard_ir::interval::{Span, Unknown};
use regard_ir::problem::{Problem, ProblemError};
use regard_ir::variant::Source;
use regard_runtime::cache::SequenceId;
use regard_runtime::flash::{self, WorkspaceLen};
use regard_runtime::schedule::{Schedule, Share, Task, Work};

use crate::cache::Cache;
use crate::error::{RunError, ScheduleError};
use crate::kernel::Kernel;

/// What calls on a cache work in: made once, it bounds sequences, queries and lengths, and nothing is allocated afterwards.
#[derive(Clone, Debug)]
pub struct Step {
    pub(crate) identity: Identity,
    pub(crate) threads: usize,
    /// Queries of a sequence at most.
    queries: usize,
    /// Where the sequences' queries and keys begin, where there are several.
    cu_q: Vec<i32>,
    cu_k: Vec<i32>,
    /// Of recurrences, where each sequence's first query stands, and who does what.
    positions: Vec<i32>,
    tasks: Vec<Task>,
    order: Vec<u32>,
    floats: Vec<f32>,
    spans: Vec<Span>,
}

impl Step {
    pub(crate) fn new(
        identity: Identity,
        (sequences, queries): (usize, usize),
        threads: usize,
        (workspace, tasks): (WorkspaceLen, usize),
    ) -> Self {
        let starts = || Vec::with_capacity(sequences + 1);
        Self {
            identity,
            threads,
            queries,
            cu_q: starts(),
            cu_k: starts(),
            positions: Vec::with_capacity(sequences),
            tasks: vec![Task::default(); tasks],
            order: vec![0; tasks],
            floats: vec![0.0; workspace.floats],
            spans: vec![Span::point(0); workspace.spans],
        }
    }

    /// Bytes of its workspace.
    pub fn workspace_bytes(&self) -> usize {
        WorkspaceLen { floats: self.floats.len(), spans: self.spans.len() }.bytes()
    }

    /// A call: `queries` of each sequence over all its keys, in positions, of which a token has so many.
    pub(crate) fn call(
        &mut self,
        (source, per_token): (Source, u32),
        cache: &Cache,
        sequences: &[SequenceId],
        queries: usize,
    ) -> Result<Call<'_>, RunError> {
        self.check(sequences.len(), queries)?;
        let Self { cu_q, cu_k, floats, spans, .. } = self;
        let workspace = flash::Workspace { floats, spans };
        let positions = |tokens: usize| tokens.saturating_mul(per_token as usize);
        let queries = positions(queries);
        if let [sequence] = sequences {
            let keys = positions(cache.len(*sequence).map_err(RunError::Store)?);
            let problem = Problem::prefill(source, 1, queries, keys).map_err(RunError::Problem)?;
            return Ok(Call { problem, workspace });
        }
        let (mut q, mut k) = (0i32, 0i32);
        cu_q.clear();
        cu_k.clear();
        cu_q.push(0);
        cu_k.push(0);
        for &sequence in sequences {
            let keys = positions(cache.len(sequence).map_err(RunError::Store)?);
            let grown = |from: i32, by: usize| i32::try_from(by).ok().and_then(|by| from.checked_add(by));
            let too_long = |what, len| RunError::Problem(ProblemError::TooLong { what, len });
            q = grown(q, queries).ok_or_else(|| too_long("queries", queries * sequences.len()))?;
            k = grown(k, keys).ok_or_else(|| too_long("keys", keys))?;
            cu_q.push(q);
            cu_k.push(k);
        }
        let problem = Problem::packed(source, cu_q, cu_k).map_err(RunError::Problem)?;
        Ok(Call { problem, workspace })
    }

    /// Whether it was made for so many sequences, and queries of each.
    fn check(&self, sequences: usize, queries: usize) -> Result<(), RunError> {
        let most = self.cu_q.capacity().saturating_sub(1);
        if sequences > most || queries > self.queries {
            return Err(RunError::Step { most: [most, self.queries], found: [sequences, queries] });
        }
        Ok(())
    }

    /// A call on states: `tokens` of each sequence, after those that it has, and who does what.
    pub(crate) fn state_call(
        &mut self,
        kernel: &Kernel,
        cache: &Cache,
        sequences: &[SequenceId],
        tokens: usize,
    ) -> Result<(Call<'_>, Schedule<'_>), RunError> {
        self.check(sequences.len(), tokens)?;
        let (threads, source) = (self.threads, kernel.spec().source);
        let Self { cu_q, positions, tasks, order, floats, spans, .. } = self;
        cu_q.clear();
        positions.clear();
        cu_q.push(0);
        for (i, &sequence) in (1..).zip(sequences) {
            let len = cache.len(sequence).map_err(RunError::Store)?;
            // A cache has no more tokens than 31 bits count.
            positions.push(len as i32);
            let rows = i32::try_from(tokens.saturating_mul(i));
            let too_long = |_| RunError::Problem(ProblemError::TooLong { what: "queries", len: tokens });
            cu_q.push(rows.map_err(too_long)?);
        }
        let problem = match positions[..] {
            // As any call on one sequence, which is not packed.
            [position] => Problem::prefill(source, 1, tokens, tokens)
                .and_then(|problem| problem.with_q_offset(position.into())),
            _ => Problem::packed(source, cu_q, cu_q).and_then(|problem| problem.with_q_offsets(positions)),
        };
        let problem = problem.map_err(RunError::Problem)?;
        let variant = &kernel.variant();
        let inputs = &Unknown(variant.inputs);
        let work = Work {
            plan: kernel.plan(),
            variant,
            problem: &problem,
            inputs,
            threads: threads as u32,
            of: Share::All,
        };
        let cut = work.cut(tasks, order).map_err(|error| RunError::Schedule(ScheduleError::Cut(error)))?;
        Ok((Call { problem, workspace: flash::Workspace { floats, spans } }, cut))
    }
}

/// What a call on a cache works on, and in.
pub(crate) struct Call<'a> {
    pub(crate) problem: Problem<'a>,
    pub(crate) workspace: flash::Workspace<'a>,
}
