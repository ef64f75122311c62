//! Threads and SIMD: how tasks are handed to the cores, and how a loop gets compiled for the
//! instruction set found at run time.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use spikenorm_core::{Error, ErrorCode, Result};

/// Work below this many bytes is done on the calling thread: waking the others costs about 5 µs.
pub const SERIAL_BYTES: usize = 128 << 10;

static POOL: RwLock<Option<Arc<ThreadPool>>> = RwLock::new(None);
static ARCH: OnceLock<pulp::Arch> = OnceLock::new();

fn build(threads: usize) -> Result<Arc<ThreadPool>> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("spikenorm-{index}"))
        .build()
        .map(Arc::new)
        .map_err(|error| Error::new(ErrorCode::Argument, format!("cannot start {threads} threads: {error}")))
}

fn thread_pool() -> Result<Arc<ThreadPool>> {
    if let Some(pool) = &*POOL.read().unwrap_or_else(PoisonError::into_inner) {
        return Ok(Arc::clone(pool));
    }
    set_num_threads(std::thread::available_parallelism().map_or(1, usize::from))?;
    thread_pool()
}

/// Number of threads every later operation of this process uses. Changes no result.
pub fn set_num_threads(threads: usize) -> Result<()> {
    if threads == 0 || threads > 1024 {
        return Err(Error::new(
            ErrorCode::Argument,
            format!("setNumThreads: expected 1 to 1024 threads, got {threads}"),
        ));
    }
    *POOL.write().unwrap_or_else(PoisonError::into_inner) = Some(build(threads)?);
    Ok(())
}

pub fn num_threads() -> Result<usize> {
    Ok(thread_pool()?.current_num_threads())
}

/// Runs `task` for every item, in parallel when `bytes` of memory traffic make it worth while.
/// Items must be independent; results come back in order.
pub fn for_each<I, R>(bytes: usize, items: Vec<I>, task: impl Fn(I) -> R + Sync + Send) -> Result<Vec<R>>
where
    I: Send,
    R: Send,
{
    if bytes < SERIAL_BYTES || items.len() < 2 {
        return Ok(items.into_iter().map(task).collect());
    }
    let pool = thread_pool()?;
    if pool.current_num_threads() == 1 {
        return Ok(items.into_iter().map(task).collect());
    }
    let slots: Vec<_> = items.into_iter().map(|item| Mutex::new((Some(item), None))).collect();
    in_parallel(&pool, slots.len(), &|index| {
        // Nobody else has this index, so the lock is free.
        let mut slot = slots[index].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(item) = slot.0.take() {
            slot.1 = Some(task(item));
        }
    });
    let result = |slot: Mutex<(Option<I>, Option<R>)>| {
        slot.into_inner().unwrap_or_else(PoisonError::into_inner).1.expect("every index has been run")
    };
    Ok(slots.into_iter().map(result).collect())
}

/// Rayon's part, compiled once: for each of the callers it would be a fifth of the binary.
fn in_parallel(pool: &ThreadPool, count: usize, task: &(dyn Fn(usize) + Sync)) {
    pool.install(|| (0..count).into_par_iter().for_each(task));
}

/// Defines a function whose body is compiled once for every instruction set (AVX2 or NEON, and the baseline) and
/// dispatched at run time.
///
/// Only what is inlined into the body profits, so what it calls in its loops is `#[inline(always)]`. This is a macro
/// because a closure or a function passed as a value keeps the baseline's code: neither is inlined where it is called
/// from two places.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$life:lifetime $(, $generic:ident: $bound:ident)*>(
        $($arg:ident: $type:ty),+ $(,)?
    ) $(-> $output:ty)? { $($body:tt)* }) => {
        $(#[$meta])*
        $vis fn $name<$life $(, $generic: $bound)*>($($arg: $type),+) $(-> $output)? {
            struct Call<$life $(, $generic: $bound)*> {
                $($arg: $type),+
            }
            impl<$life $(, $generic: $bound)*> pulp::NullaryFnOnce for Call<$life $(, $generic)*> {
                type Output = $crate::parallel::vectorized!(@output $($output)?);
                #[inline(always)]
                fn call(self) -> Self::Output {
                    let Self { $($arg),+ } = self;
                    $($body)*
                }
            }
            $crate::parallel::arch().dispatch(Call { $($arg),+ })
        }
    };
    (@output $output:ty) => { $output };
    (@output) => { () };
}
pub(crate) use vectorized;

pub fn arch() -> pulp::Arch {
    *ARCH.get_or_init(pulp::Arch::new)
}

/// Name of the instruction set chosen at run time.
pub fn simd_level() -> &'static str {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => "NEON",
        _ => "baseline",
    }
}
