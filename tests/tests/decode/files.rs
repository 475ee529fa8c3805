//! Caches in files: what was recorded is there again, whoever opens the file, and only for whom it is.

use std::path::Path;

use regard::{
    Cache, CacheError, Dtype, Fault, FileError, Kernel, Outputs, Problem, Queries, RunError, SequenceId,
    Solo, StoreError, Tokens, View, ViewMut, Workspace,
};
use regard_ir::spec::{self, CacheFormat, Spec};
use regard_testkit::{Case, Inputs};
use regard_tests::cached::{self, Filled};
use regard_tests::{engines, run, specs};

use crate::{Sizes, attend, bits};

fn spec_of(format: CacheFormat) -> Spec {
    let spec = specs::parse(
        "heads = { query = 4, kv = 2, dim = 40, value_dim = 24 }\nmask = 'causal'\nposition = { rope = { theta = 10_000 } }\ncache = { file = true, page = 16 }",
    );
    Spec { cache: spec::Cache { k: format, v: format, ..spec.cache }, ..spec }
}

/// The same in pseudo-heads, whose rows or what they are mixed from are kept.
fn pseudo_heads(form: &str) -> Spec {
    specs::parse(&format!(
        "heads = {{ query = 4, kv = 2, dim = 40 }}\npseudo = {{ heads = 3, form = '{form}' }}\nmask = 'causal'\n\
         position = {{ rope = {{ theta = 10_000 }} }}\ncache = {{ file = true, page = 16 }}"
    ))
}

