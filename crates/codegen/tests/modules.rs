//! Modules of specs that do not ship, one for each feature; those that ship are in the tree.

use regard_codegen::{compile, kernels};
use regard_ir::spec::Spec;
use regard_spec::{NoFiles, parse};

fn spec(text: &str) -> Spec {
    parse(text, "mine.toml", &NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec
}

fn module(text: &str) -> String {
    compile(&spec(text), "specs/mine.toml")
}

#[test]
fn a_table_of_relative_positions() {
    insta::assert_snapshot!(module(
        "summary = 'A learned bias for each bucket of distances.'\n\
         heads = { query = 8, dim = 64 }\n\
         inputs = { bias = 'f32[h, 32]' }\n\
         score = { scale = 1, modify = 's + bias[h, t5_bucket(k - q, 32, 128, true)]' }"
    ));
}

#[test]
fn guarded_reads_of_a_tree_of_drafts() {
    insta::assert_snapshot!(module(
        "summary = 'Drafted tokens see the prefix and their ancestors.'\n\
         heads = { query = 8, kv = 2, dim = 128 }\n\
         inputs = { prefix = 'i32[b]', type = 'bool[64, 64]' }\n\
         mask = 'k < prefix[b] | type[q - prefix[b], k - prefix[b]]'"
    ));
}

#[test]
fn tables_beside_the_expressions() {
    insta::assert_snapshot!(module(
        "summary = 'Every table of the softmax family.'\n\
         heads = { query = 4, kv = 2, value = 1, dim = 16 }\n\
         inputs = { at = 'i32[b, k]', unread = 'f32[]' }\n\
         position = { rope = { theta = 10000 }, ids = 'at', scaling = { kind = 'yarn', factor = 2, original_max_position_embeddings = 4096 } }\n\
         qk_norm = { kind = 'rms', learned = true }\n\
         weights = { sink = 'learned' }\n\
         output = { mix = 2, norm = 'rms', gate = 'head', lse = true }"
    ));
}

#[test]
fn a_mask_of_the_row_alone() {
    insta::assert_snapshot!(module(
        "heads = { query = 3, dim = 5, value_dim = 7 }\n\
         source = 'cross'\n\
         mask = 'h == 0 | q % 2 == 1 & nq < nk'\n\
         output = { lse = true }"
    ));
}

#[test]
fn long_expressions_are_cut_into_lines_that_fit() {
    let sum: Vec<_> = (0..300).map(|i| format!("sin({i}.5 * s) * cos(s - {i}.25)")).collect();
    let long = module(&format!(
        "heads = {{ query = 2, dim = 4 }}\ninputs = {{ an_input_with_a_very_long_name_indeed = 'f32[b, h, g, q, k, 9]' }}\n\
         score = {{ modify = 'an_input_with_a_very_long_name_indeed[b, h, g, q, k, 3] + {}' }}",
        sum.join(" + ")
    ));
    let widest = long.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(110), "{widest:?}");
    assert!(long.lines().count() > 300);
}

#[test]
fn folders_become_modules_and_twins_share_a_kernel() {
    let causal = || spec("heads = { query = 2, dim = 4 }\nmask = 'causal'");
    let names = ["self", "models/gpt-2", "models/9b", "causal"];
    let files = kernels(&names.map(|name| (name, causal())));
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["causal.rs", "lib.rs", "models/gpt_2.rs", "models/n9b.rs", "self_.rs"]);
    assert!(files[2].text.contains("from `specs/models/gpt-2.toml`"));
    insta::assert_snapshot!(files[1].text);
}
