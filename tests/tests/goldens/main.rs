//! Kernels and oracle against golden tensors: what other implementations made of the same inputs.
//!
//! Kernels and oracle read one typed tree and were written from one page, so a misunderstanding of it would be common to
//! both and no comparison between them would show it. A golden was computed by code that knows no spec: by PyTorch as its
//! users call it, by models of Hugging Face Transformers, by a sentence encoder with its own weights. It proves that the
//! words of a spec mean what the field means by them: to which side a window is counted, where fewer queries than keys
//! stand, which query heads share a key head, what slope a head has, which channels a position turns, whether it turns
//! them before they are normalised, that a sink is compared with scaled scores, that the lse is a natural log, what a
//! query that sees nothing gets, what is made of a latent and by what its scores are scaled. It proves nothing about
//! sizes, threads or tiles: those are the oracle's to judge, and a golden says that the oracle may.
//!
//! fixtures/manifest.toml tells where each comes from; what a golden is, it says in its head.

mod near_misses;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use regard::{Dtype, LoadError, Loader, Pool, Problem, SHIPPED, Spec};
use regard_engine::catalog::Entry;
use regard_ir::bounds::{self, Quantity};
use regard_ir::inputs::Captured;
use regard_ir::operands::{self, Operand};
use regard_ir::plan::Precision;
use regard_ir::problem::OwnedProblem;
use regard_ir::spec::Mechanism;
use regard_ir::variant::{Latent, LatentForm};
use regard_oracle::random::CapturedBuffer;
use regard_oracle::{Keys, Oracle, Row, Tensors};
use regard_testkit::{Case, Input, Inputs, Layout, Output};
use regard_tests::states::{self, States};
use regard_tests::{engines, run};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::near_misses::NEAR_MISSES;

#[test]
fn the_oracle_agrees() {
    for golden in goldens() {
        let opened = golden.open(Layout::Bhnd);
        opened
            .agrees(&Rows::of(&opened.oracle, opened.left_by_oracle.clone()), Precision::Exact)
            .unwrap_or_else(|error| panic!("{}: {error}", golden.name));
    }
}

#[test]
fn every_kernel_agrees() {
    let pool = Pool::new(2).expect("two threads");
    for entry in engines::available() {
        for golden in goldens() {
            for layout in Layout::ALL {
                let opened = golden.open(layout);
                if !run::serves(&opened.spec, entry, opened.spec.dtype) {
                    continue;
                }
                for spec in in_every_form(&opened.spec) {
                    let (rows, precision) = opened.by_kernel(&spec, entry, &pool);
                    if let Err(error) = opened.agrees(&rows, precision) {
                        let Spec { mechanism, .. } = spec;
                        panic!("{} on {}, {layout:?}, {mechanism:?}: {error}", golden.name, entry.isa.name());
                    }
                }
            }
        }
    }
}

