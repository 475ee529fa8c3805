extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;
use crate::isa::scalar::Scalar;

fn task(sequence: u32, kv_head: u32, queries: core::ops::Range<u32>) -> Task {
    Task { sequence, kv_head, query_begin: queries.start, query_end: queries.end, live: 0 }
}

fn rows(data: &mut [f32], counts: [usize; 3], strides: [usize; 3], width: usize) -> RowsMut<'_, f32> {
    RowsMut { data, counts, strides, width }
}

#[test]
fn rows_that_overlap_or_leave_the_data_are_refused() {
    let mut data = [0.0; 64];
    assert_eq!(rows(&mut data, [2, 2, 4], [32, 16, 4], 4).check(), Ok(()));
    assert_eq!(rows(&mut data, [2, 2, 4], [32, 4, 8], 4).check(), Ok(()));
    assert!(matches!(rows(&mut data, [2, 2, 4], [32, 16, 3], 4).check(), Err(GridError::Overlap { .. })));
    assert!(matches!(rows(&mut data, [2, 2, 4], [0, 16, 4], 4).check(), Err(GridError::Overlap { .. })));
    assert!(matches!(
        rows(&mut data, [2, 2, 4], [33, 16, 4], 4).check(),
        Err(GridError::Short { needed: 65, found: 64 })
    ));
    let huge = rows(&mut data, [2, 2, 4], [usize::MAX / 2, usize::MAX / 2, 4], 4).check();
    assert!(matches!(huge, Err(GridError::Overlap { .. } | GridError::Short { .. })));
}

#[test]
fn tasks_that_share_a_row_are_refused() {
    let counts = [1, 2, 8];
    let good = [task(0, 0, 0..4), task(0, 0, 4..8), task(0, 1, 0..8)];
    let check = |tasks: &[Task], order: &[u32], group| {
        check_tasks(&Tasks { tasks, order, group, starts: None }, counts)
    };
    assert_eq!(check(&good, &[2, 0, 1], 1), Ok(()));
    assert!(check(&good, &[2, 0, 0], 1).is_err());
    assert!(check(&good, &[2, 0, 3], 1).is_err());
    assert!(check(&[task(0, 0, 0..5), task(0, 0, 4..8)], &[0, 1], 1).is_err());
    assert!(check(&[task(0, 0, 4..8), task(0, 0, 0..4)], &[0, 1], 1).is_err());
    assert!(check(&[task(0, 1, 0..8)], &[0], 2).is_err());
    assert!(check(&[task(0, 0, 0..9)], &[0], 1).is_err());
}

