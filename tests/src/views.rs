//! Test tensors as kernels take them.

use half::{bf16, f16};
use regard_ir::inputs::InputData;
use regard_oracle::Elements;
use regard_runtime::flash;
use regard_runtime::operands::{KeyRows, LatentQueries, LookaheadKeys, QueryRows};
use regard_runtime::view::{View, ViewMut};
use regard_testkit::{ElementsMut, Input, Inputs, Outputs};

/// A storage type, among the elements of the test tensors.
pub trait Stored: regard::Element {
    /// The elements, which are of this type.
    fn of(elements: Elements<'_>) -> &[Self];
    /// The elements to be written, which are of this type.
    fn of_mut(elements: ElementsMut<'_>) -> &mut [Self];
}

macro_rules! stored {
    ($($type:ident $variant:ident),+) => {$(
        impl Stored for $type {
            fn of(elements: Elements<'_>) -> &[Self] {
                match elements {
                    Elements::$variant(data) => data,
                    other => panic!("the tensor is {}", other.dtype().name()),
                }
            }

            fn of_mut(elements: ElementsMut<'_>) -> &mut [Self] {
                match elements {
                    ElementsMut::$variant(data) => data,
                    other => panic!("the tensor is {other:?}"),
                }
            }
        }
    )+};
}

stored!(f32 F32, f16 F16, bf16 Bf16);

/// A test tensor as kernels take it.
///
/// # Panics
/// If its elements are not of the type.
pub fn view<T: Stored>(input: &Input) -> View<'_, T> {
    let tensor = input.view();
    let ([batch, heads, tokens, width], [b, h, n, _]) = (tensor.shape(), tensor.strides());
    View::new(T::of(tensor.elements()), [batch, heads, tokens], [b, h, n], width)
        .expect("a test tensor holds its rows")
}

pub(crate) fn views<'a, T: Stored>(
    inputs: &'a Inputs,
    captured: &'a [InputData<'a>],
) -> flash::Inputs<'a, T> {
    let gate = inputs.gate.as_ref().map(|gate| flash::Gate::Stored(view(gate)));
    let all: Vec<View<'a, T>> = inputs.operands.iter().map(view).collect();
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

pub(crate) fn places<T: Stored>(outputs: &mut Outputs) -> flash::Outputs<'_, T> {
    flash::Outputs { o: place(&mut outputs.o), lse: outputs.lse.as_mut().map(place) }
}

/// The same of one that is written.
///
/// # Panics
/// As [`view`].
pub fn place<T: Stored>(output: &mut regard_testkit::Output) -> ViewMut<'_, T> {
    let ([batch, heads, tokens, width], [b, h, n, _]) = (output.shape(), output.strides());
    ViewMut::new(T::of_mut(output.elements_mut()), [batch, heads, tokens], [b, h, n], width)
        .expect("a test tensor's rows are apart")
}