/// What these tests can tell apart: without it, bounds that let everything through would not show.
#[test]
fn a_spec_that_is_a_little_beside_it_does_not_agree() {
    let goldens = goldens();
    let pool = Pool::new(1).expect("no thread");
    // Of exact f32: matrix tiles are near enough to what is a little beside it.
    let entry = engines::lanes()[0];
    let mut missed = vec![];
    for &(name, change) in NEAR_MISSES {
        let golden = goldens.iter().find(|golden| golden.name == name).expect("there is one of this name");
        let opened = golden.open(Layout::Bhnd);
        let changed = spec(&format!("extends = 'golden.toml'\n{change}"), &golden.spec_text());
        let (rows, precision) = opened.by_kernel(&changed, entry, &pool);
        if opened.agrees(&rows, precision).is_ok() {
            missed.push(format!("{name} agrees with {change}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_shipped_spec_has_a_golden_of_another_implementation() {
    let goldens = goldens();
    let held: BTreeSet<&str> = goldens.iter().map(|golden| golden.shipped.as_str()).collect();
    let shipped: BTreeSet<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
    assert_eq!(held, shipped);
}

#[test]
fn the_manifest_has_every_file_and_no_other() {
    let mut listed: BTreeSet<PathBuf> =
        ["manifest.toml", "golden.py"].map(|name| fixtures().join(name)).into();
    for origin in manifest().into_values() {
        listed.insert(fixtures().join(origin.script));
        for golden in origin.golden {
            assert!(listed.insert(golden.path("")), "{} is there twice", golden.name);
            listed.insert(golden.path(".expected"));
        }
    }
    let folders = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let (folders, top): (Vec<_>, Vec<_>) = folders.partition(|path| path.is_dir());
    let inside =
        folders.iter().flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
    assert_eq!(inside.chain(top).collect::<BTreeSet<_>>(), listed);
}

#[test]
fn every_file_is_what_the_manifest_says() {
    for golden in goldens() {
        for (end, described) in [("", &golden.inputs), (".expected", &golden.expected)] {
            let bytes = fs::read(golden.path(end)).unwrap();
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, described.sha256, "{}{end}", golden.name);
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let describe = |tensor: &TensorView<'_>| {
                format!("{} {:?}", tensor.dtype().to_string().to_lowercase(), tensor.shape())
            };
            let tensors: BTreeMap<String, String> =
                file.iter().map(|(name, tensor)| (name.to_owned(), describe(&tensor))).collect();
            assert_eq!(tensors, described.tensors, "{}{end}", golden.name);
        }
    }
}

/// What the manifest says of goldens from one place.
#[derive(Deserialize)]
struct Origin {
    script: PathBuf,
    golden: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    name: String,
    shipped: String,
    #[serde(default)]
    changes: String,
    q_offset: Option<i64>,
    inputs: Described,
    expected: Described,
}

#[derive(Deserialize)]
struct Described {
    sha256: String,
    tensors: BTreeMap<String, String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn manifest() -> BTreeMap<String, Origin> {
    let text = fs::read_to_string(fixtures().join("manifest.toml")).unwrap();
    toml::from_str(&text).unwrap_or_else(|error| panic!("manifest.toml: {error}"))
}

fn goldens() -> Vec<Golden> {
    manifest().into_values().flat_map(|origin| origin.golden).collect()
}

/// Serves the one spec that another extends.
struct Parent<'a>(&'a str);

impl Loader for Parent<'_> {
    fn load(&self, _: &str) -> Result<Vec<u8>, LoadError> {
        Ok(self.0.into())
    }
}

fn spec(text: &str, parent: &str) -> Spec {
    match regard::parse(text, "changed.toml", &Parent(parent)) {
        Ok(parsed) => parsed.spec,
        Err(diagnostics) => panic!("{text}\n{diagnostics}"),
    }
}

/// The spec; one of latents in each of its forms.
fn in_every_form(spec: &Spec) -> Vec<Spec> {
    let Mechanism::Latent(latent) = spec.mechanism else { return vec![spec.clone()] };
    let of = |form| Spec { mechanism: Mechanism::Latent(Latent { form, ..latent }), ..spec.clone() };
    LatentForm::ALL.map(of).into()
}

impl Golden {
    fn path(&self, end: &str) -> PathBuf {
        fixtures().join(format!("{}{end}.safetensors", self.name))
    }

    fn spec_text(&self) -> String {
        format!("extends = '{}'\n{}", self.shipped, self.changes)
    }

    fn open(&self, layout: Layout) -> Opened {
        let spec = spec(&self.spec_text(), "");
        let bytes = ["", ".expected"].map(|end| fs::read(self.path(end)).unwrap());
        let [inputs, expected] = bytes.each_ref().map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        let tensor = |name| inputs.tensor(name).unwrap();
        let dense =
            |tensor: TensorView<'_>, shape| Input::new(dtype(&tensor), shape, layout, floats(&tensor));
        let [mut batch, mut queries, mut keys] = [0; 3];
        let mut operands = vec![];
        for operand in spec.variant().operands() {
            let tensor = tensor(operand.name);
            let shape = shape_of(&operand, tensor.shape());
            match operand.rows {
                operands::Rows::Queries => [batch, _, queries, _] = shape,
                operands::Rows::Keys => [batch, _, keys, _] = shape,
                operands::Rows::Matrix(_) => {}
            }
            operands.push(dense(tensor, shape));
        }
        let gate = spec.output.gate.map(|_| {
            let tensor = tensor("gate");
            // One of one number for each row has no channels.
            let mut shape = [1; 4];
            shape[..tensor.shape().len()].copy_from_slice(tensor.shape());
            dense(tensor, shape)
        });
        let names = &spec.inputs.names;
        let captured = names.iter().map(|name| captured(&tensor(name))).collect();
        let start = inputs.tensor("state").ok().map(|state| (state, inputs.tensor("norm").ok()));
        let n_states = start.as_ref().map_or(0, |(_, norm)| 1 + usize::from(norm.is_some()));
        let n_read = operands.len() + usize::from(gate.is_some()) + names.len() + n_states;
        assert_eq!(inputs.len(), n_read, "{}: a tensor that the spec does not read", self.name);

        let problem = Problem::prefill(spec.source, batch, queries, keys).unwrap();
        let problem = self.q_offset.map_or(problem, |offset| problem.with_q_offset(offset).unwrap());
        let width = spec.heads.value_dim as usize;
        let rows = |tensor: &TensorView<'_>, width| {
            let exact: Vec<f64> = floats(tensor).into_iter().map(f64::from).collect();
            exact.chunks_exact(width).map(<[f64]>::to_vec).collect()
        };
        let variant = spec.variant();
        let states = |state: &TensorView<'_>, norm: Option<TensorView<'_>>| {
            let mut states = States::zeros(&variant, &problem);
            states.state = floats(state);
            states.norm = norm.map(|norm| floats(&norm));
            states
        };
        let left = expected.tensor("state").ok().map(|state| states(&state, expected.tensor("norm").ok()));
        let start = start.map(|(state, norm)| states(&state, norm));
        let start = start.or_else(|| variant.recurrence().map(|_| States::zeros(&variant, &problem)));
        let expected = Rows {
            o: rows(&expected.tensor("o").unwrap(), width),
            lse: expected.tensor("lse").ok().map(|lse| rows(&lse, 1)),
            left,
        };
        assert_eq!(expected.lse.is_some(), spec.output.lse, "{}", self.name);

        let of_lookahead = matches!(spec.mechanism, Mechanism::Lookahead(_));
        let inputs = Inputs { operands, captured, gate, of_lookahead, keys: Keys::Given };
        let (oracle, left_by_oracle) = by_oracle(&spec, problem, &inputs, start.as_ref());
        Opened { spec, problem, layout, inputs, start, expected, oracle, left_by_oracle }
    }
}

