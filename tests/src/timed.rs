//! Runs that the examples time.

use std::error::Error;
use std::time::Instant;

use regard::{
    InputData, Inputs, Kernel, Outputs, Problem, Schedule, Spec, Threads, View, ViewMut, Workspace, machine,
};

/// A kernel whose heads all have keys and values of their own, of one width, on sequences of one length; f32.
pub struct Call<'a> {
    kernel: Kernel,
    /// Sequences, heads, tokens.
    shape: [usize; 3],
    width: usize,
    captured: &'a [InputData<'a>],
    schedule: Schedule,
    workspace: Workspace,
}

impl<'a> Call<'a> {
    /// Compiles and schedules.
    ///
    /// # Errors
    /// If the spec or its problem are not to be had.
    pub fn new(
        spec: &Spec,
        [batch, tokens]: [usize; 2],
        captured: &'a [InputData<'a>],
        threads: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let kernel = Kernel::compile(spec, &machine::host())?;
        let problem = Problem::prefill(spec.source, batch, tokens, tokens)?;
        let schedule = kernel.schedule(&problem, captured, threads)?;
        let workspace = Workspace::new(&schedule);
        let [heads, width] = [spec.heads.query, spec.heads.dim].map(|n| n as usize);
        Ok(Self { kernel, shape: [batch, heads, tokens], width, captured, schedule, workspace })
    }

    /// The time that scheduling takes once more, in seconds.
    ///
    /// # Errors
    /// As [`Call::new`].
    pub fn schedule(&self, threads: usize) -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        self.kernel.schedule(&self.schedule.problem(), self.captured, threads)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The time of one run, in seconds, q, k and v all the first of `rows`.
    ///
    /// # Errors
    /// If there are fewer than it takes, or the run fails.
    pub fn run(&mut self, threads: &dyn Threads, rows: &[f32], o: &mut [f32]) -> Result<f64, Box<dyn Error>> {
        let (shape, width) = (self.shape, self.width);
        let elements = shape.iter().product::<usize>() * width;
        let rows = rows.get(..elements).ok_or("too few rows")?;
        let o = o.get_mut(..elements).ok_or("no room for the output")?;
        let view = || View::contiguous(rows, shape, width);
        let inputs = Inputs::new(view()?, view()?, view()?).captured(self.captured);
        let outputs = Outputs { o: ViewMut::contiguous(o, shape, width)?, lse: None };
        let start = Instant::now();
        self.kernel.run(&self.schedule, threads, inputs, outputs, &mut self.workspace)?;
        Ok(start.elapsed().as_secs_f64())
    }
}
