//! [`HostMemory`]: a block of the pool behind a lock, or memory that another owner lends for reading. Reading and
//! writing borrow it as typed slices.
//!
//! The locks are never waited for: a tensor belongs to one JavaScript thread, and an operation never
//! names the same memory as input and as output. Meeting a taken lock is reported, not suffered.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytemuck::Pod;
use spikenorm_core::{Error, ErrorCode, Result};

use crate::block::Block;
use crate::pool;

/// Memory of another owner, read but never written and never given to the pool.
pub trait Lender: Send + Sync {
    /// The bytes, aligned to the elements they are of. An error where they are no longer to be had.
    fn lend(&self) -> Result<&[u8]>;
}

pub struct HostMemory(Source);

enum Source {
    Pool(RwLock<Block>),
    Lent(Box<dyn Lender>),
}

impl HostMemory {
    pub fn take(bytes: usize) -> Result<Self> {
        Ok(Self(Source::Pool(RwLock::new(pool::take(bytes)?))))
    }

    pub fn lent(lender: impl Lender + 'static) -> Self {
        Self(Source::Lent(Box::new(lender)))
    }

    pub fn is_lent(&self) -> bool {
        matches!(self.0, Source::Lent(_))
    }

    pub fn read(&self) -> Result<Reading<'_>> {
        match &self.0 {
            Source::Pool(block) => block.try_read().map(Reading::Pool).map_err(|_| in_use()),
            Source::Lent(lender) => lender.lend().map(Reading::Lent),
        }
    }

    pub fn write(&self) -> Result<Writing<'_>> {
        match &self.0 {
            Source::Pool(block) => block.try_write().map(Writing).map_err(|_| in_use()),
            Source::Lent(_) => Err(Error::new(
                ErrorCode::Argument,
                "a tensor over a typed array's memory is only read; clone() gives one to write to",
            )),
        }
    }

    /// Exclusive access to memory nobody else has seen yet; none to what is lent.
    pub fn as_mut_slice<E: Pod>(&mut self) -> &mut [E] {
        match &mut self.0 {
            Source::Pool(block) => {
                bytemuck::cast_slice_mut(block.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner))
            }
            Source::Lent(_) => &mut [],
        }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Source::Pool(block) = &mut self.0 {
            let block = block.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            pool::give(std::mem::take(block));
        }
    }
}

pub enum Reading<'a> {
    Pool(RwLockReadGuard<'a, Block>),
    Lent(&'a [u8]),
}

impl Reading<'_> {
    pub fn slice<E: Pod>(&self, offset: usize, len: usize) -> &[E] {
        let all: &[E] = match self {
            Self::Pool(block) => bytemuck::cast_slice(block),
            Self::Lent(bytes) => bytemuck::cast_slice(bytes),
        };
        &all[offset..offset + len]
    }
}

pub struct Writing<'a>(RwLockWriteGuard<'a, Block>);

impl Writing<'_> {
    pub fn slice<E: Pod>(&mut self, offset: usize, len: usize) -> &mut [E] {
        &mut bytemuck::cast_slice_mut(&mut self.0)[offset..offset + len]
    }
}

fn in_use() -> Error {
    Error::new(ErrorCode::Argument, "the same memory is named as an input and as an output of one operation")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Array(Vec<f32>);

    impl Lender for Array {
        fn lend(&self) -> Result<&[u8]> {
            Ok(bytemuck::cast_slice(&self.0))
        }
    }

    #[test]
    fn lent_memory_is_read_where_it_is_and_never_written() {
        let values = vec![1.0, 2.0, 3.0];
        let address = values.as_ptr();
        let memory = HostMemory::lent(Array(values));
        let reading = memory.read().expect("is lent");
        assert_eq!(reading.slice::<f32>(1, 2), [2.0, 3.0]);
        assert_eq!(reading.slice::<f32>(0, 3).as_ptr(), address);
        assert_eq!(memory.write().err().map(|error| error.code), Some(ErrorCode::Argument));
    }
}