#[test]
fn packed_sequences_have_rows_of_their_own() {
    let tasks = [task(0, 0, 0..3), task(2, 0, 0..1), task(2, 0, 1..5)];
    let check = |starts: &[i32], counts| {
        check_tasks(&Tasks { tasks: &tasks, order: &[0, 1, 2], group: 1, starts: Some(starts) }, counts)
    };
    assert_eq!(check(&[0, 3, 3, 8], [1, 1, 8]), Ok(()));
    assert_eq!(check(&[0, 3, 3, 8], [1, 1, 9]), Ok(()));
    assert_eq!(check(&[0, 3, 3, 8], [1, 1, 7]), Err(GridError::Starts));
    assert_eq!(check(&[0, 3, 3, 8], [2, 1, 8]), Err(GridError::Starts));
    assert_eq!(check(&[0, 4, 3, 8], [1, 1, 8]), Err(GridError::Starts));
    assert_eq!(check(&[1, 3, 3, 8], [1, 1, 8]), Err(GridError::Starts));
    assert_eq!(check(&[-1, 3, 3, 8], [1, 1, 8]), Err(GridError::Starts));
    assert_eq!(check(&[], [1, 1, 8]), Err(GridError::Starts));
    assert_eq!(check(&[0, 2, 3, 8], [1, 1, 8]), Err(GridError::Tasks { task: 0 }));
    assert_eq!(check(&[0, 3, 3], [1, 1, 8]), Err(GridError::Tasks { task: 1 }));

    let mut data = [0.0; 8];
    let output = Rows::F32(rows(&mut data, [1, 1, 8], [8, 8, 1], 1));
    let tasks = Tasks { tasks: &tasks, order: &[2, 1, 0], group: 1, starts: Some(&[0, 3, 3, 8]) };
    let grid = Grid::new(tasks, output, None).unwrap();
    let (mut a, mut b, mut c) = (grid.claim().unwrap(), grid.claim().unwrap(), grid.claim().unwrap());
    a.output(0, 4).write(Scalar, &[1.0]);
    b.output(0, 0).write(Scalar, &[2.0]);
    c.output(0, 2).write(Scalar, &[3.0]);
    assert_eq!(data, [0.0, 0.0, 3.0, 2.0, 0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn each_task_and_each_lot_is_given_out_once() {
    let tasks = [task(0, 0, 0..2), task(0, 0, 2..4)];
    let mut data = [0.0; 8];
    let output = Rows::F32(rows(&mut data, [1, 1, 4], [8, 8, 2], 2));
    let grid =
        Grid::new(Tasks { tasks: &tasks, order: &[1, 0], group: 1, starts: None }, output, None).unwrap();
    let mut first = grid.claim().unwrap();
    let mut second = grid.claim().unwrap();
    assert!(grid.claim().is_none());
    first.output(0, 3).write(Scalar, &[3.0; 2]);
    second.output(0, 0).write(Scalar, &[1.0; 2]);
    assert_eq!(first.stats(0, 2), None);
    assert_eq!(data, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 3.0, 3.0]);

    let mut data = [0.0; 12];
    let bands = Bands::new(Rows::F32(rows(&mut data, [1, 2, 3], [12, 6, 2], 2)), 2).unwrap();
    let (mut first, mut second) = (bands.claim().unwrap(), bands.claim().unwrap());
    assert!(bands.claim().is_none());
    assert_eq!((first.queries(), second.queries()), (0..2, 2..3));
    first.row(1, 0).write(Scalar, &[1.0; 2]);
    second.row(0, 2).write(Scalar, &[2.0; 2]);
    assert_eq!(data, [0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert!(Bands::new(Rows::F32(rows(&mut [], [3, 2, 0], [0, 0, 0], 2)), 2).unwrap().claim().is_none());

    let mut bytes = [0u8; 7];
    let lots = Lots::new(&mut bytes, 3);
    let lot = || lots.take().map(|(turn, lot)| (turn, lot.len()));
    assert_eq!((lot(), lot()), (Some((0, 3)), Some((1, 3))));
    assert!(lots.take().is_none());
}

#[test]
fn kept_rows_are_those_of_the_tasks_head() {
    let (mut o, mut u) = ([0.0f32; 16], [0.0f32; 24]);
    let tasks = [task(0, 0, 0..4), task(0, 1, 0..4)];
    let tasks = Tasks { tasks: &tasks, order: &[1, 0], group: 1, starts: None };
    fn output(o: &mut [f32]) -> Rows<'_> {
        Rows::F32(rows(o, [1, 2, 4], [16, 8, 2], 2))
    }
    let few = Grid::new(tasks, output(&mut o), None).unwrap();
    assert!(matches!(
        few.keeping(rows(&mut u, [1, 1, 4], [24, 12, 3], 3)),
        Err(GridError::Short { needed: 24, found: 24 })
    ));
    // Two tasks of a head would both have its rows.
    let halves = [task(0, 0, 0..2), task(0, 0, 2..4), task(0, 1, 0..4)];
    let halves = Tasks { tasks: &halves, order: &[0, 1, 2], group: 1, starts: None };
    let halved = Grid::new(halves, output(&mut o), None).unwrap();
    assert!(matches!(
        halved.keeping(rows(&mut u, [1, 2, 4], [24, 12, 3], 3)),
        Err(GridError::Tasks { task: 0 })
    ));
    // More rows than queries, of each head all; of packed sequences as many as these have queries.
    let grid = Grid::new(tasks, output(&mut o), None).unwrap();
    let mut longer = [0.0f32; 36];
    let grid = grid.keeping(rows(&mut longer, [1, 2, 6], [36, 18, 3], 3)).unwrap();
    while let Some(mut claim) = grid.claim() {
        let head = claim.task().kv_head as f32;
        claim.kept_mut(0, 5).unwrap().fill(1.0 + head);
    }
    assert_eq!((longer[15], longer[33]), (1.0, 2.0));
    let packed = [task(0, 0, 0..1), task(1, 0, 0..3)];
    let packed = Tasks { tasks: &packed, order: &[0, 1], group: 1, starts: Some(&[0, 1, 4]) };
    let grid = Grid::new(packed, Rows::F32(rows(&mut o, [1, 1, 4], [8, 8, 2], 2)), None).unwrap();
    let grid = grid.keeping(rows(&mut u, [1, 1, 4], [12, 12, 3], 3)).unwrap();
    let mut first = grid.claim().unwrap();
    assert!(
        std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| first.kept_mut(0, 1).is_some())).is_err()
    );
    let grid = Grid::new(tasks, output(&mut o), None).unwrap();
    let grid = grid.keeping(rows(&mut u, [1, 2, 4], [24, 12, 3], 3)).unwrap();
    while let Some(mut claim) = grid.claim() {
        let head = claim.task().kv_head as f32;
        claim.kept_mut(0, 2).unwrap().fill(1.0 + head);
        assert_eq!(claim.kept(0, 2), Some(&[1.0 + head; 3][..]));
        assert_eq!(claim.kept(0, 3), Some(&[0.0; 3][..]));
    }
    assert_eq!((u[6], u[18], u[9]), (1.0, 2.0, 0.0));
}

#[test]
fn strips_and_blocks_are_given_out_once() {
    let tasks = [task(0, 0, 0..5), task(0, 1, 0..5)];
    let (mut data, mut kept, mut memory) = ([0.0; 10], [0.0; 12], [0.0; 8]);
    let output = Rows::F32(rows(&mut data, [1, 2, 5], [10, 5, 1], 1));
    let tasks = Tasks { tasks: &tasks, order: &[0, 1], group: 1, starts: None };
    let grid = Grid::new(tasks, output, None).unwrap();
    assert!(grid.claim().unwrap().kept(0, 4).is_none(), "nothing is kept");
    let mut grid = grid.keeping(rows(&mut kept, [1, 2, 6], [12, 6, 1], 1)).unwrap();

    let strips = Strips::new(&mut grid, (4, 2), &mut memory, 2);
    let mut seen = Vec::new();
    while let Some((mut claim, rows, memory)) = strips.take() {
        assert_eq!(claim.task().query_begin, claim.task().query_end);
        for row in rows.start..rows.end.min(6) {
            claim.kept_mut(0, row).unwrap()[0] += 1.0 + f32::from(row as u8);
        }
        memory.fill(claim.task().kv_head as f32);
        seen.push((claim.task().kv_head, rows));
    }
    assert_eq!(seen, [(0, 0..4), (0, 4..8), (1, 0..4), (1, 4..8)]);

    let blocks = Blocks::new(&mut grid, 2, 1..4);
    let mut seen = Vec::new();
    while let Some((mut claim, index, number)) = blocks.take() {
        let Task { query_begin, query_end, .. } = claim.task();
        (query_begin..query_end).for_each(|query| claim.output(0, query).write(Scalar, &[7.0]));
        seen.push((index, number, query_begin..query_end));
    }
    assert_eq!(seen, [(0, 1, 2..4), (0, 2, 4..5), (1, 1, 2..4), (1, 2, 4..5)]);
    assert_eq!(kept, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(memory, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(data, [0.0, 0.0, 7.0, 7.0, 7.0, 0.0, 0.0, 7.0, 7.0, 7.0]);
}

#[test]
fn cells_of_parts_are_given_out_once() {
    let tasks = [task(0, 0, 0..5), task(0, 1, 0..5)];
    let tasks = Tasks { tasks: &tasks, order: &[1, 0], group: 2, starts: None };
    let mut data = [0.0f32; 4 * 5 * 3];
    fn output(data: &mut [f32]) -> Rows<'_> {
        Rows::F32(rows(data, [1, 4, 5], [60, 15, 3], 3))
    }
    let mut grid = Grid::new(tasks, output(&mut data), None).unwrap();
    // A head each, two channels and then the third, two queries at a time: the last of four cells has none.
    for numbers in [0..4, 1..2] {
        let cells = Cells::new(&mut grid, [1, 2], (2, numbers.clone()));
        let (cut, mut seen) = (Cut::new([2, 3], [1, 2]), Vec::new());
        while let Some(Cell { mut claim, part, number }) = cells.take() {
            let Task { kv_head, query_begin, query_end, .. } = claim.task();
            let [task, piece] = cut.task(part);
            let (heads, channels) = cut.part(piece);
            assert_eq!((kv_head as usize, heads.len()), (1 - task, 1));
            for query in query_begin..query_end {
                let ElementsMut::F32(row) = claim.output(heads.start, query) else { panic!("floats") };
                assert_eq!(row.len(), channels.len());
                row.iter_mut().for_each(|x| *x += 1.0);
            }
            seen.push((part, number, query_begin..query_end));
        }
        assert_eq!(seen.len(), 8 * numbers.len());
        assert_eq!(seen[..1], [(0, numbers.start, 2 * numbers.start..2 * numbers.start + 2)]);
        assert!(!seen.iter().any(|(_, number, queries)| *number == 3 && !queries.is_empty()));
    }
    let told: Vec<_> = data.chunks(3).map(|row| row.to_vec()).collect();
    let expected = |query: usize| if (2..4).contains(&query) { 2.0 } else { 1.0 };
    assert!(told.iter().enumerate().all(|(i, row)| row.iter().all(|&x| x == expected(i % 5))), "{told:?}");
    // Beside states there are none: a state is a head's, whichever its queries.
    let (mut o, mut state) = ([0.0f32; 60], [0.0f32; 24]);
    let states = StateRows { rows: rows(&mut state, [1, 4, 2], [24, 6, 3], 3), norm: None, of: None };
    let mut grid = Grid::new(tasks, output(&mut o), None).unwrap().with_states(states).unwrap();
    assert!(Cells::new(&mut grid, [1, 2], (2, 0..4)).take().is_none());
}

#[test]
fn parts_are_given_out_once() {
    let tasks = [task(0, 0, 0..1), task(0, 1, 0..1), task(0, 2, 0..1)];
    let tasks = Tasks { tasks: &tasks, order: &[2, 0, 1], group: 1, starts: None };
    let mut data = [0.0f32; 9];
    let output = Rows::F32(rows(&mut data, [1, 3, 1], [9, 3, 3], 3));
    let mut grid = Grid::new(tasks, output, None).unwrap();
    // Key head and channels of those that a worker takes until there are none: two parts of each task.
    let mut taken = |sharing: Sharing, workers: &[usize]| {
        let parts = Parts::new(&mut grid, [1, 2], (4, sharing));
        let of = |worker: usize| {
            let take =
                || parts.take(worker).map(|(claim, _, channels)| (claim.task().kv_head, channels.start));
            core::iter::from_fn(take).collect::<Vec<_>>()
        };
        workers.iter().map(|&worker| of(worker)).collect::<Vec<_>>()
    };
    let all = [(2, 0), (2, 2), (0, 0), (0, 2), (1, 0), (1, 2)];
    let own = taken(Sharing::Own, &[3, 0, 1, 2, 3]);
    assert_eq!(own, [&all[4..], &all[..1], &all[1..3], &all[3..4], &[]]);
    // The fourth begins with its own, then takes those of the first, the second and the third.
    let even = taken(Sharing::Even, &[3, 0]);
    assert_eq!(even, [vec![all[3], all[0], all[4], all[1], all[5], all[2]], vec![]]);
    let near = taken(Sharing::Near, &[3, 0]);
    assert_eq!(near, [[&all[4..], &all[..4]].concat(), vec![]]);
}

#[test]
#[should_panic = "a kept row of the claim"]
fn a_strip_has_no_other_rows() {
    let tasks = [task(0, 0, 0..5)];
    let (mut data, mut kept, mut memory) = ([0.0; 5], [0.0; 6], [0.0; 2]);
    let output = Rows::F32(rows(&mut data, [1, 1, 5], [5, 5, 1], 1));
    let tasks = Tasks { tasks: &tasks, order: &[0], group: 1, starts: None };
    let kept = rows(&mut kept, [1, 1, 6], [6, 6, 1], 1);
    let mut grid = Grid::new(tasks, output, None).unwrap().keeping(kept).unwrap();
    let strips = Strips::new(&mut grid, (4, 2), &mut memory, 1);
    strips.take().unwrap().0.kept(0, 4);
}
