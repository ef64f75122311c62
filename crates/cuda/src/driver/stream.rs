//! The stream of a device: everything for the device goes through [`Stream::submit`], which keeps threads
//! from putting work into each other's captures.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, sys};
use spikenorm_core::{Error, ErrorCode, Result};

use super::capture::Capture;
use super::driver_error;
use super::memory::Blocks;

/// Something that must outlive what is on the stream.
pub(super) type Kept = Box<dyn Any + Send + Sync>;

pub(super) struct Stream {
    raw: Arc<CudaStream>,
    pub(super) blocks: Blocks,
    /// The capture in progress. Held for reading while work is handed to the driver, so that a capture
    /// begins and ends between two pieces of work.
    pub(super) capture: RwLock<Option<Arc<Capture>>>,
    retired: Mutex<Retired>,
}

/// What the stream may still use and nobody else does.
#[derive(Default)]
struct Retired {
    /// With the event after which each may go, oldest first.
    by_event: VecDeque<(CudaEvent, Kept)>,
    /// Where no event could be recorded: each may go after the next wait for the whole stream.
    without_event: Vec<Kept>,
}

/// The right to hand work to the driver: no capture begins or ends meanwhile.
pub(super) type Turn<'a> = RwLockReadGuard<'a, Option<Arc<Capture>>>;

impl Stream {
    pub(super) fn new(context: &Arc<CudaContext>) -> std::result::Result<Self, DriverError> {
        Ok(Self {
            raw: context.new_stream()?,
            blocks: Blocks::default(),
            capture: RwLock::default(),
            retired: Mutex::default(),
        })
    }

    pub(super) fn raw(&self) -> &Arc<CudaStream> {
        &self.raw
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        self.raw.context()
    }

    pub(super) fn ordinal(&self) -> usize {
        self.context().ordinal()
    }

