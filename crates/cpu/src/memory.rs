//! [`HostMemory`]: the memory of tensors behind a lock: a block of the pool, or memory that another owner lends. Reading
//! and writing borrow it as typed slices.
//!
//! A contended lock is an error, never a wait: a tensor belongs to one JavaScript thread, and an operation never names
//! the same memory as input and as output. Memory that is lent must be one `HostMemory` wherever tensors lie in it, so
//! that its one lock covers them all.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytemuck::Pod;
use spikenorm_core::{Error, ErrorCode, Result};

use crate::block::Block;
use crate::pool;

/// Memory of another owner, which never goes to the pool. Every operation asks for it anew, under the memory's lock.
pub trait Lender: Send + Sync {
    /// The bytes for reading. An error where they are no longer to be had.
    fn lend(&self) -> Result<Box<dyn Lent>>;
    /// The bytes for writing. An error also where they are lent for reading only.
    fn lend_mut(&mut self) -> Result<Box<dyn LentMut>>;
}

/// Bytes that stay where they are for the rest of the operation, aligned to the elements in them.
pub trait Lent: Send + Sync {
    fn bytes(&self) -> &[u8];
}

/// The same for writing.
pub trait LentMut: Send + Sync {
    fn bytes_mut(&mut self) -> &mut [u8];
}

pub struct HostMemory(RwLock<Source>);

enum Source {
    Pool(Block),
    Lent(Box<dyn Lender>),
}

impl HostMemory {
    pub fn take(bytes: usize) -> Result<Self> {
        Ok(Self(RwLock::new(Source::Pool(pool::take(bytes)?))))
    }

    pub fn lent(lender: impl Lender + 'static) -> Self {
        Self(RwLock::new(Source::Lent(Box::new(lender))))
    }

    pub fn read(&self) -> Result<Reading<'_>> {
        let source = self.0.try_read().map_err(|_| in_use())?;
        let lent = match &*source {
            Source::Pool(_) => None,
            Source::Lent(lender) => Some(lender.lend()?),
        };
        Ok(Reading { source, lent })
    }

    pub fn write(&self) -> Result<Writing<'_>> {
        let mut source = self.0.try_write().map_err(|_| in_use())?;
        let lent = match &mut *source {
            Source::Pool(_) => None,
            Source::Lent(lender) => Some(lender.lend_mut()?),
        };
        Ok(Writing { source, lent })
    }

    /// Exclusive access to memory nobody else has seen yet; none to what is lent.
    pub fn as_mut_slice<E: Pod>(&mut self) -> &mut [E] {
        match self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            Source::Pool(block) => bytemuck::cast_slice_mut(block),
            Source::Lent(_) => &mut [],
        }
    }

    /// Bytes of a block of the pool, which may be more than were asked for; `None` where the memory is lent.
    pub fn pool_bytes(&self) -> Result<Option<usize>> {
        Ok(match &*self.0.try_read().map_err(|_| in_use())? {
            Source::Pool(block) => Some(size_of_val::<[_]>(block)),
            Source::Lent(_) => None,
        })
    }

    /// Moves the values to memory of another owner, at least as large, and gives the block back to the pool. What shares
    /// this memory follows.
    pub fn move_to(&self, mut lender: impl Lender + 'static) -> Result<()> {
        let mut source = self.0.try_write().map_err(|_| in_use())?;
        if let Source::Pool(block) = &mut *source {
            let bytes: &[u8] = bytemuck::cast_slice(block);
            lender.lend_mut()?.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
            pool::give(std::mem::take(block));
        }
        *source = Source::Lent(Box::new(lender));
        Ok(())
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Source::Pool(block) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            pool::give(std::mem::take(block));
        }
    }
}

pub struct Reading<'a> {
    source: RwLockReadGuard<'a, Source>,
    lent: Option<Box<dyn Lent>>,
}

impl Reading<'_> {
    /// `len` elements from element `offset` on.
    pub fn slice<E: Pod>(&self, offset: usize, len: usize) -> &[E] {
        match (&self.lent, &*self.source) {
            (None, Source::Pool(block)) => &bytemuck::cast_slice(block)[offset..offset + len],
            // An empty array has no address to be aligned.
            (Some(lent), _) if len > 0 => bytemuck::cast_slice(&lent.bytes()[range_of::<E>(offset, len)]),
            _ => &[],
        }
    }
}

