//! Elements as a file stores them: little-endian and at any address.

use std::borrow::Cow;

use bytemuck::Pod;
use half::{bf16, f16};
use safetensors::Dtype;

/// A type that tensor files and kernels share.
pub(crate) trait Element: Pod {
    /// Its name in a file.
    const DTYPE: Dtype;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::BF16;
}

impl Element for i32 {
    const DTYPE: Dtype = Dtype::I32;
}

/// A bool; anything but 0 is true.
impl Element for u8 {
    const DTYPE: Dtype = Dtype::BOOL;
}

/// The elements of `bytes`: in place where the address is aligned and the processor little-endian, else copied.
pub(crate) fn decode<T: Element>(bytes: &[u8]) -> Cow<'_, [T]> {
    match swapped(bytes, size_of::<T>()) {
        Cow::Borrowed(bytes) => match bytemuck::try_cast_slice(bytes) {
            Ok(elements) => Cow::Borrowed(elements),
            Err(_) => Cow::Owned(bytemuck::allocation::pod_collect_to_vec(bytes)),
        },
        Cow::Owned(bytes) => Cow::Owned(bytemuck::allocation::pod_collect_to_vec(&bytes)),
    }
}

/// The bytes of `elements` as a file stores them.
pub(crate) fn encode<T: Element>(elements: &[T]) -> Cow<'_, [u8]> {
    swapped(bytemuck::cast_slice(elements), size_of::<T>())
}

/// From the file's byte order to the processor's, or back.
fn swapped(bytes: &[u8], size: usize) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(bytes.chunks(size).flat_map(|element| element.iter().rev()).copied().collect())
}
