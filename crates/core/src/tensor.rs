//! A contiguous tensor over some device's memory `M`: reference counted, cheap to clone, viewed
//! but never strided.

use std::sync::Arc;

use crate::{DType, Result, element_count, shape::expect_shape};

pub struct Tensor<M> {
    pub memory: Arc<M>,
    /// First element, in elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub dtype: DType,
}

impl<M> Clone for Tensor<M> {
    fn clone(&self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            offset: self.offset,
            shape: self.shape.clone(),
            dtype: self.dtype,
        }
    }
}

impl<M> Tensor<M> {
    pub fn new(memory: M, shape: &[usize], dtype: DType) -> Self {
        Self { memory: Arc::new(memory), offset: 0, shape: shape.to_vec(), dtype }
    }

    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// The same values under another shape.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let count = element_count(shape)?;
        if count != self.len() {
            crate::bail!(
                Shape,
                "reshape: {} has {} elements, {} would have {count}",
                crate::show(&self.shape),
                self.len(),
                crate::show(shape)
            );
        }
        Ok(Self { memory: Arc::clone(&self.memory), shape: shape.to_vec(), ..*self })
    }

    /// Rows `first .. first + count` of the leading axis, sharing memory.
    pub fn rows(&self, first: usize, count: usize) -> Self {
        let row: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = count;
        Self { memory: Arc::clone(&self.memory), offset: self.offset + first * row, shape, ..*self }
    }

    pub fn expect_shape(&self, what: &str, shape: &[usize]) -> Result<()> {
        expect_shape(what, shape, &self.shape)
    }

    pub fn expect_dtype(&self, what: &str, dtype: DType) -> Result<()> {
        if self.dtype != dtype {
            crate::bail!(Dtype, "{what}: expected {}, got {}", dtype.name(), self.dtype.name());
        }
        Ok(())
    }
}
