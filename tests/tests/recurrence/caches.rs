//! States in caches: sequences that take tokens piece by piece and step by step, together with others, go back and fork.

use regard::{
    Cache, CacheError, CacheLimits, Dtype, Kernel, Pool, Problem, RunError, SequenceId, Solo, Spec, Step,
    StoreError, Threads, machine,
};
use regard_ir::spec::{Cache as Cached, CacheLayout};
use regard_ir::variant::Axis;
use regard_oracle::random::CapturedBuffer;
use regard_testkit::{Case, Inputs, Outputs};
use regard_tests::states::{self, States};
use regard_tests::{cached, cumulative, run};

use crate::{RECURRENCES, Trial, elements, same_states, serving, spec};

/// Packed sequences that a cache takes.
struct Story<'a> {
    kernel: &'a Kernel,
    trial: Trial<'a>,
    /// Where each sequence begins among the rows.
    starts: Vec<usize>,
    cache: Cache,
    sequences: Vec<SequenceId>,
    step: Step,
    /// What has come out so far, or would have.
    outputs: Outputs,
}

impl<'a> Story<'a> {
    fn new(kernel: &'a Kernel, spec: &'a Spec, cu: &'a [i32], at_once: usize, seed: u64) -> Self {
        let problem = Problem::packed(spec.source, cu, cu).expect("offsets that rise from 0");
        let trial = Trial::new(spec, problem, kernel.plan().dtype, 2 * seed);
        let longest = problem.keys as usize;
        let limits = CacheLimits { at_once, ..CacheLimits::new(cu.len(), longest) };
        let mut cache = kernel.cache(limits).expect("small");
        let sequences = (1..cu.len()).map(|_| cache.open().expect("room for each")).collect();
        let step = kernel.step(&cache, 16, 3).expect("few");
        let starts = cu.iter().map(|&at| at as usize).collect();
        let outputs = trial.case.outputs();
        Self { kernel, trial, starts, cache, sequences, step, outputs }
    }

    /// The next tokens of some sequences, as rows of the trial.
    fn next(&self, of: &[usize], tokens: usize) -> Vec<usize> {
        let rows = |&i: &usize| {
            let first = self.starts[i] + self.cache.len(self.sequences[i]).expect("open");
            first..first + tokens
        };
        of.iter().flat_map(rows).collect()
    }

    /// A prompt, or a piece of one.
    fn prefill(&mut self, i: usize, tokens: usize, threads: &dyn Threads) -> Result<(), RunError> {
        let rows = self.next(&[i], tokens);
        let problem = Problem::prefill(self.kernel.spec().source, 1, tokens, tokens).expect("short");
        let case = Case { problem, ..self.trial.case };
        let inputs = select(&self.trial, &case, &rows);
        let at = (&mut self.cache, self.sequences[i]);
        let outputs = cached::extend(self.kernel, &case, &inputs, at, threads)?;
        self.keep(&outputs, &rows);
        Ok(())
    }

    /// Some tokens of each of some sequences.
    fn step(&mut self, of: &[usize], tokens: usize, threads: &dyn Threads) -> Result<(), RunError> {
        let rows = self.next(of, tokens);
        let cu = cumulative(of.iter().map(|_| tokens));
        let source = self.kernel.spec().source;
        let problem = match of {
            [_] => Problem::prefill(source, 1, tokens, tokens),
            _ => Problem::packed(source, &cu, &cu),
        };
        let problem = problem.expect("short");
        let case = Case { problem, ..self.trial.case };
        let inputs = select(&self.trial, &case, &rows);
        let sequences: Vec<SequenceId> = of.iter().map(|&i| self.sequences[i]).collect();
        let at = (&mut self.cache, &sequences[..]);
        let outputs = cached::step(self.kernel, &case, &inputs, at, (&mut self.step, threads))?;
        self.keep(&outputs, &rows);
        Ok(())
    }

    fn keep(&mut self, outputs: &Outputs, rows: &[usize]) {
        let [_, heads, ..] = outputs.o.shape();
        for (row, &to) in rows.iter().enumerate() {
            for head in 0..heads {
                for (c, x) in outputs.o.view().row(0, head, row).into_iter().enumerate() {
                    self.outputs.o.set([0, head, to, c], x);
                }
            }
        }
    }

