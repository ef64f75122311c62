//! Working memory whose size follows from a call's arguments. Where there is none left, that is an error and not the end of
//! the process, as it is with `vec!` and `collect`.

use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytemuck::Zeroable;

use crate::{Error, Result};

/// Small pieces of the heap that are let go when memory runs out: making and throwing the error takes some hundred bytes,
/// and a failure to have those ends the process.
static RESERVE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static IS_HELD: AtomicBool = AtomicBool::new(false);
const RESERVE_PIECES: usize = 32;
/// Below what malloc maps for itself.
const PIECE_BYTES: usize = 4096;

/// Holds the reserve (again) where there is memory for it. To be called when memory has been had from the system.
pub fn hold_reserve() {
    if IS_HELD.load(Ordering::Relaxed) {
        return;
    }
    let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
    if reserve.try_reserve_exact(RESERVE_PIECES).is_err() {
        return;
    }
    while reserve.len() < RESERVE_PIECES {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(PIECE_BYTES).is_err() {
            return;
        }
        reserve.push(piece);
    }
    IS_HELD.store(true, Ordering::Relaxed);
}

/// `ERR_OUT_OF_MEMORY`. Lets the reserve go before the message is made.
pub fn out_of_memory(message: fmt::Arguments<'_>) -> Error {
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner).clear();
    IS_HELD.store(false, Ordering::Relaxed);
    Error::out_of_memory(message)
}

/// The same where that many bytes could not be had.
fn cannot_allocate(bytes: usize) -> Error {
    out_of_memory(format_args!("cannot allocate {bytes} bytes; dispose() of tensors or use a smaller batch"))
}

/// Refuses where that many bytes cannot be had at once: before something allocates them that ends the process without.
pub fn expect_room(bytes: usize) -> Result<()> {
    // Not to be optimised away, as an allocation that nobody uses may be.
    with_capacity::<u8>(black_box(bytes)).map(|room| drop(black_box(room)))
}

/// An empty vector with room for `len` values.
pub fn with_capacity<T>(len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    if len == 0 || size_of::<T>() == 0 {
        return Ok(values);
    }
    failpoint::pass()?;
    values.try_reserve_exact(len).map_err(|_| cannot_allocate(len.saturating_mul(size_of::<T>())))?;
    Ok(values)
}

/// Zeros, which fresh memory need not be filled with.
pub fn zeros<T: Zeroable>(len: usize) -> Result<Vec<T>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    failpoint::pass()?;
    bytemuck::allocation::try_zeroed_vec(len)
        .map_err(|()| cannot_allocate(len.saturating_mul(size_of::<T>())))
}

pub fn copied<T: Copy>(values: &[T]) -> Result<Vec<T>> {
    let mut copy = with_capacity(values.len())?;
    copy.extend_from_slice(values);
    Ok(copy)
}

/// What an iterator yields, as many as its size hint says at least.
pub fn collect<T>(items: impl IntoIterator<Item = T>) -> Result<Vec<T>> {
    let items = items.into_iter();
    let (least, most) = items.size_hint();
    let mut values = with_capacity(least)?;
    if most == Some(least) {
        values.extend(items);
        return Ok(values);
    }
    for item in items {
        push(&mut values, item)?;
    }
    Ok(values)
}

/// The same of an iterator over results, up to the first error.
pub fn try_collect<T>(items: impl ExactSizeIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut values = with_capacity(items.len())?;
    for item in items {
        values.push(item?);
    }
    Ok(values)
}

pub fn push<T>(values: &mut Vec<T>, item: T) -> Result<()> {
    if values.len() == values.capacity() {
        values.try_reserve(1).map_err(|_| cannot_allocate(size_of_val(&values[..]).saturating_mul(2)))?;
    }
    values.push(item);
    Ok(())
}

/// Lets tests make the n-th allocation of a thread fail.
pub mod failpoint {
    use crate::Result;

    #[cfg(feature = "failpoints")]
    thread_local! {
        static LEFT: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
    }

    /// From now on, in this thread, so many allocations are made and every later one fails; `None`: all are made.
    #[cfg(feature = "failpoints")]
    pub fn set(allocations: Option<usize>) {
        LEFT.set(allocations.unwrap_or(usize::MAX));
    }

    /// Counts an allocation.
    #[inline(always)]
    pub fn pass() -> Result<()> {
        #[cfg(feature = "failpoints")]
        match LEFT.get() {
            usize::MAX => {}
            0 => return Err(super::cannot_allocate(0)),
            left => LEFT.set(left - 1),
        }
        Ok(())
    }
}
