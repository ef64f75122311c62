//! CUDA graphs: what a closure launches is captured once and replayed with one call, on the same memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use cudarc::driver::{DriverError, result, sys};
use spikenorm_core::{Error, ErrorCode, Result, bail};

use super::arena::Arena;
use super::memory::{Block, Source};
use super::stream::{Kept, Stream};
use super::words::Words;
use super::{Cuda, driver_error};

/// A capture in progress.
pub(super) struct Capture {
    pub(super) thread: ThreadId,
    pub(super) arena: Arc<Arena>,
    /// Words that the graph clears at its start; those of the device are used by others between replays.
    pub(super) words: Words,
    /// Memory from outside that the graph uses, by the block: it must stay as long as the graph.
    used: Mutex<HashMap<usize, Arc<Block>>>,
    kept: Mutex<Vec<Kept>>,
    frees: Mutex<Vec<u64>>,
}

impl Capture {
    /// Holds on to something until the graph is gone.
    pub(super) fn keep(&self, kept: Kept) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
    }

    /// Frees memory of the pool when the capture is over.
    pub(super) fn free_later(&self, address: u64) {
        self.frees.lock().unwrap_or_else(PoisonError::into_inner).push(address);
    }

    fn is_made_here(&self, block: &Block) -> bool {
        matches!(&block.source, Source::Arena(arena) if Arc::ptr_eq(arena, &self.arena))
    }
}

impl Stream {
    /// Tells the capture in progress what the work to be submitted uses. Numbers that are no addresses of
    /// blocks do no harm.
    pub(super) fn uses(&self, addresses: impl IntoIterator<Item = u64>) -> Result<()> {
        let Some(capture) = self.capturing()? else { return Ok(()) };
        for address in addresses {
            for block in self.blocks.find(address).into_iter().filter(|block| !capture.is_made_here(block)) {
                let key = Arc::as_ptr(&block) as usize;
                // A block that was held already is dropped after the lock.
                let held = capture.used.lock().unwrap_or_else(PoisonError::into_inner).insert(key, block);
                drop(held);
            }
        }
        Ok(())
    }
}

/// An executable graph. Replays one at a time, which is what its handle demands.
struct Executable(sys::CUgraphExec);

// SAFETY: graphs are used from any thread, one at a time, which the mutex in `Graph` sees to.
unsafe impl Send for Executable {}

impl Drop for Executable {
    fn drop(&mut self) {
        // SAFETY: made by instantiate, destroyed once. The driver lets a replay on its way end.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

/// Captured work. It keeps alive all memory it uses: what was there before the capture, and what the capture
/// allocated. Tensors made in the capture show what the latest replay has left in them.
pub struct Graph {
    executable: Mutex<Executable>,
    stream: Arc<Stream>,
    arena: Arc<Arena>,
    // After the executable: what it uses.
    _used: Vec<Arc<Block>>,
    _kept: Vec<Kept>,
}

impl Graph {
    /// Puts everything captured on the stream again.
    pub fn replay(&self) -> Result<()> {
        if self.stream.capturing()?.is_some() {
            bail!(Cuda, "CUDA: a graph cannot be replayed while another one is captured");
        }
        let executable = self.executable.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the executable is alive, and so is everything it uses.
        self.stream.submit_outside_captures("replaying a graph", |raw| unsafe {
            result::graph::launch(executable.0, raw)
        })
    }

    /// Bytes that were allocated for it.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }
}

/// Ends the capture however the closure is left.
struct Ending<'a>(&'a Cuda);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.cancel_capture();
    }
}

impl Cuda {
    /// Captures what `work` launches on this device. Nothing runs until [`Graph::replay`]; values cannot be
    /// read or written meanwhile, and other threads cannot use the device.
    pub fn capture<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(Graph, T)> {
        self.begin_capture()?;
        let ending = Ending(self);
        let value = work()?;
        std::mem::forget(ending);
        Ok((self.end_capture()?, value))
    }

