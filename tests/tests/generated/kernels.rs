//! The shipped kernels.

use regard::{CompileError, Dtype, Kernel, Options, Problem, SHIPPED, Solo, Source, Spec, machine};
use regard_engine::catalog::Entry;
use regard_testkit::{Case, Layout, Outputs};
use regard_tests::{engines, run, specs};

fn kernel(spec: &Spec, entry: &Entry, dtype: Dtype, source: Source) -> Kernel {
    run::compile_from(Some(source), spec, entry, dtype)
        .unwrap_or_else(|error| panic!("{}: {error}", spec.name))
}

/// The bits of an output and of its lse.
fn bits(outputs: &Outputs) -> Vec<u64> {
    let mut bits = vec![];
    for output in [Some(&outputs.o), outputs.lse.as_ref()].into_iter().flatten() {
        let [batch, heads, queries, _] = output.shape();
        for row in 0..batch * heads * queries {
            let (b, h, i) = (row / queries / heads, row / queries % heads, row % queries);
            bits.extend(output.view().row(b, h, i).iter().map(|x| x.to_bits()));
        }
    }
    bits
}

#[test]
fn every_shipped_spec_has_its_module() {
    let names: Vec<_> = regard_kernels::ALL.iter().map(|&(name, _)| name).collect();
    assert_eq!(names, SHIPPED.iter().map(|shipped| shipped.name).collect::<Vec<_>>());
    for (shipped, (_, variant)) in SHIPPED.iter().zip(regard_kernels::ALL) {
        assert_eq!(specs::shipped(shipped).variant(), *variant, "{}", shipped.name);
    }
}

#[test]
fn generated_and_loaded_kernels_give_the_same_bits() {
    for entry in engines::available() {
        let few = SHIPPED.iter().filter(|shipped| !specs::is_many(shipped));
        for (i, shipped) in few.enumerate() {
            let spec = specs::shipped(shipped);
            for (dtype, sizes) in [
                (Dtype::F32, &[(1, 1, 1), (2, 5, 0), (1, 7, 3), (2, 33, 101)][..]),
                (Dtype::F16, &[(1, 3, 40)]),
                (Dtype::Bf16, &[(1, 40, 49)]),
            ] {
                // Emulated units are a hundred times slower, and slowest where operands are split.
                if !run::serves(&spec, entry, dtype) || entry.emulated && dtype != Dtype::Bf16 {
                    continue;
                }
                let kernels = Source::ALL.map(|source| kernel(&spec, entry, dtype, source));
                for &size in sizes {
                    compare((shipped.name, entry), &kernels, size, i as u64);
                }
            }
        }
    }
}

/// Runs a problem of so many sequences, queries and keys with both kernels.
fn compare((name, entry): (&str, &Entry), kernels: &[Kernel; 2], size: (usize, usize, usize), seed: u64) {
    let ((batch, queries, keys), [kernel, _]) = (size, kernels);
    let queries = if specs::pairs_queries(kernel.spec()) { keys } else { queries };
    let problem = Problem::prefill(kernel.spec().source, batch, queries, keys).expect("short");
    let (variant, dtype) = (kernel.variant(), kernel.plan().dtype);
    let case = Case { variant, problem, dtype, layout: Layout::Bnhd, seed };
    let inputs = case.inputs();
    let run = |kernel: &Kernel| run::run(kernel, &case, &inputs, &Solo).map(|o| bits(&o));
    let [loaded, generated] = kernels.each_ref().map(run);
    assert!(loaded == generated, "{}", run::describe(name, entry, &case));
}

#[test]
fn a_module_serves_other_heads() {
    let entry = engines::serving(Dtype::F32)[0];
    let mut served = 0;
    for shipped in SHIPPED.iter().filter(|shipped| !specs::is_many(shipped) && !specs::is_preset(shipped)) {
        let spec = specs::narrow(shipped, 20, 12);
        if run::serves(&spec, entry, Dtype::F32) {
            served += 1;
            let kernels = Source::ALL.map(|source| kernel(&spec, entry, Dtype::F32, source));
            compare((shipped.name, entry), &kernels, (2, 33, 101), served);
        }
    }
    assert!(served > 40, "{served}");
}

