//! Appends that fail, and what they leave; and appends in pieces.

use regard::{Cache, CacheError, CacheLimits, InputData, Kernel, RowOf, RunError, SequenceId, StoreError};
use regard::{Tokens, View};
use regard_ir::spec::Spec;
use regard_ir::variant::{Axis, InputShape, InputType};
use regard_tests::specs;

/// Tokens of the sequence before, with others of which there is room: more than are written at a time.
const LEN: usize = 70;
const MORE: usize = 90;
const MOST: usize = 200;

fn spec(layout: &str) -> Spec {
    specs::parse(&format!(
        "heads = {{ query = 4, kv = 2, dim = 24, value_dim = 20 }}\ninputs = {{ at = 'i32[b, k]' }}\n\
         mask = 'causal & window(50)'\nposition = {{ rope = {{ theta = 10_000 }}, ids = 'at' }}\n\
         cache = {{ layout = '{layout}', page = 16, k = 'int8' }}"
    ))
}

/// All that can be seen of a cache.
#[derive(Debug, PartialEq)]
struct Seen {
    free: Option<usize>,
    sequences: Vec<(usize, Vec<Option<Vec<u32>>>)>,
}

fn see(cache: &Cache, sequences: &[SequenceId]) -> Seen {
    let row = |sequence, token, of, width| {
        let mut row = vec![0.0; width];
        let there = cache.read(sequence, token, of, &mut row).expect("it is open");
        there.then(|| row.into_iter().map(f32::to_bits).collect::<Vec<u32>>())
    };
    let of = |&sequence: &SequenceId| {
        let len = cache.len(sequence).expect("it is open");
        let heads = |token| [0, 1].map(|head| (token, head));
        let rows = (0..len).flat_map(heads).flat_map(|(token, head)| {
            [row(sequence, token, RowOf::Key(head), 24), row(sequence, token, RowOf::Value(head), 20)]
        });
        (len, rows.collect())
    };
    Seen { free: cache.free_pages(), sequences: sequences.iter().map(of).collect() }
}

/// Rows that differ, and the positions of a sequence.
struct Data {
    rows: Vec<f32>,
    at: Vec<i32>,
}

impl Data {
    fn new() -> Self {
        let rows = (0..3 * MOST * 24).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        Self { rows, at: (0..2 * MOST as i32).collect() }
    }

    fn view(&self, counts: [usize; 2], width: usize) -> View<'_> {
        View::contiguous(&self.rows, [1, counts[0], counts[1]], width).expect("there are as many")
    }

    /// Keys and values of so many heads, tokens and channels.
    fn append(
        &self,
        kernel: &Kernel,
        (cache, sequence): (&mut Cache, SequenceId),
        (k, v): ([usize; 3], [usize; 3]),
        positions: usize,
    ) -> Result<(), RunError> {
        let captured = &[InputData::I32(&self.at[..positions])];
        let view = |[heads, tokens, width]: [usize; 3]| self.view([heads, tokens], width);
        kernel.append(cache, sequence, Tokens::new(view(k), view(v)).captured(captured))
    }
}

