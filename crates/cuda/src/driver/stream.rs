//! The stream of a device: everything for the device goes through [`Stream::submit`], which keeps threads
//! from putting work into each other's captures.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
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
    /// With the event after which each may go, oldest first.
    retired: Mutex<VecDeque<(CudaEvent, Kept)>>,
}

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

    fn turn(&self) -> RwLockReadGuard<'_, Option<Arc<Capture>>> {
        self.capture.read().unwrap_or_else(PoisonError::into_inner)
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
        work(self.raw.cu_stream()).map_err(driver_error(what))
    }

    /// Waits until everything submitted so far is done, and reports what went wrong in it.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.submit_outside_captures("waiting for the device", |_| self.raw.synchronize())?;
        self.drop_retired();
        Ok(())
    }

    /// Drops `kept` when the stream has passed what is on it now.
    pub(super) fn retire(&self, kept: Kept) -> Result<()> {
        if let Some(capture) = self.turn().as_ref() {
            // The graph may come to it again and again.
            capture.keep(kept);
            return Ok(());
        }
        let event = self.submit("recording an event", |_| self.raw.record_event(None))?;
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push_back((event, kept));
        self.drop_retired();
        Ok(())
    }

    fn drop_retired(&self) {
        let mut past = Vec::new();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        while retired.front().is_some_and(|(event, _)| event.is_complete()) {
            past.extend(retired.pop_front());
        }
        // What is dropped may come back here.
        drop(retired);
        drop(past);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A failure means that the context is gone, and whatever ran in it.
        let _ = self.raw.synchronize();
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