    /// The states after the last tokens.
    fn states(&self) -> States {
        let mut all = States::zeros(&self.trial.case.variant, &self.trial.case.problem);
        let views = || {
            let of = |&sequence| self.cache.states(sequence).expect("open").expect("states");
            self.sequences.iter().map(of)
        };
        let rows = views().flat_map(|(state, _)| {
            let [_, heads, rows] = state.counts();
            (0..heads * rows).flat_map(move |at| state.row(0, at / rows, at % rows).floats())
        });
        all.state.iter_mut().zip(rows).for_each(|(to, x)| *to = x);
        let rows = views().flat_map(|(_, norm)| {
            norm.into_iter()
                .flat_map(|norm| (0..norm.counts()[1]).flat_map(move |head| norm.row(0, head, 0).floats()))
        });
        all.norm.iter_mut().flatten().zip(rows).for_each(|(to, x)| *to = x);
        all
    }

    fn judge(&self) -> Result<(), String> {
        let Trial { case, inputs, start } = &self.trial;
        states::judge(case, inputs, &self.outputs, (start, &self.states())).map(|_| ())
    }
}

/// Some rows of a packed trial, as the inputs of a case of as many.
fn select(trial: &Trial<'_>, case: &Case<'_>, rows: &[usize]) -> Inputs {
    let mut inputs = case.inputs();
    let gates = inputs.gate.iter_mut().zip(&trial.inputs.gate);
    for (to, from) in inputs.operands.iter_mut().zip(&trial.inputs.operands).chain(gates) {
        let [_, heads, ..] = to.view().shape();
        for (head, (at, &row)) in
            (0..heads).flat_map(|head| rows.iter().enumerate().map(move |it| (head, it)))
        {
            for (c, x) in from.view().row(0, head, row).into_iter().enumerate() {
                to.set([0, head, at, c], x as f32);
            }
        }
    }
    let (heads, is_packed) = (trial.case.variant.heads.value as usize, case.problem.packed.is_some());
    let shapes = trial.case.variant.inputs;
    for ((to, from), shape) in inputs.captured.iter_mut().zip(&trial.inputs.captured).zip(shapes) {
        let CapturedBuffer::F32(from) = from else { panic!("f32") };
        if !shape.axes().contains(&Axis::Key) {
            *to = CapturedBuffer::F32(from.clone());
            continue;
        }
        // Of packed sequences the elements of all heads of a token lie together.
        let width = from.len() / trial.case.problem.all_keys() as usize;
        let of_head = width / heads;
        let of = |row: usize, head: usize| &from[row * width + head * of_head..][..of_head];
        let elements: Vec<f32> = match is_packed {
            true => {
                rows.iter().flat_map(|&row| (0..heads).flat_map(move |head| of(row, head))).copied().collect()
            }
            false => {
                (0..heads).flat_map(|head| rows.iter().flat_map(move |&row| of(row, head))).copied().collect()
            }
        };
        *to = CapturedBuffer::F32(elements);
    }
    inputs
}

/// A spec's kernels, on every engine here that has states.
fn kernels(lines: &str, dtype: Dtype) -> (Spec, Vec<Kernel>) {
    let spec = spec("query = 2, value = 4, dim = 24, value_dim = 36", lines);
    let kernels = serving(&spec, dtype).map(|entry| run::compile(&spec, entry, dtype)).collect();
    (spec, kernels)
}

/// That of the engine that is chosen here.
fn kernel(lines: &str, dtype: Dtype) -> (Spec, Kernel) {
    let spec = spec("query = 2, value = 4, dim = 24, value_dim = 36", lines);
    let options = regard::Options { dtype: Some(dtype), ..regard::Options::default() };
    let kernel = Kernel::compile_with(&spec, &machine::host(), options).expect("it is planned");
    (spec, kernel)
}

/// Takes all tokens of three sequences: prompts and pieces, steps of one and of more, of several at once or one after the other.
fn tell(story: &mut Story<'_>, threads: &dyn Threads, is_together: bool) {
    let step = |story: &mut Story<'_>, of: &[usize], tokens: usize| {
        let calls = if is_together { of.len() } else { 1 };
        of.chunks(calls).for_each(|of| story.step(of, tokens, threads).expect("some tokens"));
    };
    story.prefill(0, 100, threads).expect("a prompt");
    story.prefill(1, 3, threads).expect("a short one");
    step(story, &[1, 0, 2], 1);
    step(story, &[2, 1], 5);
    story.prefill(2, 40, threads).expect("a piece");
    for _ in 0..6 {
        step(story, &[2, 0], 4);
    }
    step(story, &[1], 16);
    story.prefill(0, 51, threads).expect("the rest");
    step(story, &[1], 15);
}