/// Batch, heads, rows and width of an operand, of which a file has those that it has.
fn shape_of(operand: &Operand, in_file: &[usize]) -> [usize; 4] {
    match (operand.rows, operand.heads, in_file) {
        (operands::Rows::Matrix(_), _, &[heads, rows, width]) => [1, heads, rows, width],
        (_, Some(_), &[batch, heads, rows, width]) => [batch, heads, rows, width],
        (_, None, &[batch, rows, width]) => [batch, 1, rows, width],
        _ => panic!("{} is {in_file:?}", operand.name),
    }
}

fn dtype(tensor: &TensorView<'_>) -> Dtype {
    match tensor.dtype() {
        safetensors::Dtype::F32 => Dtype::F32,
        safetensors::Dtype::F16 => Dtype::F16,
        safetensors::Dtype::BF16 => Dtype::Bf16,
        other => panic!("{other} is no storage type of a kernel"),
    }
}

fn floats(tensor: &TensorView<'_>) -> Vec<f32> {
    let (pairs, _) = tensor.data().as_chunks::<2>();
    let (fours, _) = tensor.data().as_chunks::<4>();
    match dtype(tensor) {
        Dtype::F32 => fours.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        Dtype::F16 => pairs.iter().map(|&bytes| f16::from_le_bytes(bytes).into()).collect(),
        Dtype::Bf16 => pairs.iter().map(|&bytes| bf16::from_le_bytes(bytes).into()).collect(),
    }
}

fn captured(tensor: &TensorView<'_>) -> CapturedBuffer {
    match tensor.dtype() {
        safetensors::Dtype::I32 => {
            let (fours, _) = tensor.data().as_chunks::<4>();
            CapturedBuffer::I32(fours.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect())
        }
        safetensors::Dtype::BOOL => CapturedBuffer::Bool(tensor.data().to_vec()),
        _ => CapturedBuffer::F32(floats(tensor)),
    }
}

