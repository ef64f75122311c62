//! Threads: how tasks are handed to the cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use spikenorm_core::{Error, ErrorCode, Result, workspace};

/// Work below this many bytes is done on the calling thread: handing it out costs about 5 µs.
pub const SERIAL_BYTES: usize = 128 << 10;
/// How long threads stay awake for what may come next, and the caller waits for them without going to sleep. Waking a
/// sleeping thread takes 50 µs and more on a virtual machine, as long as a small tensor's pass.
const AWAKE: Duration = Duration::from_micros(100);

/// The calling thread, and those that help it.
struct Team {
    threads: usize,
    helpers: ThreadPool,
    /// Counts the calls, so that helpers that stay awake see the next one.
    calls: Arc<AtomicUsize>,
}

static TEAM: RwLock<Option<Arc<Team>>> = RwLock::new(None);

fn build(threads: usize) -> Result<Team> {
    let helpers = ThreadPoolBuilder::new()
        // None would stand for the number of cores.
        .num_threads((threads - 1).max(1))
        .thread_name(|index| format!("spikenorm-{index}"))
        .build()
        .map_err(|error| {
            Error::new(ErrorCode::Argument, format!("cannot start {threads} threads: {error}"))
        })?;
    Ok(Team { threads, helpers, calls: Arc::default() })
}

fn team() -> Result<Arc<Team>> {
    if let Some(team) = &*TEAM.read().unwrap_or_else(PoisonError::into_inner) {
        return Ok(Arc::clone(team));
    }
    set_num_threads(std::thread::available_parallelism().map_or(1, usize::from))?;
    team()
}

/// Number of threads every later operation of this process uses, the calling one included. Changes no result.
pub fn set_num_threads(threads: usize) -> Result<()> {
    if threads == 0 || threads > 1024 {
        return Err(Error::new(
            ErrorCode::Argument,
            format!("setNumThreads: expected 1 to 1024 threads, got {threads}"),
        ));
    }
    *TEAM.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(build(threads)?));
    Ok(())
}

pub fn num_threads() -> Result<usize> {
    Ok(team()?.threads)
}

/// Runs `task` for every item, in parallel when `bytes` of memory traffic make it worth while.
/// Items must be independent; results come back in order, or the first error.
pub fn for_each<I, R>(
    bytes: usize,
    items: Vec<I>,
    task: impl Fn(I) -> Result<R> + Sync + Send,
) -> Result<Vec<R>>
where
    I: Send,
    R: Send,
{
    // One body, whoever calls it.
    let task: &(dyn Fn(I) -> Result<R> + Sync) = &task;
    if bytes < SERIAL_BYTES || items.len() == 1 {
        return workspace::try_collect(items.into_iter().map(task));
    }
    let slots = workspace::collect(items.into_iter().map(|item| Mutex::new((Some(item), None))))?;
    run(slots.len(), &|index| {
        // Nobody else has this index, so the lock is free.
        let mut slot = slots[index].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(item) = slot.0.take() {
            slot.1 = Some(task(item));
        }
    });
    let result = |slot: Mutex<(Option<I>, Option<Result<R>>)>| {
        slot.into_inner().unwrap_or_else(PoisonError::into_inner).1.expect("every index has been run")
    };
    workspace::try_collect(slots.into_iter().map(result))
}

fn run(count: usize, task: &(dyn Fn(usize) + Sync)) {
    // Where no threads can be had, for want of memory, the calling one comes to the same result.
    if let Ok(team) = team()
        && team.threads > 1
    {
        in_parallel(&team, count, task);
    } else {
        (0..count).for_each(task);
    }
}

/// Everyone has a share of neighbouring indices, and takes from the others' when it is done: neighbours touch neighbouring
/// memory, where two threads would be in each other's way.
fn in_parallel(team: &Team, count: usize, task: &(dyn Fn(usize) + Sync)) {
    let threads = count.min(team.threads);
    let helpers = threads - 1;
    let shares: Vec<_> = (0..threads).map(|share| AtomicUsize::new(share * count / threads)).collect();
    let work = |own: usize| {
        for share in (0..threads).map(|i| (own + i) % threads) {
            let end = (share + 1) * count / threads;
            loop {
                let index = shares[share].fetch_add(1, Ordering::Relaxed);
                if index >= end {
                    break;
                }
                task(index);
            }
        }
    };
    let (joined, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let call = team.calls.fetch_add(1, Ordering::Release) + 1;
    team.helpers.in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| {
                work(joined.fetch_add(1, Ordering::Relaxed) + 1);
                finished.fetch_add(1, Ordering::Release);
            });
        }
        work(0);
        // The end of the scope would send this thread to sleep.
        wait_awake(|| finished.load(Ordering::Acquire) == helpers);
    });
    for _ in 0..helpers {
        let calls = Arc::clone(&team.calls);
        team.helpers.spawn(move || wait_awake(|| calls.load(Ordering::Acquire) != call));
    }
}

/// Waits without sleeping, but not for long, and makes way for others.
fn wait_awake(is_over: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_over() && start.elapsed() < AWAKE {
        for _ in 0..16 {
            std::hint::spin_loop();
        }
        std::thread::yield_now();
    }
}
