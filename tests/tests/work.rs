//! The operations and bytes of a problem, counted by hand.

use regard::{Dtype, Problem};
use regard_ir::work::Work;

fn work(spec: &str, queries: usize, keys: usize, dtype: Dtype, live_pairs: f64) -> Work {
    let spec = regard::shipped(spec).unwrap().spec;
    let problem = Problem::prefill(spec.source, 1, queries, keys).unwrap();
    Work::new(&spec.variant(), &problem, dtype, live_pairs)
}

#[test]
fn grouped_heads_read_each_key_once() {
    // 32 query heads of 128 over 8 key heads.
    let Work { flops, read_bytes, written_bytes } = work("gqa", 3, 5, Dtype::F32, 100.0);
    assert_eq!(flops, 2.0 * 256.0 * 100.0);
    assert_eq!(read_bytes, 4.0 * 128.0 * (32.0 * 3.0 + 2.0 * 8.0 * 5.0));
    assert_eq!(written_bytes, 4.0 * 128.0 * 32.0 * 3.0);
}

#[test]
fn sixteen_bits_are_half_the_bytes() {
    let (wide, narrow) = (work("gqa", 3, 5, Dtype::F32, 1.0), work("gqa", 3, 5, Dtype::Bf16, 1.0));
    assert_eq!(wide.bytes(), 2.0 * narrow.bytes());
}

#[test]
fn keys_past_the_window_are_not_read() {
    let spec = regard::shipped("sliding_window").unwrap().spec;
    let heads = spec.heads;
    let bytes = |queries, keys| work("sliding_window", queries, keys, Dtype::F32, 1.0).read_bytes;
    // One query sees the same keys however many came before them.
    assert_eq!(bytes(1, 16_384), bytes(1, 32_768));
    let channels = (heads.kv * heads.dim + heads.value * heads.value_dim) as f64;
    assert_eq!(
        bytes(8, 32_768) - bytes(1, 32_768),
        4.0 * 7.0 * (channels + (heads.query * heads.dim) as f64)
    );
}

#[test]
fn captured_inputs_and_the_lse_count() {
    // 8 query heads over 2, width 64, doc i32[b, k], bias f32[h], lse.
    let Work { read_bytes, written_bytes, .. } = work("softcap_bias", 2, 3, Dtype::F16, 1.0);
    assert_eq!(read_bytes, 2.0 * 64.0 * (8.0 * 2.0 + 2.0 * 2.0 * 3.0) + 4.0 * 3.0 + 4.0 * 8.0);
    assert_eq!(written_bytes, 8.0 * 2.0 * (2.0 * 64.0 + 4.0));
}
