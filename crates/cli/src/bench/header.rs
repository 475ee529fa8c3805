//! The machine, above the table of `regard bench`.

use std::io::{self, Write};

use regard::{Isa, Machine, Pool, Threads};

use super::Place;
use crate::memory::Bytes;
use crate::peaks::Spread;

/// Writes what the machine is and what it does at most.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(out: &mut dyn Write, place: &Place, isa: Isa) -> io::Result<()> {
    let Place { cpu, machine, pool, peaks } = place;
    self::machine(out, cpu, machine, pool, isa)?;
    let (all, one) = (peaks.fma_gflops, peaks.fma_one_gflops);
    writeln!(out, "\nfma, GFLOP/s     {all:>10.1}   one thread {one:.1}")?;
    for (name, rate) in [("dot", peaks.dot_gflops), ("tile", peaks.tile_gflops)] {
        if let Some(rate) = rate {
            writeln!(out, "{:<17}{rate:>10.1}", format!("{name}, GFLOP/s"))?;
        }
    }
    writeln!(out, "bytes, GB/s            read  readwrite   from a buffer of each thread")?;
    for level in &peaks.levels {
        let (name, buffer) = (level.name, Bytes(level.bytes.into()).to_string());
        write!(out, "  {name:<15}{:>10.1} {:>10.1}   {buffer}", level.read.max, level.read_write.max)?;
        if name == "memory" {
            let spread = |rates: &Spread| format!("{:.1}, {:.1}, {:.1}", rates.min, rates.median, rates.max);
            let (read, both) = (spread(&level.read), spread(&level.read_write));
            write!(out, "; min, median, max: read {read}, readwrite {both}")?;
        }
        writeln!(out)?;
    }
    writeln!(out)
}

/// Writes what the machine is, and what of it works.
///
/// # Errors
/// If it cannot be written.
pub(super) fn machine(
    out: &mut dyn Write,
    cpu: &str,
    machine: &Machine,
    pool: &Pool,
    isa: Isa,
) -> io::Result<()> {
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let (threads, cores) = (pool.count(), machine.cores as usize);
    writeln!(
        out,
        "{cpu}: {}, {threads} thread{} on {cores} core{}",
        isa.name(),
        plural(threads),
        plural(cores)
    )
}
