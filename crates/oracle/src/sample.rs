//! Which query rows of a problem are compared.

use regard_ir::problem::Problem;
use regard_ir::variant::Heads;

/// Up to this many pairs of query and key, over all heads and sequences, every row is compared.
pub const ALL_ROWS_PAIRS: u64 = 1 << 22;

/// Rows that are drawn for each head of a larger problem.
pub const DRAWN_ROWS: usize = 64;

/// The rows to compare: all of a small problem, else for each head the first and the last row, both sides of the
/// first and of the last block edge, and [`DRAWN_ROWS`] seeded ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    all: bool,
    query_block: usize,
    seed: u64,
}

impl Sample {
    /// The sample of a problem whose kernel works on `query_block` positions at a time.
    pub fn new(problem: &Problem<'_>, heads: &Heads, query_block: u32, seed: u64) -> Self {
        Self { all: problem.pairs(heads) <= ALL_ROWS_PAIRS, query_block: query_block.max(1) as usize, seed }
    }

    /// The same, with all rows only of a problem of so many pairs at most.
    pub fn all_up_to(self, pairs: u64, problem: &Problem<'_>, heads: &Heads) -> Self {
        Self { all: self.all && problem.pairs(heads) <= pairs, ..self }
    }

    /// Whether every row is compared.
    pub const fn is_all(&self) -> bool {
        self.all
    }

    /// The rows of one head of one sequence, which has so many queries: ascending, each once.
    pub fn rows(&self, b: usize, h: usize, queries: usize) -> Vec<usize> {
        if self.all || queries == 0 {
            return (0..queries).collect();
        }
        let last_edge = (queries - 1) / self.query_block * self.query_block;
        let edges = [self.query_block, last_edge].into_iter().flat_map(|edge| [edge.saturating_sub(1), edge]);
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let mut rng = fastrand::Rng::with_seed(rng.u64(..) ^ ((b as u64) << 32 | h as u64));
        let drawn = (0..DRAWN_ROWS).map(|_| rng.usize(0..queries));
        let mut rows: Vec<usize> = [0, queries - 1].into_iter().chain(edges).chain(drawn).collect();
        rows.retain(|&row| row < queries);
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regard_ir::variant::Source;

    fn sample(queries: usize, keys: usize, seed: u64) -> Sample {
        let heads = Heads { query: 2, kv: 1, value: 1, dim: 8, value_dim: 8 };
        let problem = Problem::prefill(Source::Cross, 1, queries, keys).unwrap();
        Sample::new(&problem, &heads, 48, seed)
    }

    #[test]
    fn up_to_the_limit_every_row_is_compared() {
        assert_eq!(sample(1024, 2048, 0).rows(0, 1, 1024).len(), 1024);
        assert!(!sample(1024, 2049, 0).is_all());
        assert_eq!(sample(0, 1 << 30, 0).rows(0, 0, 0), []);
    }

    #[test]
    fn above_it_ends_edges_and_seeded_rows_are() {
        let sample_1 = sample(100_000, 100_000, 1);
        let rows = sample_1.rows(0, 0, 100_000);
        for row in [0, 47, 48, 99_983, 99_984, 99_999] {
            assert!(rows.contains(&row), "{row} is missing");
        }
        assert!(rows.is_sorted() && (60..=70).contains(&rows.len()) && rows.iter().all(|&row| row < 100_000));
        assert_eq!(rows, sample_1.rows(0, 0, 100_000));
        assert_ne!(rows, sample_1.rows(0, 1, 100_000));
        assert_ne!(rows, sample(100_000, 100_000, 2).rows(0, 0, 100_000));
    }

    #[test]
    fn few_queries_over_many_keys_are_each_compared_once() {
        assert_eq!(sample(2, 1 << 24, 0).rows(0, 0, 2), [0, 1]);
    }
}