pub struct Writing<'a> {
    source: RwLockWriteGuard<'a, Source>,
    lent: Option<Box<dyn LentMut>>,
}

impl Writing<'_> {
    /// `len` elements from element `offset` on.
    pub fn slice<E: Pod>(&mut self, offset: usize, len: usize) -> &mut [E] {
        match (&mut self.lent, &mut *self.source) {
            (None, Source::Pool(block)) => &mut bytemuck::cast_slice_mut(block)[offset..offset + len],
            (Some(lent), _) if len > 0 => {
                bytemuck::cast_slice_mut(&mut lent.bytes_mut()[range_of::<E>(offset, len)])
            }
            _ => &mut [],
        }
    }
}

/// Where elements lie among bytes.
fn range_of<E>(offset: usize, len: usize) -> std::ops::Range<usize> {
    offset * size_of::<E>()..(offset + len) * size_of::<E>()
}

fn in_use() -> Error {
    Error::new(ErrorCode::Argument, "the same memory is named as an input and as an output of one operation")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Bytes of a test, lent to one reader or writer at a time.
    #[derive(Clone)]
    struct Array(Arc<Mutex<Vec<f32>>>);

    struct Taken(Array, Vec<f32>);

    impl Lent for Taken {
        fn bytes(&self) -> &[u8] {
            bytemuck::cast_slice(&self.1)
        }
    }

    impl LentMut for Taken {
        fn bytes_mut(&mut self) -> &mut [u8] {
            bytemuck::cast_slice_mut(&mut self.1)
        }
    }

    impl Drop for Taken {
        fn drop(&mut self) {
            *self.0.0.lock().expect("no panic holds it") = std::mem::take(&mut self.1);
        }
    }

    impl Array {
        fn taken(&self) -> Box<Taken> {
            Box::new(Taken(self.clone(), std::mem::take(&mut *self.0.lock().expect("no panic holds it"))))
        }
    }

    impl Lender for Array {
        fn lend(&self) -> Result<Box<dyn Lent>> {
            Ok(self.taken())
        }
        fn lend_mut(&mut self) -> Result<Box<dyn LentMut>> {
            Ok(self.taken())
        }
    }

    #[test]
    fn lent_memory_is_read_and_written_where_it_is() {
        let array = Array(Arc::new(Mutex::new(vec![1.0, 2.0, 3.0])));
        let memory = HostMemory::lent(array.clone());
        assert_eq!(memory.read().expect("is lent").slice::<f32>(1, 2), [2.0, 3.0]);
        memory.write().expect("is lent").slice::<f32>(0, 2)[1] = 5.0;
        assert_eq!(*array.0.lock().expect("no panic holds it"), [1.0, 5.0, 3.0]);
    }

    #[test]
    fn no_elements_of_lent_memory_need_no_address() {
        let memory = HostMemory::lent(Array(Arc::default()));
        assert_eq!(memory.read().expect("is lent").slice::<f64>(0, 0), [] as [f64; 0]);
        assert_eq!(memory.write().expect("is lent").slice::<f64>(0, 0), [] as [f64; 0]);
    }

    #[test]
    fn values_move_to_another_owner_and_everything_that_shares_them_follows() {
        let memory = HostMemory::take(12).expect("there is memory");
        memory.write().expect("is free").slice::<f32>(0, 3).copy_from_slice(&[1.0, 2.0, 3.0]);
        let bytes = memory.pool_bytes().expect("is free").expect("is of the pool");
        let array = Array(Arc::new(Mutex::new(vec![0.0; bytes / 4])));
        memory.move_to(array.clone()).expect("is free");
        assert_eq!(memory.pool_bytes().expect("is free"), None);
        assert_eq!(memory.read().expect("is lent").slice::<f32>(0, 3), [1.0, 2.0, 3.0]);
        array.0.lock().expect("no panic holds it")[2] = 7.0;
        assert_eq!(memory.read().expect("is lent").slice::<f32>(0, 3), [1.0, 2.0, 7.0]);
    }

    #[test]
    fn a_contended_lock_is_an_error() {
        let memory = HostMemory::take(4).expect("there is memory");
        let reading = memory.read().expect("is free");
        assert_eq!(memory.write().err().map(|error| error.code), Some(ErrorCode::Argument));
        drop(reading);
        assert!(memory.write().is_ok());
    }
}
