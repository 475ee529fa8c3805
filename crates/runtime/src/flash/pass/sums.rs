//! The sums of row tiles: of a cell, of all cells before it, and as outputs.

use regard_engine::Engine;
use regard_engine::grid::Claim;
use regard_ir::variant::{Sink, Weights};
use regard_simd::TRANSPOSE;

use super::super::fold::common_reference;
use super::super::memory::Memory;
use super::{EMPTY, Pass, RowTile, Shared};
use crate::lines;
use crate::sums::{add_scaled, divide, log_sum, logit, multiply, sunk_inverse, turn};

/// How far a row tile's sums have come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// No key so far.
    Empty,
    /// Only in the cell under way, which is then the sum of all.
    Cell,
    /// In the total alone.
    Total,
    /// In both.
    Both,
}

impl<E: Engine> Pass<'_, E> {
    fn progress(&self, tile: RowTile, memory: &Memory<'_>) -> Progress {
        match (memory.cell_sum[tile.first] != EMPTY, memory.total_sum[tile.first] != EMPTY) {
            (false, false) => Progress::Empty,
            (true, false) => Progress::Cell,
            (false, true) => Progress::Total,
            (true, true) => Progress::Both,
        }
    }

    /// Adds the cells of all row tiles to their totals and empties the cells.
    #[inline(always)]
    pub(super) fn close_cells(&self, memory: &mut Memory<'_>) {
        if self.tiles().any(|tile| memory.total_sum[tile.first] != EMPTY) {
            for tile in self.tiles() {
                self.close_cell(tile, memory);
            }
            return;
        }
        // Nothing came before: the cells are the totals.
        let Memory { cell_output, cell_reference, cell_sum, .. } = memory;
        core::mem::swap(cell_output, &mut memory.total_output);
        core::mem::swap(cell_reference, &mut memory.total_reference);
        core::mem::swap(cell_sum, &mut memory.total_sum);
        cell_reference.fill(f32::NEG_INFINITY);
        cell_sum.fill(EMPTY);
    }

    /// Adds a row tile's cell to its total and empties the cell.
    #[inline(always)]
    fn close_cell(&self, tile: RowTile, memory: &mut Memory<'_>) {
        let width = self.shared.layout.value_width;
        let lanes = self.shared.engine.lanes();
        let rows = tile.first..tile.first + tile.width;
        let outputs = rows.start * width..rows.end * width;
        let progress = self.progress(tile, memory);
        let cell = &memory.cell_output[outputs.clone()];
        let total = &mut memory.total_output[outputs];
        match progress {
            Progress::Empty | Progress::Total => return,
            Progress::Cell => {
                total.copy_from_slice(cell);
                memory.total_reference[rows.clone()].copy_from_slice(&memory.cell_reference[rows.clone()]);
                memory.total_sum[rows.clone()].copy_from_slice(&memory.cell_sum[rows.clone()]);
            }
            Progress::Both => {
                let (old, new) = (&mut memory.factors[..tile.width], &mut memory.other_factors[..tile.width]);
                let reference = &mut memory.total_reference[rows.clone()];
                common_reference(lanes, reference, &memory.cell_reference[rows.clone()], old, new);
                add_scaled(
                    lanes,
                    &mut memory.total_sum[rows.clone()],
                    old,
                    &memory.cell_sum[rows.clone()],
                    new,
                );
                add_scaled(lanes, total, old, cell, new);
            }
        }
        memory.cell_reference[rows.clone()].fill(f32::NEG_INFINITY);
        memory.cell_sum[rows].fill(EMPTY);
    }

    /// Writes the rows of all row tiles. Lines that a tile's rows go to are asked for a tile ahead: else each row waits for its memory.
    #[inline(always)]
    pub(super) fn write_rows(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>) {
        let mut coming = self.tiles();
        self.ask_outputs(coming.next(), claim);
        for tile in self.tiles() {
            self.ask_outputs(coming.next(), claim);
            self.write(tile, claim, memory);
        }
    }

    #[inline(always)]
    fn ask_outputs(&self, tile: Option<RowTile>, claim: &mut Claim<'_>) {
        let Some(RowTile { first, rows, .. }) = tile.filter(|_| self.shared.keys.asks) else { return };
        for row in first..first + rows {
            let (head, query) = self.place(row);
            lines::ask(self.shared.engine.lanes(), claim.output(head as usize, query).as_ref());
        }
    }

    /// Divides a row tile's output by its sums and writes its rows.
    #[inline(always)]
    fn write(&self, tile: RowTile, claim: &mut Claim<'_>, memory: &mut Memory<'_>) {
        let RowTile { first, rows, width } = tile;
        let Shared { engine, parts, layout, .. } = self.shared;
        let lanes = engine.lanes();
        if self.progress(tile, memory) == Progress::Both {
            self.close_cell(tile, memory);
        }
        let progress = self.progress(tile, memory);
        let (output, sum, reference) = if progress == Progress::Total {
            (&mut *memory.total_output, &*memory.total_sum, &*memory.total_reference)
        } else {
            (&mut *memory.cell_output, &*memory.cell_sum, &*memory.cell_reference)
        };
        let output = &mut output[first * layout.value_width..][..width * layout.value_width];
        let (sum, reference) = (&sum[first..][..width], &reference[first..][..width]);
        let sink = match parts.variant.weights {
            Weights::Softmax { sink } => Some(sink),
            Weights::Sigmoid | Weights::Relu => None,
        };
        let is_part = self.shared.is_part;
        match sink {
            _ if progress == Progress::Empty => output.fill(0.0),
            None => {}
            Some(_) if is_part => {}
            Some(Sink::None) => divide(lanes, output, sum, &mut memory.factors[..width]),
            Some(sink) => {
                for (row, factor) in memory.factors[..width].iter_mut().enumerate() {
                    let logit = logit(sink, memory.heads[first + row], self.shared.captured);
                    *factor = sunk_inverse(sum[row], reference[row], logit);
                }
                multiply(lanes, output, &memory.factors[..width]);
            }
        }
        let batch = self.block.of.batch as usize;
        for row in (0..rows).step_by(TRANSPOSE) {
            let count = TRANSPOSE.min(rows - row);
            turn(lanes, output, [row, width], layout.value_width, memory.rows);
            for (i, values) in memory.rows.chunks_exact_mut(layout.value_width).take(count).enumerate() {
                let (head, query) = self.place(first + row + i);
                if let Some(finish) = &self.shared.finish {
                    let at = [batch, memory.heads[first + row + i] as usize, self.query_row(query)];
                    finish.apply(lanes, at, &mut values[..layout.shape.value_dim], memory.finish);
                }
                claim.output(head as usize, query).write(lanes, values);
                let empty = progress == Progress::Empty;
                match claim.stats(head as usize, query) {
                    Some([total, its_reference]) => {
                        *total = if empty { 0.0 } else { sum[row + i] };
                        *its_reference = if empty { f32::NEG_INFINITY } else { reference[row + i] };
                    }
                    Some([lse]) => {
                        let head = memory.heads[first + row + i];
                        let sink =
                            sink.map_or(f64::NEG_INFINITY, |sink| logit(sink, head, self.shared.captured));
                        *lse =
                            if empty { sink as f32 } else { log_sum(sum[row + i], reference[row + i], sink) };
                    }
                    _ => {}
                }
            }
        }
    }
}