/// A golden's problem, inputs and outputs.
struct Opened {
    spec: Spec,
    problem: Problem<'static>,
    layout: Layout,
    inputs: Inputs,
    /// The states that a recurrence begins with.
    start: Option<States>,
    expected: Rows,
    /// The same rows, part by part and query by query, which say as well how large their scores are.
    oracle: Vec<Vec<Row>>,
    /// The states that the oracle leaves.
    left_by_oracle: Option<States>,
}

/// o and lse by sequence, head and query; a row of lse is a single number.
struct Rows {
    o: Vec<Vec<f64>>,
    lse: Option<Vec<Vec<f64>>>,
    /// The states of a recurrence after the last token.
    left: Option<States>,
}

impl Rows {
    fn of(oracle: &[Vec<Row>], left: Option<States>) -> Self {
        let mut rows = Self { o: vec![], lse: None, left };
        for part in oracle {
            let n_heads = part.first().map_or(0, |row| row.o.len());
            rows.o.extend((0..n_heads).flat_map(|n| part.iter().map(move |row| row.o[n].clone())));
            if let Some(n_heads) = part.first().and_then(|row| row.lse.as_ref()).map(Vec::len) {
                let sums = (0..n_heads)
                    .flat_map(|h| part.iter().filter_map(move |row| Some(vec![row.lse.as_ref()?[h]])));
                rows.lse.get_or_insert_default().extend(sums);
            }
        }
        rows
    }
}

/// A run of rows that is further from a golden than its bound.
struct Distance {
    quantity: Quantity,
    /// Sequence, head and first query.
    at: [usize; 3],
    error: f64,
    bound: f64,
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quantity, at: [b, h, i], error, bound } = self;
        write!(f, "{quantity:?} of sequence {b}, head {h}, from query {i} on: {error:.1e}, past {bound:.1e}")
    }
}

impl Opened {
    /// What a kernel computes, and how precisely.
    fn by_kernel(&self, spec: &Spec, entry: &Entry, pool: &Pool) -> (Rows, Precision) {
        let kernel = run::compile(spec, entry, spec.dtype);
        let Self { problem, layout, .. } = *self;
        let case = Case { variant: kernel.variant(), problem, dtype: spec.dtype, layout, seed: 0 };
        let mut left = self.start.clone();
        let outputs = match &mut left {
            Some(states) => {
                states::run(&kernel, &case, &self.inputs, states, pool).map_err(|error| error.to_string())
            }
            None => run::run(&kernel, &case, &self.inputs, pool).map_err(|error| error.to_string()),
        };
        let outputs =
            outputs.unwrap_or_else(|error| panic!("{}: {error}", run::describe(&spec.name, entry, &case)));
        let rows = Rows { o: all_rows(&outputs.o), lse: outputs.lse.as_ref().map(all_rows), left };
        (rows, kernel.plan().precision())
    }

    /// Whether each run of [`bounds::ROWS`] queries of a head is within its bound of the golden.
    fn agrees(&self, found: &Rows, precision: Precision) -> Result<(), Distance> {
        self.judge((Quantity::Output, precision), &found.o, &self.expected.o)?;
        self.judge_states(precision, found.left.as_ref(), self.expected.left.as_ref())?;
        match (&found.lse, &self.expected.lse) {
            (Some(found), Some(golden)) => self.judge((Quantity::Lse, precision), found, golden),
            _ => Ok(()),
        }
    }