fn append(
    kernel: &Kernel,
    of: (&Case<'_>, &Inputs),
    to: (&mut Cache, SequenceId),
    tokens: core::ops::Range<usize>,
) {
    cached::append(kernel, of, to, 0, tokens).expect("there is room");
}

/// What the last query of a case gives on the first tokens of a cache.
fn last_row(
    kernel: &Kernel,
    (case, inputs): (&Case<'_>, &Inputs),
    cache: Cache,
    sequence: SequenceId,
) -> (Vec<u64>, Cache) {
    let filled = Filled { cache, sequences: vec![sequence] };
    let outputs = attend(kernel, case, inputs, &filled, &Solo);
    (bits(&outputs, 0, 1), filled.cache)
}

#[test]
fn what_was_recorded_is_there_again() {
    let folder = tempfile::tempdir().expect("a folder for files");
    let formats = [CacheFormat::Same, CacheFormat::Dtype(Dtype::F16), CacheFormat::Int8, CacheFormat::Int4];
    let specs = formats.map(spec_of).into_iter().chain(["compact", "expanded"].map(pseudo_heads));
    let specs: Vec<Spec> = specs.collect();
    for entry in engines::serving(Dtype::F32) {
        for (i, spec) in specs.iter().enumerate() {
            let (kernel, format) = (run::compile(spec, entry, Dtype::F32), spec.cache.k);
            let (whole, begun) = (Sizes::new(&[300], 1), Sizes::new(&[150], 1));
            let (case, half) = (whole.case(&kernel, 4), begun.case(&kernel, 4));
            let inputs = case.inputs();
            let path = folder.path().join(format!("{}-{}-{i}", entry.engine.name(), entry.isa.name()));

            // A prompt is recorded; what is appended later is not, and the process ends.
            let (mut cache, sequence) = kernel.create_cache(&path, 310).expect("there is room");
            append(&kernel, (&case, &inputs), (&mut cache, sequence), 0..150);
            let (expected, mut cache) = last_row(&kernel, (&half, &inputs), cache, sequence);
            assert_eq!(cache.sync(sequence).expect("the disk takes it"), 150);
            append(&kernel, (&case, &inputs), (&mut cache, sequence), 150..163);
            let copy = folder.path().join("killed");
            std::fs::copy(&path, &copy).expect("a copy of the file");
            drop(cache);

            for path in [&path, &copy] {
                let (cache, sequence, opened) = kernel.open_cache(path).expect("it is whole");
                assert_eq!((opened.len, opened.cut), (150, None));
                let (found, mut cache) = last_row(&kernel, (&half, &inputs), cache, sequence);
                assert!(found == expected, "{format:?} on {entry:?}");
                assert_eq!(cache.check().expect("every page is whole"), 150usize.div_ceil(16));

                // It goes on, takes some back, and goes on again.
                append(&kernel, (&case, &inputs), (&mut cache, sequence), 150..240);
                cache.commit(sequence).expect("it is recorded");
                cache.truncate(sequence, 133).expect("it has more");
                append(&kernel, (&case, &inputs), (&mut cache, sequence), 133..300);
                cache.commit(sequence).expect("it is recorded");
                let (found, cache) = last_row(&kernel, (&case, &inputs), cache, sequence);
                drop(cache);
                let memory = Spec {
                    cache: spec::Cache { file: false, ..kernel.spec().cache },
                    ..kernel.spec().clone()
                };
                let memory = run::compile(&memory, entry, Dtype::F32);
                let filled = cached::fill(&memory, &case, &inputs, 300).expect("a case is small");
                assert!(
                    found == bits(&attend(&memory, &case, &inputs, &filled, &Solo), 0, 1),
                    "{format:?} on {entry:?}"
                );
                let (_, _, opened) = kernel.open_cache(path).expect("it is whole");
                assert_eq!(opened.len, 300);
            }
            std::fs::remove_file(copy).expect("it is there");
        }
    }
}

fn fault(found: Result<(Cache, SequenceId, regard::Opened), CacheError>) -> Fault {
    match found {
        Err(CacheError::File(error)) => error.fault,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the file was opened"),
    }
}

#[test]
fn a_file_is_for_one_spec_one_format_and_one_writer() {
    let folder = tempfile::tempdir().expect("a folder for files");
    let path: &Path = &folder.path().join("prompt");
    let compile = |spec: &Spec| Kernel::compile(spec, &regard::machine::host()).expect("it runs here");
    let spec = spec_of(CacheFormat::Same);
    let kernel = compile(&spec);
    assert!(matches!(kernel.cache(regard::CacheLimits::new(1, 100)), Err(CacheError::WantsFile)));
    let (mut cache, sequence) = kernel.create_cache(path, 100).expect("there is room");
    assert_eq!((cache.close(sequence), cache.fork(sequence)), (Err(StoreError::Only), Err(StoreError::Only)));
    assert!(matches!(fault(kernel.open_cache(path)), Fault::Locked));
    drop(cache);
    assert!(
        matches!(kernel.create_cache(path, 100).map(|_| ()), Err(CacheError::File(error)) if matches!(error.fault, Fault::Exists))
    );

    let other = specs::parse(
        "heads = { query = 4, kv = 2, dim = 40, value_dim = 24 }\nmask = 'all'\ncache = { file = true, page = 16 }",
    );
    assert!(matches!(fault(compile(&other).open_cache(path)), Fault::Identity { .. }));
    let message = kernel_message(&compile(&spec_of(CacheFormat::Int8)), path);
    assert!(message.contains("codec of keys"), "{message}");
    let pages = Spec { cache: spec::Cache { page: Some(32), ..spec.cache }, ..spec.clone() };
    let message = kernel_message(&compile(&pages), path);
    assert!(message.contains("tokens of a page"), "{message}");
    let ring = specs::parse(
        "heads = { query = 4, dim = 8 }\nmask = 'causal & window(9)'\ncache = { layout = 'ring', file = true }",
    );
    assert!(matches!(compile(&ring).create_cache(path, 9).map(|_| ()), Err(CacheError::FileLayout(_))));
    std::fs::write(path, b"no cache at all").expect("it can be written over");
    assert!(kernel.open_cache(path).is_err());
}

fn kernel_message(kernel: &Kernel, path: &Path) -> String {
    match kernel.open_cache(path) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("the file was opened"),
    }
}

/// One query, key and value of each head, all alike.
#[cfg(unix)]
const ROWS: [f32; 4 * 40] = [0.5; 4 * 40];

/// What each of the calls on a cache of [`spec_of`] says, by name: an append, a decode and a prefill of its last token. None of
/// them may touch its outputs.
#[cfg(unix)]
fn refusals(kernel: &Kernel, cache: &mut Cache, sequence: SequenceId) -> [(&'static str, RunError); 3] {
    let row = |heads: usize, width: usize| {
        View::contiguous(&ROWS[..heads * width], [1, heads, 1], width).expect("it fits")
    };
    let queries = || Queries::new(row(4, 40));
    let (mut step, keys) =
        (kernel.step(cache, 1, 1).expect("small"), cache.len(sequence).expect("it is open"));
    let problem = Problem::prefill(kernel.spec().source, 1, 1, keys).expect("short");
    let schedule = kernel.schedule(&problem, &[], 1).expect("small");
    let mut o = [7.0f32; 4 * 24];
    fn to(o: &mut [f32]) -> Outputs<'_> {
        Outputs { o: ViewMut::contiguous(o, [1, 4, 1], 24).expect("it fits"), lse: None }
    }

    let tokens = Tokens::new(row(2, 40), row(2, 24));
    let append = kernel.append(cache, sequence, tokens);
    let on = &[sequence][..];
    let decode = kernel.decode(&mut step, &Solo, cache, on, queries(), to(&mut o));
    let memory = &mut Workspace::new(&schedule);
    let prefill = kernel.prefill(&schedule, &Solo, (&*cache, on), queries(), to(&mut o), memory);
    assert_eq!(o, [7.0; 4 * 24]);
    assert_eq!(cache.len(sequence), Ok(keys));
    [("append", append), ("decode", decode), ("prefill", prefill)]
        .map(|(name, result)| (name, result.expect_err(name)))
}

#[cfg(unix)]
#[test]
fn a_file_that_another_program_changes_between_calls_is_told_by_each_call() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().expect("a folder for files");
    let path = folder.path().join("prompt");
    let kernel =
        Kernel::compile(&spec_of(CacheFormat::Same), &regard::machine::host()).expect("it runs here");
    let (mut cache, sequence) = kernel.create_cache(&path, 1000).expect("there is room");
    let sizes = Sizes::new(&[100], 1);
    let case = sizes.case(&kernel, 1);
    let inputs = case.inputs();
    append(&kernel, (&case, &inputs), (&mut cache, sequence), 0..100);
    cache.commit(sequence).expect("it is recorded");

    let other = std::fs::OpenOptions::new().write(true).open(&path).expect("no lock is asked for");
    let len = other.metadata().expect("it is there").len();
    // Within the last page of the system, which could still be read; then so that no page of the cache is left.
    for cut in [len - 1, 1 << 15] {
        other.set_len(cut).expect("it can be cut");
        for (name, error) in refusals(&kernel, &mut cache, sequence) {
            let told = error.to_string();
            let RunError::File(FileError { path: of, fault: Fault::Length { found, expected } }) = error
            else {
                panic!("{name}: {told}")
            };
            assert_eq!((of.as_path(), found, expected), (path.as_path(), cut, len), "{name}");
            assert!(told.contains(&format!("{cut} bytes of {len}: it was cut")), "{name}: {told}");
        }
    }
    other.set_len(len).expect("it can grow");
    other.write_all_at(&[0; 8192], 4096).expect("it can be written to");
    for (name, error) in refusals(&kernel, &mut cache, sequence) {
        let RunError::File(FileError { fault: Fault::Changed { .. }, .. }) = error else {
            panic!("{name}: {error}")
        };
    }
}
