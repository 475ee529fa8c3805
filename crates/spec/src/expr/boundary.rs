//! Names of tensors at the boundary of kernels: of every variant, also of those that are not compiled yet.
//!
//! Tables read these tensors and expressions do not. No input may have such a name, so that a file of tensors is
//! never ambiguous.

/// Tensors at the boundary of some variant, by name.
const NAMES: [&str; 39] = [
    "v",
    "o",
    "y",
    "lse",
    "sink",
    "gate",
    "mix",
    "o_norm",
    "q_norm",
    "k_norm",
    "q_nope",
    "q_rope",
    "c_kv",
    "c_kv_norm",
    "k_rope",
    "w_uk",
    "w_uv",
    "decay",
    "beta",
    "state",
    "norm",
    "q_u",
    "k_u",
    "v_u",
    "q_c",
    "k_c",
    "v_c",
    "u",
    "mix_q",
    "mix_k",
    "mix_v",
    "collapse",
    "context",
    "cu_q",
    "cu_k",
    "w_o",
    "b_o",
    "w_qkv",
    "b_qkv",
];

/// Activations whose projection has a weight `w_…` and a bias `b_…`.
const PROJECTED: [&str; 16] = [
    "q", "k", "v", "gate", "decay", "beta", "q_nope", "q_rope", "c_kv", "k_rope", "q_u", "k_u", "v_u", "q_c",
    "k_c", "v_c",
];

/// Whether a tensor of the boundary has this name.
pub(crate) fn is_boundary(name: &str) -> bool {
    let activation = name.strip_prefix("w_").or(name.strip_prefix("b_"));
    NAMES.contains(&name) || activation.is_some_and(|activation| PROJECTED.contains(&activation))
}

/// Every such name.
pub(crate) fn names() -> impl Iterator<Item = String> {
    let projection =
        |kind: &'static str| PROJECTED.iter().map(move |activation| format!("{kind}_{activation}"));
    NAMES.into_iter().map(str::to_owned).chain(projection("w")).chain(projection("b"))
}