    fn turn(&self) -> Turn<'_> {
        self.capture.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn in which this thread may do what no capture allows, with the context bound.
    pub(super) fn turn_outside_captures(&self, what: &str) -> Result<Turn<'_>> {
        let turn = self.turn();
        check_thread(turn.as_ref())?;
        if turn.is_some() {
            let message = format!(
                "CUDA: {what}: not possible while a graph is captured: nothing runs, so that no value can cross \
                 between host and device; move it before or after the capture"
            );
            return Err(Error::new(ErrorCode::Cuda, message));
        }
        self.context().bind_to_thread().map_err(driver_error(what))?;
        Ok(turn)
    }

    /// The capture of the calling thread; an error where another thread has one.
    pub(super) fn capturing(&self) -> Result<Option<Arc<Capture>>> {
        let capture = self.turn().clone();
        check_thread(capture.as_ref())?;
        Ok(capture)
    }

    /// Hands work to the driver, in the device's context: runs it, or captures it. `work` must not come back
    /// here, nor drop device memory.
    pub(super) fn submit<T>(
        &self,
        what: &str,
        work: impl FnOnce(sys::CUstream) -> std::result::Result<T, DriverError>,
    ) -> Result<T> {
        let turn = self.turn();
        check_thread(turn.as_ref())?;
        self.context().bind_to_thread().map_err(driver_error(what))?;
        work(self.raw.cu_stream()).map_err(driver_error(what))
    }

    /// The same for what no capture allows.
    pub(super) fn submit_outside_captures<T>(
        &self,
        what: &str,
        work: impl FnOnce(sys::CUstream) -> std::result::Result<T, DriverError>,
    ) -> Result<T> {
        let _turn = self.turn_outside_captures(what)?;
        work(self.raw.cu_stream()).map_err(driver_error(what))
    }

    /// Hands over work that uses `host`, which is dropped when the stream has passed the work, whatever fails.
    pub(super) fn submit_with<H: Any + Send + Sync>(
        &self,
        what: &str,
        host: Box<H>,
        work: impl FnOnce(sys::CUstream, &H) -> std::result::Result<(), DriverError>,
    ) -> Result<()> {
        let turn = self.turn_outside_captures(what)?;
        // An error may be that of earlier work, with this one on the stream all the same.
        let outcome = work(self.raw.cu_stream(), &host);
        self.keep_until_passed(host);
        drop(turn);
        self.drop_retired();
        outcome.map_err(driver_error(what))
    }

    /// Hands over work that uses memory of the host and waits for it in the same turn: in between, another
    /// thread might begin a capture, which forbids waiting.
    pub(super) fn submit_and_wait(
        &self,
        what: &str,
        work: impl FnOnce(sys::CUstream) -> std::result::Result<(), DriverError>,
    ) -> std::result::Result<(), Unfinished> {
        let not_begun = |error| Unfinished { error, may_run: false };
        let turn = self.turn_outside_captures(what).map_err(not_begun)?;
        let handed_over = work(self.raw.cu_stream());
        // A wait that fails is tried once more: only a device that is lost fails both.
        let first = self.raw.synchronize();
        let last = if first.is_ok() { Ok(()) } else { self.raw.synchronize() };
        drop(turn);
        self.drop_retired();
        handed_over
            .and(first)
            .map_err(|error| Unfinished { error: driver_error(what)(error), may_run: last.is_err() })
    }

    /// Waits until everything submitted so far is done, and reports what went wrong in it.
    pub(super) fn synchronize(&self) -> Result<()> {
        let what = "waiting for the device";
        let turn = self.turn_outside_captures(what)?;
        let passed = std::mem::take(&mut self.retired().without_event);
        let outcome = self.raw.synchronize().map_err(driver_error(what));
        drop(turn);
        match outcome {
            Ok(()) => drop(passed),
            Err(_) => self.retired().without_event.extend(passed),
        }
        self.drop_retired();
        outcome
    }

    /// Drops `kept` when the stream has passed what is on it now.
    pub(super) fn retire(&self, kept: Kept) {
        let turn = self.turn();
        match turn.as_ref() {
            // The graph may come to it again and again; what was on the stream before the capture is done.
            Some(capture) => capture.keep(kept),
            None => self.keep_until_passed(kept),
        }
        drop(turn);
        self.drop_retired();
    }

    /// Keeps something until the next wait for the whole stream succeeds, where nothing tells when it is passed.
    pub(super) fn keep_until_waited(&self, kept: Kept) {
        self.retired().without_event.push(kept);
    }

    /// The turn is the caller's, outside of captures.
    fn keep_until_passed(&self, kept: Kept) {
        let event = self.context().bind_to_thread().and_then(|()| self.raw.record_event(None));
        match event {
            Ok(event) => self.retired().by_event.push_back((event, kept)),
            Err(_) => self.keep_until_waited(kept),
        }
    }

    fn retired(&self) -> MutexGuard<'_, Retired> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_retired(&self) {
        let mut past = Vec::new();
        let mut retired = self.retired();
        while retired.by_event.front().is_some_and(|(event, _)| event.is_complete()) {
            past.extend(retired.by_event.pop_front());
        }
        // What is dropped may come back here.
        drop(retired);
        drop(past);
    }
}

/// Work on the host's memory that failed.
pub(super) struct Unfinished {
    pub(super) error: Error,
    /// Whether the device may still use the memory.
    pub(super) may_run: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.raw.synchronize().is_err() {
            // The context is gone, and whether its work has ended is unknown.
            std::mem::forget(std::mem::take(&mut *self.retired()));
        }
    }
}

fn check_thread(capture: Option<&Arc<Capture>>) -> Result<()> {
    match capture {
        Some(capture) if capture.thread != thread::current().id() => Err(Error::new(
            ErrorCode::Cuda,
            "CUDA: another thread is capturing a graph on this device; wait until it is done",
        )),
        _ => Ok(()),
    }
}
