//! [`HostMemory`]: a block of the pool behind a lock. Reading and writing borrow it as typed slices.
//!
//! The locks are never waited for: a tensor belongs to one JavaScript thread, and an operation never
//! names the same memory as input and as output. Meeting a taken lock is reported, not suffered.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytemuck::Pod;
use spikenorm_core::{Error, ErrorCode, Result};

use crate::block::Block;
use crate::pool;

pub struct HostMemory {
    block: RwLock<Block>,
}

impl HostMemory {
    pub fn take(bytes: usize) -> Result<Self> {
        Ok(Self { block: RwLock::new(pool::take(bytes)?) })
    }

    pub fn read(&self) -> Result<Reading<'_>> {
        self.block.try_read().map(Reading).map_err(|_| in_use())
    }

    pub fn write(&self) -> Result<Writing<'_>> {
        self.block.try_write().map(Writing).map_err(|_| in_use())
    }

    /// Exclusive access to memory nobody else has seen yet.
    pub fn as_mut_slice<E: Pod>(&mut self) -> &mut [E] {
        bytemuck::cast_slice_mut(self.block.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        let block = self.block.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        pool::give(std::mem::take(block));
    }
}

pub struct Reading<'a>(RwLockReadGuard<'a, Block>);

impl Reading<'_> {
    pub fn slice<E: Pod>(&self, offset: usize, len: usize) -> &[E] {
        &bytemuck::cast_slice(&self.0)[offset..offset + len]
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