const LENGTHS: [i32; 4] = [0, 176, 216, 286];

#[test]
fn sequences_of_a_cache_are_what_they_are_at_once() {
    let pool = Pool::new(3).expect("three threads");
    for (seed, lines) in (0..).zip(RECURRENCES) {
        for dtype in [Dtype::F32, Dtype::ALL[1 + seed as usize % 2]] {
            let (spec, kernels) = kernels(lines, dtype);
            for kernel in &kernels {
                let on = format!("{lines} on {} in {}", kernel.plan().isa.name(), dtype.name());
                let told = |at_once, threads: &dyn Threads, is_together| {
                    let mut story = Story::new(kernel, &spec, &LENGTHS, at_once, seed);
                    tell(&mut story, threads, is_together);
                    story.judge().unwrap_or_else(|error| panic!("{on}: {error}"));
                    (elements(&story.outputs), story.states())
                };
                told(7, &Solo, true);
                let expected = told(1, &Solo, true);
                for (what, other) in [("threads", told(1, &pool, true)), ("others", told(1, &pool, false))] {
                    let same = expected.0 == other.0 && same_states(&expected.1, &other.1);
                    assert!(same, "{on}: {what} show");
                }
            }
        }
    }
}

/// What was taken back leaves no trace, and a fork is what it was made of.
#[test]
fn tokens_that_are_taken_back_leave_nothing() {
    for (seed, lines) in (0..).zip(RECURRENCES) {
        let (spec, kernels) = kernels(lines, Dtype::F32);
        for kernel in &kernels {
            let story = |at_once| {
                let mut story = Story::new(kernel, &spec, &LENGTHS, at_once, seed);
                story.prefill(0, 40, &Solo).expect("a prompt");
                story
            };
            let mut plain = story(6);
            plain.step(&[0], 2, &Solo).expect("two tokens");
            let after_two = plain.states();
            plain.step(&[0, 1], 4, &Solo).expect("four of each");
            let expected = (elements(&plain.outputs), plain.states());

            let mut story = story(6);
            let first = story.sequences[0];
            story.step(&[0], 5, &Solo).expect("five guesses");
            story.cache.truncate(first, 42).expect("three were wrong");
            assert!(same_states(&story.states(), &after_two), "{lines}");
            let saved = story.cache.fork(first).expect("room for one more");
            story.step(&[0, 1], 4, &Solo).expect("four of each");
            assert!(elements(&story.outputs) == expected.0, "{lines}");
            assert!(same_states(&story.states(), &expected.1), "{lines}");

            // Six states are kept: those after 41 tokens to 46.
            let error = story.cache.truncate(first, 40).unwrap_err();
            assert!(
                matches!(error, CacheError::Store(StoreError::Overwritten { tokens: 40, least: 41 })),
                "{error}"
            );
            story.cache.truncate(first, 41).expect("the first that is kept");
            story.sequences[0] = saved;
            assert_eq!(story.cache.len(saved).expect("open"), 42);
            story.cache.truncate(story.sequences[1], 0).expect("all");
            assert!(same_states(&story.states(), &after_two), "{lines}");
            story.step(&[0, 1], 4, &Solo).expect("four of each");
            assert!(same_states(&story.states(), &expected.1), "{lines}");
        }
    }
}

/// Where a piece ends with a chunk, or where tokens only add with the sixteenth, it shows nowhere. Three threads share cells of the
/// whole where outputs are divided.
#[test]
fn pieces_have_the_bits_of_the_whole() {
    let pool = Pool::new(3).expect("three threads");
    for (seed, lines) in (0..).zip(RECURRENCES) {
        let (spec, kernel) = kernel(lines, Dtype::F32);
        let chunk = kernel.plan().recurrence.expect("a recurrence").chunk as usize;
        let piece = if lines.contains("delta") { chunk } else { 16 * chunk };
        let cu = [0, 2 * piece as i32 + 70];
        let told = |pieces: &[usize], threads: &dyn Threads| {
            let mut story = Story::new(&kernel, &spec, &cu, 1, seed);
            pieces.iter().for_each(|&tokens| story.prefill(0, tokens, threads).expect("a piece"));
            (elements(&story.outputs), story.states())
        };
        let (whole, pieces) = (told(&[2 * piece + 70], &pool), told(&[piece, piece, 70], &Solo));
        assert!(whole.0 == pieces.0 && same_states(&whole.1, &pieces.1), "{lines}");
    }
}

