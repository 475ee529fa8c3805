//! The story of one spec: written, checked, planned, run on a real model's activations, verified, timed.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::command::{Profile, Regard, line};
use crate::error::Error;

/// Where the model's activations are, and where outputs go.
const FIXTURES: &str = "fixtures/minilm";
const OUTPUTS: &str = "target/demo";

/// Layers whose activations are at hand.
const LAYERS: [&str; 2] = ["layer0", "layer3"];

/// Timed runs: well under a second for a batch of four sentences.
const REPEAT: &str = "200";

/// Tells the story and sums it up.
///
/// # Errors
/// If a step fails.
pub fn run(root: &Path, profile: Profile) -> Result<(), Error> {
    chapter("Building the command")?;
    let regard = Regard::build(root, profile)?;
    let outputs = root.join(OUTPUTS);
    fs::create_dir_all(&outputs).map_err(|error| Error::File { path: outputs, error })?;

    chapter("A spec: the attention of the MiniLM sentence encoder")?;
    show_file(root, "specs/minilm.toml")?;

    chapter("What it means")?;
    regard.show(&["check", "specs/minilm.toml"])?;

    chapter("How it will run on this machine, and why")?;
    regard.show(&["plan", "minilm", "--q", "22", "--k", "22", "--batch", "4"])?;

    chapter("Run on the model's own activations: four sentences, padded to 22 tokens")?;
    for layer in LAYERS {
        let (input, output) =
            (format!("{FIXTURES}/{layer}.safetensors"), format!("{OUTPUTS}/{layer}.safetensors"));
        regard.show(&["run", "minilm", "-i", &input, "-o", &output])?;
    }

    chapter("Verified against an f64 oracle, and against what the model itself computed")?;
    let mut verified = Vec::new();
    for layer in LAYERS {
        let input = format!("{FIXTURES}/{layer}.safetensors");
        let expected = format!("{FIXTURES}/{layer}.expected.safetensors");
        let args = ["verify", "minilm", "-i", &input, "--expected", &expected];
        verified.extend(shown_and_read(&regard, &args)?);
    }

    chapter("Timed")?;
    let (input, output) = (format!("{FIXTURES}/layer0.safetensors"), format!("{OUTPUTS}/layer0.safetensors"));
    let args = ["run", "minilm", "-i", &input, "-o", &output, "--repeat", REPEAT, "--json"];
    println(&format!("\n$ {}", line(&args)))?;
    let small = timed(regard.json(&args)?, &args)?;

    chapter("A larger problem: causal, 8 heads of 128, 2048 tokens")?;
    let args = ["verify", "causal", "--q", "2048", "--k", "2048", "--dtype", "f32"];
    let large = timed(shown_and_read(&regard, &args)?, &args)?;

    chapter("Summary")?;
    println(&format!("  kernel    {}", kernel(&small)))?;
    println(&format!("  oracle    {}", verdict(&verified, "oracle")))?;
    println(&format!("  model     {}", verdict(&verified, "expected")))?;
    for timing in [&small, &large] {
        println(&format!("  speed     {}", speed(timing)))?;
    }
    println(&format!("  outputs   {OUTPUTS}/"))
}

fn chapter(title: &str) -> Result<(), Error> {
    println(&format!("\n== {title}"))
}

fn println(text: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

fn show_file(root: &Path, path: &str) -> Result<(), Error> {
    let file = root.join(path);
    let text = fs::read_to_string(&file).map_err(|error| Error::File { path: file, error })?;
    println(&format!("\n$ cat {path}\n{}", text.trim_end()))
}

/// Runs a command twice: for people to see, and for its numbers.
fn shown_and_read(regard: &Regard, args: &[&str]) -> Result<Vec<Value>, Error> {
    regard.show(args)?;
    regard.json(&[args, &["--json"]].concat())
}

/// The first object with a rate: of `verify`, the most capable instruction set.
fn timed(objects: Vec<Value>, args: &[&str]) -> Result<Value, Error> {
    let mut timings = objects.into_iter().filter(|object| object["gflops"].is_number());
    timings.next().ok_or_else(|| Error::Json { command: line(args), missing: "gflops" })
}

fn kernel(timing: &Value) -> String {
    let text = |key: &str| timing[key].as_str().unwrap_or("?").to_owned();
    format!("{}, {} on {}, {} threads", text("kernel"), text("engine"), text("isa"), timing["threads"])
}

/// The worst of all comparisons with `against`. That none failed was seen by the exit codes.
fn verdict(comparisons: &[Value], against: &str) -> String {
    let rows = || comparisons.iter().filter(|row| row["against"] == against);
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    let share = |row: &Value| number(row, "error") / number(row, "bound");
    match rows().max_by(|a, b| share(a).total_cmp(&share(b))) {
        None => "nothing was compared".to_owned(),
        Some(worst) => format!(
            "{} comparisons ok; the largest error is {:.1e}, its bound {:.1e}",
            rows().count(),
            number(worst, "error"),
            number(worst, "bound")
        ),
    }
}

fn speed(timing: &Value) -> String {
    let number = |key: &str| timing[key].as_f64().unwrap_or(f64::NAN);
    format!(
        "{} {}x{}x{}: {:.3} ms, {:.1} GFLOP/s",
        timing["spec"].as_str().unwrap_or("?"),
        timing["batch"],
        timing["q"],
        timing["k"],
        1e3 * number("median_s"),
        number("gflops")
    )
}