/// Modifiers and masks of two modules each.
#[test]
fn a_modifier_and_a_mask_may_be_of_two_modules() {
    let modifiers = ["softcap(s, 50)", "s + alibi(h) * (k - q)"];
    let masks = ["causal & window(1024)", "causal & same(doc)", "true"];
    let pairs = || modifiers.iter().flat_map(|modify| masks.map(|mask| (modify, mask)));
    for entry in engines::serving(Dtype::F32) {
        for (seed, (modify, mask)) in pairs().enumerate() {
            let heads = "heads = { query = 12, kv = 4, dim = 20 }\ninputs = { doc = 'i32[b, k]' }";
            let text = format!("{heads}\nscore = {{ modify = '{modify}' }}\nmask = '{mask}'");
            let spec = specs::parse(&text);
            let of = |source| run::compile_from(Some(source), &spec, entry, Dtype::F32);
            let kernels = Source::ALL.map(|source| of(source).expect("there are both"));
            compare((&format!("{modify}, {mask}"), entry), &kernels, (2, 33, 101), seed as u64);
        }
    }
}

#[test]
fn a_generated_kernel_is_taken_where_there_is_one() {
    let of = |spec: &Spec| Kernel::compile(spec, &machine::host()).map(|kernel| kernel.source());
    let causal = regard::shipped("causal").expect("it ships").spec;
    let same = "name = 'mine'\nheads = { query = 8, dim = 128 }\nmask = 'k <= q'\ndtype = 'bf16'";
    assert_eq!(of(&causal), Ok(Source::Generated));
    assert_eq!(of(&specs::parse(same)), Ok(Source::Generated));
    // Heads, widths and scale are no business of a mask.
    let wider = specs::parse("heads = { query = 9, dim = 96 }\nscore = { scale = '1' }\nmask = 'k <= q'");
    assert_eq!(of(&wider), Ok(Source::Generated));
    let other = specs::parse("name = 'mine'\nheads = { query = 8, dim = 128 }\nmask = 'k <= q + 1'");
    assert_eq!(of(&other), Ok(Source::Loaded));
    let input =
        "heads = { query = 8, dim = 128 }\ninputs = { doc = 'i32[b, k]' }\nmask = 'causal & same(doc)'";
    assert_eq!(of(&specs::parse(input)), Ok(Source::Generated));
    // Nor are tables that it does not read.
    let window = "heads = { query = 8, dim = 128 }\nmask = 'causal & window(1024)'";
    assert_eq!(of(&specs::parse(window)), Ok(Source::Generated));
    // Nor need one module have both, where the modifier reads no input.
    let capped = |mask: &str| {
        let heads = "heads = { query = 6, kv = 3, dim = 20 }\ninputs = { doc = 'i32[b, k]' }";
        specs::parse(&format!("{heads}\nscore = {{ modify = 'softcap(s, 50)' }}\nmask = '{mask}'"))
    };
    for mask in ["causal & window(1024)", "causal & same(doc)"] {
        assert_eq!(of(&capped(mask)), Ok(Source::Generated), "{mask}");
    }
    assert_eq!(of(&capped("causal & window(1023)")), Ok(Source::Loaded));
    // And slopes are of the heads that a kernel has.
    let sloped = "heads = { query = 12, kv = 3, dim = 20 }\nscore = { modify = 's + alibi(h) * (k - q)' }";
    assert_eq!(of(&specs::parse(&format!("{sloped}\nmask = 'causal'"))), Ok(Source::Generated));

    let options = Options { kernel: Some(Source::Generated), ..Options::default() };
    let error = Kernel::compile_with(&other, &machine::host(), options).expect_err("there is none");
    assert_eq!(error, CompileError::NotGenerated { name: "mine".to_owned() });
    assert_eq!(
        error.to_string(),
        "mine has no generated kernel: the build has those of the shipped specs, none of which has its mask and modifier; take `loaded`"
    );
}