/// Log decays of which what is left of a state is furthest from a float, above it and below.
const SLOW: [f32; 2] = [-1.0 / 4096.0, -1.0 / 4160.0];

/// Where a decay is the same at each token, what rounding takes of it does not come again with each. With one float for what is left
/// steps of sums end 5e-6 to 1.2e-5 off, and most of their prompts past the bound.
#[test]
fn errors_of_slow_decays_do_not_add_up() {
    let decaying = (0..).zip(RECURRENCES).filter(|(_, lines)| lines.contains("decay"));
    for ((seed, lines), log) in decaying.flat_map(|it| SLOW.map(|log| (it, log))) {
        let (spec, kernels) = kernels(lines, Dtype::F32);
        let decays = spec.inputs.names.iter().position(|name| name == "decay").expect("it has some");
        for kernel in &kernels {
            let judge = |what: &str, tokens, take: &dyn Fn(&mut Story<'_>)| {
                let cu = [0, tokens];
                let mut story = Story::new(kernel, &spec, &cu, 1, seed);
                let CapturedBuffer::F32(logs) = &mut story.trial.inputs.captured[decays] else {
                    panic!("f32")
                };
                logs.fill(log);
                take(&mut story);
                let on = kernel.plan().isa.name();
                story.judge().unwrap_or_else(|error| panic!("{what} of {lines}, {log}, on {on}: {error}"));
            };
            judge("a prompt", 4096, &|story| story.prefill(0, 4096, &Solo).expect("a prompt"));
            judge("steps", 512, &|story| (0..512).for_each(|_| story.step(&[0], 1, &Solo).expect("a token")));
        }
    }
}

/// A sequence has nothing of one that had its place before it.
#[test]
fn a_place_that_was_taken_before_is_empty() {
    let (spec, kernel) = kernel(RECURRENCES[1], Dtype::F32);
    let mut story = Story::new(&kernel, &spec, &LENGTHS, 3, 2);
    let limits = CacheLimits { at_once: 3, ..CacheLimits::new(LENGTHS.len(), 176) };
    let size = kernel.planned().cache_size(limits).expect("small");
    assert_eq!((size.bytes, size.held_tokens), (story.cache.bytes(), 176));
    story.step(&[0], 2, &Solo).expect("some tokens");
    let expected = story.states();
    story.step(&[1, 2], 3, &Solo).expect("some tokens");
    for i in [1, 2] {
        story.cache.close(story.sequences[i]).expect("open");
    }
    story.sequences[1] = story.cache.open().expect("room");
    story.sequences[2] = story.cache.fork(story.sequences[1]).expect("room");
    assert!(same_states(&story.states(), &expected));
}

