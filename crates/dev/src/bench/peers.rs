//! The other implementations: who they are, what they can compute, and how they are started.

pub mod environment;
mod pins;
mod steps;

use std::process::Command;

use regard_ir::plan::Dtype;

use super::workload::{Cache, Call, Mask, Recurrence, Score, Workload};
use environment::Environment;
use pins::Part;

/// Another implementation.
#[derive(Debug)]
pub struct Peer {
    /// Short, without spaces.
    pub name: &'static str,
    /// As a table has it.
    pub title: &'static str,
    /// What must be there, in this order.
    parts: &'static [Part],
    program: Program,
    ways: fn(&Workload, Dtype) -> &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum Program {
    /// crates/dev/peers/worker.py with the peer's name.
    Python,
    /// A binary below the peers' folder.
    Binary(&'static str),
}

/// Everyone, in the order of tables.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "torch-sdpa",
        title: "torch SDPA",
        parts: &[Part::Python, Part::Torch],
        program: Program::Python,
        ways: |workload, _| match (workload.score, workload.heads == workload.kv_heads) {
            _ if workload.is_rounded() => &[],
            _ if workload.latents.is_some() && workload.is_decode() => &["sdpa-absorbed"],
            _ if workload.latents.is_some() => &["sdpa", "sdpa-padded"],
            (Score::Softcap(_), _) => &[],
            (_, true) => &["sdpa"],
            // Repeated keys are read once for each query head.
            (_, false) if workload.is_decode() => &["sdpa"],
            (_, false) => &["sdpa", "sdpa-repeat"],
        },
    },
    Peer {
        name: "torch-flex",
        title: "torch Flex",
        parts: &[Part::Python, Part::Torch],
        program: Program::Python,
        ways: |workload, _| if workload.is_decode() { &[] } else { &["flex"] },
    },
    Peer {
        name: "vllm",
        title: "vLLM",
        parts: &[Part::Python, Part::Torch, Part::Vllm],
        program: Program::Python,
        ways: |workload, dtype| match (workload.mask, workload.score, dtype) {
            _ if workload.is_rounded() => &["paged-fp8"],
            (_, _, Dtype::Bf16) if workload.recurrence == Some(Recurrence::GatedDelta) => &["delta"],
            _ if workload.recurrence.is_some() => &[],
            (Mask::Causal | Mask::Window(_), Score::Plain | Score::Softcap(_), Dtype::Bf16) => {
                &["paged", "sgl"]
            }
            _ => &["paged"],
        },
    },
    Peer {
        name: "onnxruntime",
        title: "ONNX Runtime",
        parts: &[Part::Python, Part::Onnxruntime],
        program: Program::Python,
        ways: |workload, dtype| {
            let grouped = workload.heads != workload.kv_heads;
            match (workload.mask, workload.score, dtype) {
                _ if workload.is_decode() => &[],
                (_, _, Dtype::Bf16) => &[],
                (Mask::Causal, Score::Plain, _) if grouped => &["gqa", "attention"],
                (Mask::None | Mask::Causal, Score::Plain, _) => &["mha", "attention"],
                (Mask::Causal | Mask::Window(_), Score::Plain | Score::Softcap(_), _) => &["gqa"],
                _ if grouped => &[],
                _ => &["mha"],
            }
        },
    },
    Peer {
        name: "openvino",
        title: "OpenVINO",
        parts: &[Part::Python, Part::Openvino],
        program: Program::Python,
        ways: |workload, dtype| match (workload.call, workload.score) {
            (Call::Decode { cache: Cache::Bits8, .. }, _) => &["stateful-u8"],
            // In f16 it leaves its fused path.
            (Call::Decode { .. }, _) if dtype == Dtype::F16 => &[],
            (Call::Decode { .. }, _) => &["stateful"],
            (_, Score::Softcap(_)) => &[],
            _ => &["sdpa"],
        },
    },
    Peer {
        name: "ggml",
        title: "ggml",
        parts: &[Part::Python, Part::Ggml],
        program: Program::Binary("ggml/worker"),
        ways: |workload, dtype| match dtype {
            _ if workload.is_rounded() => &["flash-q8_0"],
            // It converts keys element by element: past this a call takes many seconds.
            Dtype::Bf16 if workload.operations() > 2e10 => &[],
            _ => &["flash"],
        },
    },
    Peer {
        name: "candle",
        title: "candle",
        parts: &[Part::Candle],
        program: Program::Binary("candle/release/regard-peer-candle"),
        ways: |workload, _| match workload.mask {
            _ if workload.is_decode() => &[],
            Mask::Window(_) | Mask::Documents(_) => &[],
            // Many seconds for a call.
            _ if workload.operations() > 2e10 => &[],
            _ => &["flash"],
        },
    },
    Peer {
        name: "torch-chunks",
        title: "torch chunks",
        parts: &[Part::Python, Part::Torch, Part::Transformers],
        program: Program::Python,
        ways: |workload, _| if workload.recurrence.is_some() { &["eager", "compile"] } else { &[] },
    },
];

