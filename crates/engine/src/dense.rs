//! Dense products by the `gemm` crate: for layers around a kernel, and to measure kernels against.
//!
//! `gemm` allocates on each call, so no kernel uses it.

/// A matrix of floats at any strides.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Rows and columns.
    pub shape: [usize; 2],
    /// How many elements apart neighbours are down a column and along a row.
    pub strides: [usize; 2],
}

/// A matrix of floats at any strides, to be written.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    /// The elements.
    pub data: &'a mut [f32],
    /// Rows and columns.
    pub shape: [usize; 2],
    /// How many elements apart neighbours are down a column and along a row.
    pub strides: [usize; 2],
}

/// Writes `c = a · b`, on the caller's thread.
///
/// # Panics
/// If the shapes do not fit each other, or a matrix reaches past its data.
pub fn multiply(c: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>) {
    let ([rows, depth], [b_rows, columns]) = (a.shape, b.shape);
    assert!(
        depth == b_rows && c.shape == [rows, columns],
        "{:?} · {:?} is not {:?}",
        a.shape,
        b.shape,
        c.shape
    );
    for (len, shape, strides) in [
        (a.data.len(), a.shape, a.strides),
        (b.data.len(), b.shape, b.strides),
        (c.data.len(), c.shape, c.strides),
    ] {
        assert!(
            reach(shape, strides).is_some_and(|reach| reach <= len),
            "{shape:?} at {strides:?} in {len} elements"
        );
    }
    let stride = |stride: usize| stride as isize;
    // SAFETY: the loop above found that every element of the three matrices lies inside its slice, whose length, and
    // with it every offset, fits an `isize`; `c` is borrowed for writing, so nothing else reads or writes it meanwhile.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            c.data.as_mut_ptr(),
            stride(c.strides[1]),
            stride(c.strides[0]),
            false,
            a.data.as_ptr(),
            stride(a.strides[1]),
            stride(a.strides[0]),
            b.data.as_ptr(),
            stride(b.strides[1]),
            stride(b.strides[0]),
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Elements that a matrix reaches to; `None` where that overflows.
fn reach(shape: [usize; 2], strides: [usize; 2]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let along = |i: usize| (shape[i] - 1).checked_mul(strides[i]);
    along(0)?.checked_add(along(1)?)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_at_any_strides() {
        // [1 2; 3 4] · [5 6; 7 8], the second given by its transpose.
        let a = Matrix { data: &[1.0, 2.0, 0.0, 3.0, 4.0], shape: [2, 2], strides: [3, 1] };
        let b = Matrix { data: &[5.0, 7.0, 6.0, 8.0], shape: [2, 2], strides: [1, 2] };
        let mut c = [f32::NAN; 4];
        multiply(MatrixMut { data: &mut c, shape: [2, 2], strides: [2, 1] }, a, b);
        assert_eq!(c, [19.0, 22.0, 43.0, 50.0]);
    }

    #[test]
    #[should_panic(expected = "in 3 elements")]
    fn a_matrix_past_its_data_is_refused() {
        let a = Matrix { data: &[0.0; 3], shape: [2, 2], strides: [2, 1] };
        multiply(MatrixMut { data: &mut [0.0; 4], shape: [2, 2], strides: [2, 1] }, a, a);
    }
}