#[test]
fn states_are_recorded_in_files() {
    let folder = tempfile::tempdir().expect("a folder for files");
    for (seed, lines) in (0..).zip(RECURRENCES) {
        let (_, filed) = kernel(&format!("{lines}\ncache = {{ file = true }}"), Dtype::F32);
        assert!(matches!(filed.cache(CacheLimits::new(1, 9)), Err(CacheError::WantsFile)));
        let (spec, kernel) = kernel(lines, Dtype::F32);
        let (path, copy) = (folder.path().join(format!("{seed}")), folder.path().join("killed"));
        let mut story = Story::new(&kernel, &spec, &LENGTHS[..2], 1, seed);
        let open = |story: &mut Story<'_>, path: &std::path::Path| {
            let (cache, sequence, opened) = kernel.open_cache(path).expect("it is whole");
            assert_eq!((opened.len as usize, opened.cut), (cache.len(sequence).expect("open"), None));
            (story.cache, story.sequences) = (cache, vec![sequence]);
            opened.len
        };
        let (cache, sequence) = kernel.create_cache(&path, 176).expect("there is room");
        (story.cache, story.sequences) = (cache, vec![sequence]);

        // A prompt is recorded; what comes later is not, and the process ends.
        story.prefill(0, 100, &Solo).expect("a prompt");
        let after_prompt = story.states();
        assert_eq!(story.cache.sync(sequence).expect("the disk takes it"), 100);
        story.step(&[0], 7, &Solo).expect("some tokens");
        let _ = std::fs::remove_file(&copy);
        std::fs::copy(&path, &copy).expect("a copy of the file");
        assert_eq!(open(&mut story, &copy), 100, "{lines}");
        assert!(same_states(&story.states(), &after_prompt), "{lines}");
        assert_eq!(story.cache.check().expect("it is whole"), 1);

        // Steps that are recorded are there, whoever goes on with them.
        story.step(&[0], 3, &Solo).expect("some tokens");
        story.cache.commit(story.sequences[0]).expect("it is there");
        story.step(&[0], 1, &Solo).expect("a token");
        story.cache.commit(story.sequences[0]).expect("it is there");
        assert_eq!(open(&mut story, &path), 100, "the other file");
        assert_eq!(open(&mut story, &copy), 104, "{lines}");
        story.prefill(0, 72, &Solo).expect("the rest");
        story.judge().unwrap_or_else(|error| panic!("{lines}: {error}"));

        let sequence = story.sequences[0];
        assert!(matches!(story.cache.fork(sequence), Err(StoreError::Only)));
        assert!(matches!(story.cache.close(sequence), Err(StoreError::Only)));
        story.cache.truncate(sequence, 0).expect("all");
        story.cache.commit(sequence).expect("none");
        open(&mut story, &path);
        assert_eq!(open(&mut story, &copy), 0);
    }
    let (_, other) = kernel("recurrence = { decay = 'token' }\ncache = { file = true }", Dtype::F32);
    let error = other.open_cache(folder.path().join("1")).unwrap_err().to_string();
    assert!(error.ends_with("was expected"), "{error}");
}

#[test]
fn what_no_cache_of_states_can_do_is_refused() {
    let (spec, kernel) = kernel(RECURRENCES[4], Dtype::F32);
    let mut story = Story::new(&kernel, &spec, &LENGTHS, 1, 3);
    story.step(&[0, 1], 2, &Solo).expect("two of each");
    let before = story.states();

    let error = story.step(&[0, 0], 1, &Solo).unwrap_err();
    assert!(error.to_string().contains("has the state of one before it"), "{error}");
    let error = story.step(&[0], 17, &Solo).unwrap_err();
    assert!(matches!(error, RunError::Step { most: [_, 16], found: [1, 17] }), "{error}");
    let first = story.sequences[0];
    let error =
        cached::append(&kernel, (&story.trial.case, &story.trial.inputs), (&mut story.cache, first), 0, 2..3);
    assert!(matches!(error, Err(RunError::States)), "{error:?}");
    // A cache is as long as its longest sequence.
    story.prefill(0, 170, &Solo).expect("a prompt");
    let error = story.step(&[1, 0], 5, &Solo).unwrap_err();
    assert!(matches!(error, RunError::Store(StoreError::TooLong { tokens: 177, most: 176 })), "{error}");
    assert_eq!([0, 1].map(|i| story.cache.len(story.sequences[i]).expect("open")), [172, 2]);
    story.cache.close(first).expect("open");
    assert!(matches!(story.cache.states(first), Err(StoreError::Unknown)));
    story.sequences[0] = story.cache.open().expect("room");
    story.step(&[0], 2, &Solo).expect("anew");
    assert!(same_states(&story.states(), &before));

    let many = kernel.cache(CacheLimits::new(65_537, 9)).unwrap_err();
    assert!(matches!(many, CacheError::Sequences { found: 65_537 }), "{many}");
    let paged = Spec { cache: Cached { layout: CacheLayout::Paged, ..spec.cache }, ..spec.clone() };
    let paged = Kernel::compile(&paged, &machine::host()).expect("it is planned");
    let error = paged.cache(CacheLimits::new(1, 9)).unwrap_err();
    assert!(matches!(error, CacheError::States { asked: "layout = \"paged\"" }), "{error}");
    let spec = regard_tests::specs::parse("heads = { query = 2, dim = 16 }\nrecurrence = {}");
    let kernel = Kernel::compile(&spec, &machine::host()).expect("it is planned");
    assert!(matches!(kernel.cache(CacheLimits::new(1, 9)), Err(CacheError::AllKeys)));
}
