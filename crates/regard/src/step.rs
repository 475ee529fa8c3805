//! Calls on a cache: a few queries of each sequence at a time.

use regard_ir::identity::Identity;
use regard_ir::interval::Span;
use regard_ir::problem::{Problem, ProblemError};
use regard_ir::variant::Source;
use regard_runtime::cache::SequenceId;
use regard_runtime::flash::{self, WorkspaceLen};

use crate::cache::Cache;
use crate::error::RunError;

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
    floats: Vec<f32>,
    spans: Vec<Span>,
}

impl Step {
    pub(crate) fn new(
        identity: Identity,
        (sequences, queries): (usize, usize),
        threads: usize,
        workspace: WorkspaceLen,
    ) -> Self {
        let starts = || Vec::with_capacity(sequences + 1);
        Self {
            identity,
            threads,
            queries,
            cu_q: starts(),
            cu_k: starts(),
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
        let most = self.cu_q.capacity().saturating_sub(1);
        if sequences.len() > most || queries > self.queries {
            return Err(RunError::Step { most: [most, self.queries], found: [sequences.len(), queries] });
        }
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
}

/// What a call on a cache works on, and in.
pub(crate) struct Call<'a> {
    pub(crate) problem: Problem<'a>,
    pub(crate) workspace: flash::Workspace<'a>,
}
