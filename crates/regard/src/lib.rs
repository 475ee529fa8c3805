//! Attention variants from ten lines of TOML to a fused, cache-blocked SIMD kernel for the CPU at hand.
//!
//! ```
//! use regard::{Inputs, Kernel, Outputs, Pool, Problem, Threads, View, ViewMut, Workspace, machine};
//!
//! let spec = regard::parse("heads = { query = 4, kv = 2, dim = 64 }\nmask = 'causal'", "mine.toml", &regard::NoFiles)?.spec;
//! let kernel = Kernel::compile(&spec, &machine::host())?;       // plan once; kernel.report() says why
//! let pool = Pool::new(2)?;
//!
//! let problem = Problem::prefill(spec.source, 1, 100, 100)?;     // 1 sequence, 100 queries over 100 keys
//! let schedule = kernel.schedule(&problem, &[], pool.count())?;  // microseconds
//! let mut workspace = Workspace::new(&schedule);
//!
//! let (q, k, v) = (vec![0.1; 4 * 100 * 64], vec![0.2; 2 * 100 * 64], vec![0.3; 2 * 100 * 64]);
//! let mut o = vec![0.0f32; 4 * 100 * 64];
//! kernel.run(
//!     &schedule,
//!     &pool,
//!     Inputs::new(
//!         View::contiguous(&q, [1, 4, 100], 64)?,
//!         View::contiguous(&k, [1, 2, 100], 64)?,
//!         View::contiguous(&v, [1, 2, 100], 64)?,
//!     ),
//!     Outputs { o: ViewMut::contiguous(&mut o, [1, 4, 100], 64)?, lse: None },
//!     &mut workspace,
//! )?;
//! assert!((o[0] - 0.3).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod cache;
mod error;
mod kernel;
pub mod machine;
mod planned;
mod schedule;
mod step;

pub use cache::{Cache, CacheError, CacheLimits, CacheSize};
pub use error::{CompileError, RunError, ScheduleError};
pub use kernel::{Kernel, Options};
pub use planned::{Planned, Tasks};
pub use regard_engine::element::{Element, Elements, ElementsMut};
pub use regard_engine::pool::Pool;
pub use regard_engine::threads::{Solo, Threads};
pub use regard_ir as ir;
pub use regard_ir::inputs::InputData;
pub use regard_ir::machine::{Isa, Machine};
pub use regard_ir::plan::{Dtype, EngineKind, Plan};
pub use regard_ir::problem::{MAX_FEW, Problem, ProblemError};
pub use regard_ir::spec::Spec;
pub use regard_launch::Source;
pub use regard_map::file::{Cut, Fault, FileError, Opened};
pub use regard_planner::PlanReport;
pub use regard_planner::cost::{CachedBound, CachedPrediction, Prediction};
pub use regard_runtime::cache::{RowOf, SequenceId, StoreError};
pub use regard_runtime::flash::{Ending, Inputs, Outputs};
pub use regard_runtime::head::Head;
pub use regard_runtime::operands::{KeyRows, LatentQueries, LookaheadKeys, QueryRows};
pub use regard_runtime::recurrent::States;
pub use regard_runtime::split::{Queries, Tokens};
pub use regard_runtime::view::{View, ViewError, ViewMut};
pub use regard_spec::{
    Code, CodeInfo, Diagnostic, Diagnostics, FileSystem, LoadError, Loader, NoFiles, Parsed, SHIPPED,
    Severity, Shipped, find_shipped, from_file, parse, shipped,
};
pub use schedule::{Part, Schedule, Workspace};
pub use step::Step;