#[test]
fn appends_that_fail_leave_the_cache_as_it_was() {
    let data = Data::new();
    for layout in ["contiguous", "paged", "ring"] {
        let spec = spec(layout);
        let kernel = Kernel::compile(&spec, &regard::machine::host()).expect("it runs here");
        // Pages of a fork that writes to what it shares, and few others.
        let limits = CacheLimits { all_tokens: Some(MOST), at_once: 16, ..CacheLimits::new(2, MOST) };
        let mut cache = kernel.cache(limits).expect("small");
        let first = cache.open().expect("room for two");
        let appended = data.append(&kernel, (&mut cache, first), ([2, LEN, 24], [2, LEN, 20]), LEN);
        appended.expect("there is room");
        let forked = cache.fork(first).expect("room for two");
        let before = see(&cache, &[first, forked]);

        let all = LEN + MORE;
        let refused = [
            ("k of one head", [1, MORE, 24], [2, MORE, 20], all),
            ("k of another width", [2, MORE, 23], [2, MORE, 20], all),
            ("v of fewer tokens", [2, MORE, 24], [2, MORE - 1, 20], all),
            ("v of as few as are written at a time", [2, MORE, 24], [2, 64, 20], all),
            ("v of more tokens", [2, MORE, 24], [2, MORE + 1, 20], all),
            ("v of another width", [2, MORE, 24], [2, MORE, 24], all),
            ("v of no tokens", [2, MORE, 24], [2, 0, 20], all),
            ("v alone", [2, 0, 24], [2, MORE, 20], all),
            ("positions of the new tokens alone", [2, MORE, 24], [2, MORE, 20], MORE),
        ];
        for (what, k, v, positions) in refused {
            let error = data.append(&kernel, (&mut cache, forked), (k, v), positions).expect_err(what);
            assert!(matches!(error, RunError::Runtime(_)), "{what}: {error}");
            assert_eq!(see(&cache, &[first, forked]), before, "{what}, {layout}");
        }
        let more = MOST + 1 - LEN;
        let error = data
            .append(&kernel, (&mut cache, forked), ([2, more, 24], [2, more, 20]), MOST + 1)
            .expect_err("too long");
        assert!(matches!(error, RunError::Store(StoreError::TooLong { .. })), "{error}");
        let too_many = MOST - LEN;
        let error = data.append(&kernel, (&mut cache, forked), ([2, too_many, 24], [2, too_many, 20]), MOST);
        match (layout, error) {
            ("paged", Err(RunError::Store(StoreError::Pages { .. }))) => {
                assert_eq!(see(&cache, &[first, forked]), before, "{layout}");
                let room = ([2, 16, 24], [2, 16, 20]);
                data.append(&kernel, (&mut cache, forked), room, LEN + 16).expect("there is room");
            }
            ("contiguous" | "ring", Ok(())) => {}
            (layout, error) => panic!("{layout}: {error:?}"),
        }
    }
}

#[test]
fn a_position_that_is_nowhere_is_told_before_anything_is_written() {
    let data = Data::new();
    for layout in ["contiguous", "paged", "ring"] {
        // No text says so, but who builds a spec can: a table of positions for each sequence, shorter than that may be.
        let mut spec = spec(layout);
        let table = LEN + MORE - 1;
        spec.inputs.shapes[0] = InputShape::new(InputType::I32, &[Axis::Batch, Axis::Len(table as u32)]);
        let kernel = Kernel::compile(&spec, &regard::machine::host()).expect("it runs here");
        let mut cache =
            kernel.cache(CacheLimits { at_once: 16, ..CacheLimits::new(2, MOST) }).expect("small");
        let first = cache.open().expect("room for two");
        let of = |tokens| ([2, tokens, 24], [2, tokens, 20]);
        data.append(&kernel, (&mut cache, first), of(LEN), table).expect("there is room");
        let forked = cache.fork(first).expect("room for two");
        let before = see(&cache, &[first, forked]);
        // The last of them alone has no position.
        let error = data.append(&kernel, (&mut cache, forked), of(MORE), table).expect_err("it has none");
        assert_eq!(error.index_fault(), Some(0), "{error}");
        assert_eq!(see(&cache, &[first, forked]), before, "{layout}");
        data.append(&kernel, (&mut cache, forked), of(MORE - 1), table).expect("all have one");
    }
}

