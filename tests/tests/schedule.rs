//! What a schedule may cost, apart from time.

use regard::{Dtype, Problem};
use regard_engine::grid::Task;
use regard_ir::interval::Unknown;
use regard_runtime::schedule::{Share, Work};
use regard_tests::{engines, run, specs};

/// A million queries by a million keys, causal, 32 over 8 heads: less than a mebibyte, for few threads and many, and
/// a workspace that does not grow with the length past what may be packed ahead.
#[test]
fn a_million_by_a_million_is_small() {
    let spec = specs::parse("heads = { query = 32, kv = 8, dim = 128 }\nmask = 'causal'");
    let problem = Problem::prefill(spec.source, 1, 1 << 20, 1 << 20).expect("it fits");
    let short = Problem::prefill(spec.source, 1, 1 << 10, 1 << 10).expect("it fits");
    for entry in engines::serving(Dtype::F32) {
        let kernel = run::compile(&spec, entry, Dtype::F32);
        for threads in [2, 64] {
            let variant = kernel.variant();
            let work = Work {
                plan: kernel.plan(),
                variant: &variant,
                problem: &problem,
                inputs: &Unknown(&[]),
                threads,
                of: Share::All,
            };
            let most = work.max_tasks().expect("one sequence");
            let bytes = most * (size_of::<Task>() + size_of::<u32>());
            assert!(bytes < 1 << 20, "{bytes} B for {threads} threads on {}", entry.isa.name());

            let schedule = kernel.schedule(&problem, &[], threads as usize).expect("it fits");
            let overview = kernel.overview(&schedule, &[]).expect("it was scheduled");
            assert!(overview.tasks as usize <= most && overview.tasks >= threads, "{overview}");
            assert!((overview.live_share - 0.5).abs() < 0.01, "half of the pairs are live\n{overview}");
            let workspace =
                |problem| kernel.schedule(problem, &[], threads as usize).expect("it fits").workspace_bytes();
            // What is packed ahead is the one thing that grows with the length, up to a limit.
            let ahead = kernel.plan().pack_ahead_bytes as usize;
            assert!(workspace(&problem) <= workspace(&short).max(ahead), "{overview}");
        }
    }
}
