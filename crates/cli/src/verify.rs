//! `regard verify`: kernels against the oracle, and against another implementation's output.

mod bits;
pub(crate) mod judge;
mod kernels;
mod lines;
pub(crate) mod problem;

use std::io::Write;

use regard::{Dtype, Kernel, Pool, Spec, Threads, machine};

use crate::args::{Choice, VerifyArgs};
use crate::execute::{Execution, Outcome, queries_have_places};
use crate::failure::Failure;
use crate::run::pool;
use crate::source;
use crate::tensors::Tensors;
use crate::tensors::signature::{Bound, Signature};
use crate::tensors::stored::Stored;
use crate::timing::Timing;
use judge::Judge;
use kernels::{Asked, Candidate};
use lines::{Bits, Comparison, Lines};
use problem::Size;

/// Compares every kernel that is asked for on every problem and prints a line for each comparison.
///
/// # Errors
/// If spec, tensors, flags or memory do not allow it, and if some comparison fails.
pub(crate) fn verify(args: &VerifyArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let specs = args.specs.iter().map(|name| source::spec(name)).collect::<Result<Vec<_>, _>>()?;
    let tensors = args.input.as_deref().map(Tensors::read).transpose()?;
    let expected = args.expected.as_deref().map(Tensors::read).transpose()?;
    let pool = pool(args.choice.threads)?;
    let mut lines = Lines::new(out, args.json);
    for (name, spec) in args.specs.iter().zip(&specs) {
        let verification = Verification { args, name, spec, pool: &pool, expected: expected.as_ref() };
        verification.run(tensors.as_ref(), &mut lines)?;
    }
    lines.end()
}

/// One spec, and what it is compared with.
struct Verification<'a> {
    args: &'a VerifyArgs,
    /// What the spec is called on the command line.
    name: &'a str,
    spec: &'a Spec,
    pool: &'a Pool,
    expected: Option<&'a Tensors>,
}

impl Verification<'_> {
    fn run(&self, tensors: Option<&Tensors>, lines: &mut Lines<'_>) -> Result<(), Failure> {
        lines.spec(self.spec);
        let dtypes = self.dtypes()?;
        let (mut skipped, mut no_code) = (Vec::new(), Vec::new());
        for &dtype in &dtypes {
            let asked = Asked {
                machine: machine::host(),
                ceiling: self.args.choice.isa,
                engine: self.args.engine,
                dtype,
                kernel: self.args.kernel,
            };
            let mut kernels = Vec::new();
            for candidate in asked.candidates(self.spec)? {
                match candidate {
                    Candidate::Kernel(kernel) => kernels.push(*kernel),
                    Candidate::Skipped(isa) if skipped.contains(&isa) => {}
                    Candidate::Skipped(isa) => skipped.push(isa),
                    Candidate::NoCode(source) if no_code.contains(&source) => {}
                    Candidate::NoCode(source) => no_code.push(source),
                }
            }
            match tensors {
                Some(tensors) => {
                    let signature = Signature::new(self.spec, dtype, self.args.layout);
                    let bound = signature.bind(tensors)?;
                    let expected =
                        self.expected.map(|tensors| signature.bind_output(&bound.problem(), tensors));
                    self.compare_each(&kernels, &bound, expected.transpose()?.as_ref(), lines)?;
                }
                None => {
                    for size in self.sizes(&kernels) {
                        let bound = problem::random(self.spec, dtype, size, self.args.layout)?;
                        let start = problem::states(self.spec, &bound.problem())?;
                        let bound = Bound { start, ..bound };
                        self.compare_each(&kernels, &bound, None, lines)?;
                    }
                }
            }
        }
        skipped.iter().try_for_each(|isa| lines.skipped(self.spec, isa.name(), "not on this CPU"))?;
        no_code.iter().try_for_each(|source| lines.no_code(self.spec, source.name(), self.name))
    }

    /// The storage types to take. A file of tensors has one.
    fn dtypes(&self) -> Result<Vec<Dtype>, Failure> {
        let dtypes = self.args.dtype.unwrap_or(Choice::One(self.spec.dtype)).of(&Dtype::ALL);
        match &self.args.input {
            Some(path) if dtypes.len() > 1 => {
                Err(Failure::DtypesOfFile { path: path.clone(), asked: dtypes })
            }
            _ => Ok(dtypes),
        }
    }

    fn sizes(&self, kernels: &[Kernel]) -> Vec<Size> {
        match self.args.q {
            Some(queries) => {
                let keys = self.args.k.unwrap_or(queries);
                vec![Size { batch: self.args.batch.unwrap_or(1), queries, keys }]
            }
            None => {
                let mut sizes = Size::awkward(kernels.iter().map(|kernel| &kernel.plan().prefill));
                if self.spec.variant().pairs_queries() {
                    sizes.iter_mut().for_each(|size| size.queries = size.keys);
                }
                if queries_have_places(self.spec) {
                    sizes.retain(|size| size.queries <= size.keys);
                }
                sizes
            }
        }
    }

    fn compare_each(
        &self,
        kernels: &[Kernel],
        bound: &Bound<'_>,
        expected: Option<&Stored<'_>>,
        lines: &mut Lines<'_>,
    ) -> Result<(), Failure> {
        let captured = bound.captured();
        let operands = judge::operands(bound)?;
        // What the last kernel of another plan wrote: those of one plan follow each other, and give the same bits.
        let mut first: Option<(&Kernel, Outcome)> = None;
        for kernel in kernels {
            let outcome = Execution { kernel, pool: self.pool, repeat: None }.run(bound)?;
            let timing = Timing::new(kernel, bound, &outcome, self.pool.count());
            let positions = judge::positions(kernel, bound)?;
            let judge = Judge::new(kernel, bound, (&operands, &captured), &positions, self.pool)?;
            let report = judge.against_oracle(&outcome)?;
            let rows = [report.rows_checked, report.rows];
            let line =
                |output, against, judgement| Comparison::new(&timing, output, against, judgement, rows);
            lines.comparison(&line("o", "oracle", &report.output))?;
            if let Some(lse) = &report.lse {
                lines.comparison(&line("lse", "oracle", lse))?;
            }
            if let Some(u) = &report.u {
                lines.comparison(&line("u", "oracle", u))?;
            }
            if let Some(state) = &report.state {
                lines.comparison(&line("state", "oracle", state))?;
            }
            if let Some(expected) = expected {
                let judgement = judge.against_expected(&outcome, expected)?;
                lines.comparison(&line("o", "expected", &judgement))?;
            }
            match &first {
                Some((other, theirs)) if other.plan() == kernel.plan() => {
                    let [differing, elements] = bits::differing(&outcome, theirs);
                    let (against, ok) = (other.source().name(), differing == 0);
                    lines.bits(&Bits { timing: &timing, against, differing, elements, ok })?;
                }
                _ => first = Some((kernel, outcome)),
            }
        }
        Ok(())
    }
}
