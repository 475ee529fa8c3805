//! Sequences that fork, grow and shrink in one memory.

use regard::{Cache, CacheLimits, Dtype, Kernel, RowOf, RunError, SequenceId, StoreError};
use regard_ir::spec::{self, CacheFormat, CacheLayout, Spec};
use regard_testkit::{Case, Inputs};
use regard_tests::cached;
use regard_tests::{engines, run, specs};

use crate::{Dice, Sizes};

/// What a cache and the rows of its sequences should be, kept the plain way.
struct Model {
    cache: Cache,
    /// Each open sequence, and which rows of the inputs its tokens are.
    open: Vec<(SequenceId, Vec<usize>)>,
}

#[test]
fn sequences_that_fork_grow_and_shrink_are_what_they_would_be_alone() {
    let spec = specs::parse(
        "heads = { query = 4, kv = 2, dim = 24 }\nmask = 'causal'\ncache = { layout = 'paged', page = 16 }",
    );
    let rows = 400;
    for (seed, entry) in engines::serving(Dtype::F32).into_iter().enumerate() {
        for (layout, format) in [
            (CacheLayout::Paged, CacheFormat::Same),
            (CacheLayout::Contiguous, CacheFormat::Int8),
            (CacheLayout::Paged, CacheFormat::Int4),
        ] {
            let cache = spec::Cache { layout, k: format, v: format, ..spec.cache };
            let kernel = run::compile(&Spec { cache, ..spec.clone() }, entry, Dtype::F32);
            let sizes = Sizes::new(&[rows], rows);
            let case = sizes.case(&kernel, 3);
            let inputs = case.inputs();
            let limits = CacheLimits { all_tokens: Some(500), ..CacheLimits::new(5, 200) };
            let mut model = Model { cache: kernel.cache(limits).expect("small"), open: Vec::new() };
            let mut dice = Dice(seed as u64 + 1);
            for _ in 0..300 {
                act(&kernel, (&case, &inputs), &mut model, &mut dice);
            }
            for (sequence, tokens) in &model.open {
                assert_eq!(model.cache.len(*sequence), Ok(tokens.len()));
                for head in 0..2 {
                    for (at, &row) in tokens.iter().enumerate() {
                        same_as_alone(&kernel, (&case, &inputs), &model.cache, (*sequence, at), (head, row));
                    }
                }
            }
            for (sequence, _) in model.open {
                model.cache.close(sequence).expect("it is open");
                assert_eq!(model.cache.close(sequence), Err(StoreError::Unknown));
            }
            let all = (layout == CacheLayout::Paged).then_some(500usize.div_ceil(16));
            assert_eq!(model.cache.free_pages(), all, "no page is lost");
        }
    }
}

/// Does one thing with a cache; what it refuses must leave it as it was.
fn act(kernel: &Kernel, (case, inputs): (&Case<'_>, &Inputs), model: &mut Model, dice: &mut Dice) {
    let Model { cache, open } = model;
    let one = dice.below(open.len().max(1));
    match (dice.below(10), open.is_empty()) {
        (0, _) | (_, true) => match cache.open() {
            Ok(sequence) => open.push((sequence, Vec::new())),
            Err(error) => assert_eq!((error, open.len()), (StoreError::Sequences { open: 5 }, 5)),
        },
        (1, _) => {
            let (sequence, tokens) = &open[one];
            if let Ok(forked) = cache.fork(*sequence) {
                let tokens = tokens.clone();
                open.push((forked, tokens));
            }
        }
        (2 | 3, _) => {
            let (sequence, tokens) = &mut open[one];
            let len = dice.below(tokens.len() + 1);
            cache.truncate(*sequence, len).expect("it has as many");
            tokens.truncate(len);
            assert!(cache.truncate(*sequence, len + 1).is_err());
        }
        (4, _) if open.len() > 2 => {
            let (sequence, _) = open.swap_remove(one);
            cache.close(sequence).expect("it is open");
        }
        _ => {
            let (sequence, tokens) = &mut open[one];
            let first = dice.below(300);
            let rows: Vec<usize> = (first..first + 1 + dice.below(60)).collect();
            let appended =
                cached::append(kernel, (case, inputs), (cache, *sequence), 0, first..first + rows.len());
            match appended {
                Ok(()) => tokens.extend(rows),
                Err(RunError::Store(StoreError::TooLong { .. } | StoreError::Pages { .. })) => {
                    assert_eq!(cache.len(*sequence), Ok(tokens.len()), "nothing was changed");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Whether a cached row is what it is in a cache that has nothing else.
fn same_as_alone(
    kernel: &Kernel,
    (case, inputs): (&Case<'_>, &Inputs),
    cache: &Cache,
    (sequence, at): (SequenceId, usize),
    (head, row): (usize, usize),
) {
    let mut alone = kernel.cache(CacheLimits::new(1, 1)).expect("small");
    let only = alone.open().expect("room for one");
    cached::append(kernel, (case, inputs), (&mut alone, only), 0, row..row + 1).expect("room for one");
    for of in [RowOf::Key(head), RowOf::Value(head)] {
        let (mut found, mut expected) = ([0.0; 24], [0.0; 24]);
        assert_eq!(cache.read(sequence, at, of, &mut found), Ok(true));
        assert_eq!(alone.read(only, 0, of, &mut expected), Ok(true));
        assert_eq!(found, expected, "{of:?} of token {at}");
    }
}