#[test]
fn pages_that_no_file_can_have_are_told() {
    let folder = tempfile::tempdir().expect("a folder for files");
    let spec = specs::parse(
        "heads = { query = 1024, dim = 4096 }\nmask = 'causal'\ncache = { file = true, page = 1024 }",
    );
    let kernel = Kernel::compile(&spec, &regard::machine::host()).expect("it runs here");
    let path = folder.path().join("prompt");
    let Err(error) = kernel.create_cache(&path, 1024) else { panic!("a file of many gigabytes") };
    let CacheError::Page { tokens: 1024, words } = error else { panic!("{error}") };
    assert!(words > u32::MAX as usize);
    let told = error.to_string();
    assert!(told.contains("1024 tokens") && told.contains(&words.to_string()), "{told}");
    assert!(!path.exists());
}

#[test]
fn keys_are_turned_by_their_positions_however_they_are_cut() {
    // So many positions that some angle out of a thousand would round to another number if it came another way.
    let (tokens, dim) = (8000, 64);
    let spec = specs::parse(&format!(
        "heads = {{ query = 1, kv = 1, dim = {dim} }}\nmask = 'causal'\nposition = {{ rope = {{ theta = 10_000 }} }}"
    ));
    let kernel = Kernel::compile(&spec, &regard::machine::host()).expect("a spec of the family");
    let rows: Vec<f32> = (0..tokens * dim).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let view = View::contiguous(&rows, [1, 1, tokens], dim).expect("there are as many");
    let mut cache = kernel.cache(CacheLimits::new(3, tokens)).expect("small");
    let [whole, cut, single] = [(); 3].map(|()| cache.open().expect("room"));
    let mut append = |sequence, range: std::ops::Range<usize>| {
        let tokens = Tokens::new(view.tokens(range.clone()), view.tokens(range));
        kernel.append(&mut cache, sequence, tokens).expect("room");
    };
    append(whole, 0..tokens);
    (0..tokens).step_by(33).for_each(|first| append(cut, first..tokens.min(first + 33)));
    (0..tokens).for_each(|at| append(single, at..at + 1));
    let (mut expected, mut found) = (vec![0.0f32; dim], vec![0.0f32; dim]);
    for token in 0..tokens {
        assert_eq!(cache.read(whole, token, RowOf::Key(0), &mut expected), Ok(true));
        for sequence in [cut, single] {
            assert_eq!(cache.read(sequence, token, RowOf::Key(0), &mut found), Ok(true));
            assert!(expected.iter().map(|x| x.to_bits()).eq(found.iter().map(|x| x.to_bits())), "{token}");
        }
    }
}

#[test]
fn rows_that_a_cache_does_not_have_are_told() {
    let data = Data::new();
    let kernel = Kernel::compile(&spec("paged"), &regard::machine::host()).expect("it runs here");
    let mut cache = kernel.cache(CacheLimits::new(1, LEN)).expect("small");
    let sequence = cache.open().expect("room for one");
    data.append(&kernel, (&mut cache, sequence), ([2, LEN, 24], [2, LEN, 20]), LEN).expect("there is room");
    let read = |token, row, width| cache.read(sequence, token, row, &mut vec![0.0; width]);
    for (row, expected) in [(RowOf::Key(1), 24), (RowOf::Value(1), 20)] {
        assert_eq!((read(0, row, expected), read(LEN, row, expected)), (Ok(true), Ok(false)));
        for found in [0, expected - 1, expected + 1, 1000] {
            assert_eq!(read(0, row, found), Err(StoreError::Width { row, expected, found }));
        }
    }
    for (row, heads) in
        [(RowOf::Key(2), 2), (RowOf::Value(2), 2), (RowOf::Value(usize::MAX), 2), (RowOf::Asks(0), 0)]
    {
        assert_eq!(read(0, row, 24), Err(StoreError::Head { row, heads }));
    }
    let error = read(0, RowOf::Key(0), 23).unwrap_err();
    assert_eq!(error.to_string(), "a key of head 0 has 24 elements, room for 23 was given");
    let error = read(0, RowOf::Value(2), 20).unwrap_err();
    assert_eq!(error.to_string(), "there is no value of head 2 in the cache: 2 heads have such rows");
}