    /// Whether the states of each head are within their bounds, where the golden has them.
    fn judge_states(
        &self,
        precision: Precision,
        found: Option<&States>,
        golden: Option<&States>,
    ) -> Result<(), Distance> {
        let (Some(found), Some(golden)) = (found, golden) else { return Ok(()) };
        let heads = &self.spec.heads;
        let mechanism = self.spec.variant().mechanism;
        let bound = bounds::bound_of(&mechanism, Quantity::State, self.spec.dtype, precision, 0.0);
        let all = [
            (Some(&found.state), Some(&golden.state), heads.dim * heads.value_dim),
            (found.norm.as_ref(), golden.norm.as_ref(), heads.dim),
        ];
        for (found, golden, len) in all {
            let (Some(found), Some(golden)) = (found, golden) else { continue };
            assert_eq!(found.len(), golden.len());
            let of_head = |all: &[f32]| all.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let pairs = found.chunks(len as usize).zip(golden.chunks(len as usize));
            for (head, (found, golden)) in pairs.enumerate() {
                let error = distance(Quantity::State, &of_head(found), &of_head(golden));
                if error > bound {
                    let at = [head / heads.value as usize, head % heads.value as usize, 0];
                    return Err(Distance { quantity: Quantity::State, at, error, bound });
                }
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        (quantity, precision): (Quantity, Precision),
        found: &[Vec<f64>],
        golden: &[Vec<f64>],
    ) -> Result<(), Distance> {
        let [batch, queries] = [self.problem.batch, self.problem.queries].map(|n| n as usize);
        let mechanism = self.spec.variant().mechanism;
        let n_heads = golden.len() / queries;
        // A head of a part that mixes its heads is made of the scores of all.
        let n_heads_of_a_part = n_heads / self.oracle.len();
        for head in 0..n_heads {
            for first_query in (0..queries).step_by(bounds::ROWS) {
                let run = first_query..queries.min(first_query + bounds::ROWS);
                let scores = self.oracle[head / n_heads_of_a_part][run.clone()].iter();
                let max_score = scores.flat_map(|row| &row.max_scores).copied().fold(0.0, f64::max);
                let bound = bounds::bound_of(&mechanism, quantity, self.spec.dtype, precision, max_score);
                let rows = head * queries + run.start..head * queries + run.end;
                let [found, golden] = [found, golden].map(|all| all[rows.clone()].concat());
                let error = distance(quantity, &found, &golden);
                if error > bound {
                    let heads = n_heads / batch;
                    return Err(Distance {
                        quantity,
                        at: [head / heads, head % heads, first_query],
                        error,
                        bound,
                    });
                }
            }
        }
        Ok(())
    }
}

fn by_oracle(
    spec: &Spec,
    problem: Problem,
    inputs: &Inputs,
    start: Option<&States>,
) -> (Vec<Vec<Row>>, Option<States>) {
    let variant = spec.variant();
    let data = inputs.captured();
    let positions = OwnedProblem::spread(&problem, variant.per_token()).unwrap();
    let captured =
        Captured::bind(variant.inputs, &data, &variant.heads, variant.source, &positions.view()).unwrap();
    let gate = inputs.gate.as_ref().map(Input::view);
    let operands = inputs.views();
    let oracle = Oracle::new(variant, problem, Tensors { operands: &operands, captured, gate }).unwrap();
    let oracle = match start {
        Some(start) => oracle.starting(start.start()),
        None => oracle,
    };
    let mut left = start.cloned();
    if let Some(States { state, norm, .. }) = &mut left {
        state.clear();
        norm.iter_mut().for_each(Vec::clear);
    }
    let mut rows = vec![];
    for part in (0..oracle.parts()).map(|part| oracle.part(part)) {
        rows.push((0..problem.queries as usize).map(|i| part.row(i).unwrap()).collect());
        if let (Some(States { state, norm, .. }), Some(found)) = (&mut left, part.state()) {
            (0..spec.heads.dim as usize).for_each(|c| state.extend(found.row(c).iter().map(|&x| x as f32)));
            norm.iter_mut().for_each(|norm| norm.extend(found.norm().iter().map(|&x| x as f32)));
        }
    }
    (rows, left)
}

/// The rows of an output by sequence, head and query.
fn all_rows(output: &Output) -> Vec<Vec<f64>> {
    let (view, [batch, heads, queries, _]) = (output.view(), output.shape());
    let places =
        (0..batch * heads * queries).map(|row| [row / queries / heads, row / queries % heads, row % queries]);
    places.map(|[b, h, i]| view.row(b, h, i)).collect()
}

/// max |found − golden| / max |golden|; infinite where one is not finite and the other is not the same.
fn distance(quantity: Quantity, found: &[f64], golden: &[f64]) -> f64 {
    assert_eq!(found.len(), golden.len());
    let pairs = || found.iter().zip(golden).filter(|(found, golden)| found != golden);
    if pairs().any(|(found, golden)| !found.is_finite() || !golden.is_finite()) {
        return f64::INFINITY;
    }
    let error = pairs().map(|(found, golden)| (found - golden).abs()).fold(0.0, f64::max);
    let largest = golden.iter().filter(|x| x.is_finite()).map(|x| x.abs()).fold(0.0, f64::max);
    if error == 0.0 { 0.0 } else { error / bounds::denominator(quantity, largest) }
}
