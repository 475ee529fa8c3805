//! Which kernels are compared: each engine on each instruction set that this processor runs.

use regard::{
    CompileError, Dtype, EngineKind, Isa, Kernel, Machine, Options, Planned, Source, Spec, machine,
};

use crate::args::Choice;
use crate::failure::Failure;

/// What kernels are asked for.
pub(super) struct Asked {
    /// The machine at hand.
    pub(super) machine: Machine,
    /// The most capable instruction set; all are asked for where absent.
    pub(super) ceiling: Option<Isa>,
    /// The engine, or all.
    pub(super) engine: Choice<EngineKind>,
    /// The storage type.
    pub(super) dtype: Dtype,
    /// Where the kernels' code comes from; from each source that has some where absent.
    pub(super) kernel: Option<Source>,
}

/// A kernel, or why there is none.
pub(super) enum Candidate {
    /// One that runs here.
    Kernel(Box<Kernel>),
    /// An engine has this instruction set, this processor does not.
    Skipped(Isa),
    /// This build has no code from this source.
    NoCode(Source),
}

impl Asked {
    /// The kernels of a spec, the most capable instruction set first.
    ///
    /// # Errors
    /// If the machine does not have the ceiling, or no engine computes the spec.
    pub(super) fn candidates(&self, spec: &Spec) -> Result<Vec<Candidate>, Failure> {
        let fail = |error| Failure::Compile { spec: spec.name.clone(), error };
        if let Some(asked) = self.ceiling.filter(|&isa| !self.machine.isa.includes(isa)) {
            return Err(fail(CompileError::Ceiling { asked, machine: self.machine.isa }));
        }
        let mut candidates = Vec::new();
        let mut refusal = None;
        for engine in self.engine.of(&EngineKind::ALL) {
            for isa in Isa::ALL.into_iter().rev().filter(|&isa| self.is_asked_for(isa)) {
                let options = Options { dtype: Some(self.dtype), engine: Some(engine), ..Options::default() };
                match Planned::new(spec, &Machine { isa, ..self.machine }, options) {
                    Err(error) => refusal = Some(error),
                    // The engine has nothing for this set and takes a lesser one, which has its own turn.
                    Ok(planned) if planned.plan().isa != isa => {}
                    Ok(_) if !self.machine.isa.includes(isa) || !machine::available(engine, isa) => {
                        candidates.push(Candidate::Skipped(isa));
                    }
                    Ok(planned) => {
                        for &source in self.kernel.as_ref().map_or(&Source::ALL[..], std::slice::from_ref) {
                            candidates.push(match Kernel::build(planned.clone().from_source(source)) {
                                Ok(kernel) => Candidate::Kernel(Box::new(kernel)),
                                Err(CompileError::NotGenerated { .. }) if self.kernel.is_none() => {
                                    Candidate::NoCode(source)
                                }
                                Err(error) => return Err(fail(error)),
                            });
                        }
                    }
                }
            }
        }
        match refusal {
            Some(error) if candidates.is_empty() => Err(fail(error)),
            _ => Ok(candidates),
        }
    }

    fn is_asked_for(&self, isa: Isa) -> bool {
        self.ceiling.is_none_or(|ceiling| ceiling.includes(isa))
    }
}