/// Those that have some recurrence.
const HAVE_RECURRENCES: [&str; 2] = ["torch-chunks", "vllm"];

/// Those that can be asked for attention over latents: they compute heads of any width, values narrower than keys.
const HAVE_LATENTS: [&str; 2] = ["torch-sdpa", "torch-flex"];

impl Peer {
    /// The ways in which it computes a workload in a storage type, the fastest unknown.
    pub fn ways(&self, workload: &Workload, dtype: Dtype) -> &'static [&'static str] {
        let lacks = workload.latents.is_some() && !HAVE_LATENTS.contains(&self.name)
            || workload.recurrence.is_some() && !HAVE_RECURRENCES.contains(&self.name);
        if lacks || workload.is_ours_alone() { &[] } else { (self.ways)(workload, dtype) }
    }

    /// Makes what it needs, if it is not there.
    ///
    /// # Errors
    /// With the reason why it cannot be had.
    pub fn prepare(&self, environment: &mut Environment) -> Result<(), String> {
        self.parts.iter().try_for_each(|&part| environment.prepare(part))
    }

    /// The command that starts its worker.
    pub fn command(&self, environment: &Environment, threads: usize) -> Command {
        let mut command = match self.program {
            Program::Python => {
                let mut command = Command::new(environment.python());
                command.arg(environment.sources().join("worker.py")).arg(self.name);
                command.arg("--libraries").arg(environment.folder());
                command
            }
            Program::Binary(path) => Command::new(environment.folder().join(path)),
        };
        command.arg("--threads").arg(threads.to_string());
        for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
            command.env(name, threads.to_string());
        }
        if threads > 1 {
            // Else two threads may share a core while another program holds the other.
            command.env("OMP_PROC_BIND", "close").env("OMP_PLACES", "cores");
        }
        // No compiled files among the sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The peer of a name.
pub fn peer(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::{Company, WORKLOADS, rounds, workload};

    #[test]
    fn every_workload_has_a_peer_in_f32_and_in_bf16() {
        for workload in WORKLOADS.iter().filter(|workload| !workload.is_ours_alone()) {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                assert!(PEERS.iter().any(|peer| !peer.ways(workload, dtype).is_empty()), "{workload:?}");
            }
        }
    }

    #[test]
    fn what_is_ours_alone_is_in_no_round_with_peers() {
        let alone = |name: &&str| workload(name).unwrap().is_ours_alone();
        for round in rounds().filter(|round| round.workloads.iter().any(alone)) {
            assert_eq!(round.company, Company::Alone, "{}", round.name());
        }
        for name in ["decode-1x8192-few", "decode-1x8192-4bit", "decode-64x16448-shared"] {
            assert!(
                PEERS.iter().all(|peer| peer.ways(workload(name).unwrap(), Dtype::Bf16).is_empty()),
                "{name}"
            );
        }
    }

    #[test]
    fn nobody_is_asked_for_what_it_does_not_have() {
        let ways = |name, row, dtype| peer(name).unwrap().ways(workload(row).unwrap(), dtype);
        assert_eq!(ways("torch-sdpa", "gemma2-4096", Dtype::F32), [""; 0]);
        assert_eq!(ways("onnxruntime", "gqa-512", Dtype::Bf16), [""; 0]);
        assert_eq!(ways("onnxruntime", "documents-4096", Dtype::F32), ["mha"]);
        assert_eq!(ways("onnxruntime", "gemma2-4096", Dtype::F32), ["gqa"]);
        assert_eq!(ways("candle", "window-8192", Dtype::F32), [""; 0]);
        assert_eq!(ways("vllm", "alibi-2048", Dtype::Bf16), ["paged"]);
        assert_eq!(ways("vllm", "decode-1x4096", Dtype::Bf16), ["paged", "sgl"]);
        assert_eq!(ways("openvino", "decode-1x4096", Dtype::F16), [""; 0]);
        assert_eq!(ways("torch-sdpa", "linear-4096", Dtype::F32), [""; 0]);
        assert_eq!(ways("torch-chunks", "linear-4096", Dtype::F32), ["eager", "compile"]);
        assert_eq!(ways("torch-chunks", "gqa-4096", Dtype::F32), [""; 0]);
        assert_eq!(ways("vllm", "delta-4096", Dtype::F32), [""; 0]);
        assert_eq!(ways("vllm", "delta-4096", Dtype::Bf16), ["delta"]);
        let rounded: Vec<_> = PEERS
            .iter()
            .flat_map(|peer| peer.ways(workload("decode-1x65536-8bit").unwrap(), Dtype::Bf16))
            .collect();
        assert_eq!(rounded, [&"paged-fp8", &"stateful-u8", &"flash-q8_0"]);
    }
}
