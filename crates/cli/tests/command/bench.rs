//! What the tests of the command share: a folder each, tensor files, and the built binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The JSON objects on stdout, one a line.
    pub fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Accepts exit code 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }
}

/// The command, not yet run; without a terminal and without a given width.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regard"));
    // Where nothing is: what a person measured on the machine must not show in a test.
    command.env("XDG_CACHE_HOME", std::env::temp_dir().join("regard-command-nothing-measured"));
    command.args(args).stdin(Stdio::null()).env_remove("COLUMNS").env_remove("RUST_BACKTRACE");
    command
}

/// Runs `regard` in the folder of the workspace.
pub fn regard(args: &[&str]) -> Done {
    done(command(args).current_dir(workspace()))
}

fn done(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A folder of a test's own, gone when it ends.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("regard-command-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs `regard` here, with a cache folder of its own.
    pub fn regard(&self, args: &[&str]) -> Done {
        done(command(args).current_dir(&self.0).env("XDG_CACHE_HOME", self.path("cache")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A tensor to be put in a file: name, type, shape, little-endian elements.
pub type Tensor<'a> = (&'a str, &'a str, &'a [usize], Vec<u8>);

/// f32 elements that differ from each other.
pub fn f32s(name: &'static str, shape: &'static [usize]) -> Tensor<'static> {
    let bytes = (0..shape.iter().product::<usize>()).flat_map(|i| (i as f32 * 0.37).sin().to_le_bytes());
    (name, "F32", shape, bytes.collect())
}

/// i32 elements.
pub fn i32s(name: &'static str, shape: &'static [usize], elements: &[i32]) -> Tensor<'static> {
    (name, "I32", shape, elements.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// A safetensors file.
pub fn safetensors(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend(bytes);
        let end = data.len();
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    raw_file(&format!("{{{}}}", entries.join(",")), &data)
}

/// A file with this header, as long as it says, and this data.
pub fn raw_file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The elements of an f32 tensor of a file that `regard` wrote.
pub fn read_f32s(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let floats = tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    (tensor.shape().to_vec(), floats.collect())
}
