//! What a model has beside attention, as plainly as it can be written.

/// A matrix that tokens are multiplied by.
pub(crate) struct Linear {
    /// `[to][from]`.
    weights: Vec<f32>,
    from: usize,
}

impl Linear {
    /// Seeded weights, so small that what comes out is about as large as what goes in.
    pub(crate) fn random(from: usize, to: usize, seed: &mut u64) -> Self {
        let scale = (3.0 / from as f32).sqrt();
        Self { weights: (0..from * to).map(|_| scale * uniform(seed)).collect(), from }
    }

    /// Rows of tokens times the matrix, as rows.
    pub(crate) fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let dot = |row: &[f32], weights: &[f32]| row.iter().zip(weights).map(|(x, w)| x * w).sum();
        let tokens = rows.chunks_exact(self.from);
        tokens
            .flat_map(|row| self.weights.chunks_exact(self.from).map(move |weights| dot(row, weights)))
            .collect()
    }

    /// One of its rows, as the embedding of a token.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.weights[row * self.from..][..self.from]
    }
}

/// Rows divided by the root of the mean of their squares.
pub(crate) fn normalise(rows: &[f32], width: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let squares: f32 = row.iter().map(|x| x * x).sum();
        let factor = 1.0 / (squares / width as f32 + 1e-6).sqrt();
        row.iter().map(|x| x * factor).collect::<Vec<f32>>()
    };
    rows.chunks_exact(width).flat_map(row).collect()
}

/// From −1 to 1.
fn uniform(seed: &mut u64) -> f32 {
    // Steele et al., *Fast splittable pseudorandom number generators*.
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *seed;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word >> 40) as f32 / (1 << 23) as f32 - 1.0
}
