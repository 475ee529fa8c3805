//! Test tensors as kernels take them.

use regard_ir::inputs::InputData;
use regard_oracle::Elements;
use regard_runtime::flash;
use regard_runtime::operands::{KeyRows, LatentQueries, LookaheadKeys, QueryRows};
use regard_runtime::view::{View, ViewMut};
use regard_testkit::{ElementsMut, Input, Inputs, Outputs};

/// A test tensor as kernels take it.
pub fn view(input: &Input) -> View<'_> {
    let tensor = input.view();
    let ([batch, heads, tokens, width], [b, h, n, _]) = (tensor.shape(), tensor.strides());
    let (counts, strides) = ([batch, heads, tokens], [b, h, n]);
    match tensor.elements() {
        Elements::F32(data) => View::new(data, counts, strides, width),
        Elements::F16(data) => View::new(data, counts, strides, width),
        Elements::Bf16(data) => View::new(data, counts, strides, width),
    }
    .expect("a test tensor holds its rows")
}

/// The inputs of a case as kernels take them.
///
/// # Panics
/// If they are those of no mechanism.
pub fn views<'a>(inputs: &'a Inputs, captured: &'a [InputData<'a>]) -> flash::Inputs<'a> {
    let gate = inputs.gate.as_ref().map(view);
    let all: Vec<View<'a>> = inputs.operands.iter().map(view).collect();
    let of = match all[..] {
        [q_c, k_c, v_c, q_u, k_u, v_u] if inputs.of_lookahead => {
            let keys = LookaheadKeys { k_c, v_c, q_u, k_u, v_u };
            flash::Inputs::of(QueryRows::Plain(q_c), KeyRows::Lookahead(keys))
        }
        [q, k, v] => flash::Inputs::new(q, k, v),
        [q_nope, q_rope, c_kv, k_rope, w_uk, w_uv] => flash::Inputs::of(
            QueryRows::Latent(LatentQueries { q_nope, q_rope, w_uk, w_uv }),
            KeyRows::Latent { c_kv, k_rope },
        ),
        _ => panic!("{} operands", all.len()),
    };
    flash::Inputs { gate, ..of.captured(captured) }
}

/// Outputs as kernels write them.
pub fn places(outputs: &mut Outputs) -> flash::Outputs<'_> {
    flash::Outputs { o: place(&mut outputs.o), lse: outputs.lse.as_mut().map(place) }
}

/// The same of one that is written.
pub fn place(output: &mut regard_testkit::Output) -> ViewMut<'_> {
    let ([batch, heads, tokens, width], [b, h, n, _]) = (output.shape(), output.strides());
    let (counts, strides) = ([batch, heads, tokens], [b, h, n]);
    match output.elements_mut() {
        ElementsMut::F32(data) => ViewMut::new(data, counts, strides, width),
        ElementsMut::F16(data) => ViewMut::new(data, counts, strides, width),
        ElementsMut::Bf16(data) => ViewMut::new(data, counts, strides, width),
    }
    .expect("a test tensor's rows are apart")
}