    /// The first half of [`Self::capture`]; [`Self::end_capture`] or [`Self::cancel_capture`] must follow, on
    /// the same thread.
    pub fn begin_capture(&self) -> Result<()> {
        let stream = &self.stream;
        if stream.capturing()?.is_some() {
            bail!(Cuda, "CUDA: a graph is being captured already; captures do not nest");
        }
        // What is being freed becomes available to the graph.
        stream.synchronize()?;
        let capture = Arc::new(Capture {
            thread: thread::current().id(),
            arena: Arc::new(Arena::new(stream)),
            words: Words::default(),
            used: Mutex::default(),
            kept: Mutex::default(),
            frees: Mutex::default(),
        });
        let mut place = stream.capture.write().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            bail!(Cuda, "CUDA: another thread is capturing a graph on this device; wait until it is done");
        }
        let beginning = || driver_error("beginning a capture");
        stream.context().bind_to_thread().map_err(beginning())?;
        // Other threads may have gone on since. What is on the stream ends before the capture begins: errors of
        // earlier work are not taken for the graph's, and what the capture keeps is used by nothing else.
        stream.raw().synchronize().map_err(beginning())?;
        let relaxed = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is alive and captures nothing.
        unsafe { result::stream::begin_capture(stream.raw().cu_stream(), relaxed) }.map_err(beginning())?;
        *place = Some(capture);
        Ok(())
    }

    /// Whether this thread is capturing a graph on this device.
    pub fn is_capturing(&self) -> bool {
        matches!(self.stream.capturing(), Ok(Some(_)))
    }

    /// What has been captured since [`Self::begin_capture`].
    pub fn end_capture(&self) -> Result<Graph> {
        let (capture, executable) = self.leave_capture(|graph| {
            let flags = sys::CUgraphInstantiate_flags(0);
            // SAFETY: the graph has just been captured; what is made of it is a copy.
            unsafe { result::graph::instantiate(graph, flags) }.map(Executable)
        })?;
        let executable = executable.map_err(driver_error("making a graph"))?;
        let used = std::mem::take(&mut *capture.used.lock().unwrap_or_else(PoisonError::into_inner));
        let kept = std::mem::take(&mut *capture.kept.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Graph {
            executable: Mutex::new(executable),
            stream: Arc::clone(&self.stream),
            arena: Arc::clone(&capture.arena),
            _used: used.into_values().collect(),
            _kept: kept,
        })
    }

    /// Forgets what has been captured by this thread, if anything. Tensors made in the capture keep their memory
    /// and have no values.
    pub fn cancel_capture(&self) {
        // There is none, or none of this thread.
        drop(self.leave_capture(|_| Ok(())));
    }

    /// Ends the capture and makes something of its graph before another capture can begin. The outer error is there
    /// being no capture, the inner one the driver's.
    #[allow(clippy::type_complexity)]
    fn leave_capture<T>(
        &self,
        make: impl FnOnce(sys::CUgraph) -> std::result::Result<T, DriverError>,
    ) -> Result<(Arc<Capture>, std::result::Result<T, DriverError>)> {
        let stream = &self.stream;
        if stream.capturing()?.is_none() {
            return Err(Error::new(ErrorCode::Cuda, "CUDA: no graph is being captured"));
        }
        let mut place = stream.capture.write().unwrap_or_else(PoisonError::into_inner);
        let Some(capture) = place.take() else {
            return Err(Error::new(ErrorCode::Cuda, "CUDA: no graph is being captured"));
        };
        let made = stream.context().bind_to_thread().and_then(|()| {
            // SAFETY: the stream is alive and capturing, on this thread.
            let graph = unsafe { result::stream::end_capture(stream.raw().cu_stream()) }?;
            let made = make(graph);
            // SAFETY: the graph has just been captured, and nothing refers to it any more.
            let _ = unsafe { result::graph::destroy(graph) };
            made
        });
        drop(place);
        capture.words.clear();
        for address in std::mem::take(&mut *capture.frees.lock().unwrap_or_else(PoisonError::into_inner)) {
            stream.free(address);
        }
        Ok((capture, made))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // The memory it uses is freed in stream order; destroying the executable needs the context.
        let _ = self.stream.context().bind_to_thread();
    }
}
