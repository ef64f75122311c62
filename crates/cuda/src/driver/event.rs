//! Marks on a device's stream, to time what lies between two of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::{CudaEvent, sys};
use spikenorm_core::{Result, bail};

use super::stream::Stream;
use super::{Cuda, driver_error};

pub struct Event {
    event: CudaEvent,
    stream: Arc<Stream>,
    is_recorded: AtomicBool,
}

impl Event {
    /// Not recorded yet.
    pub fn new(cuda: &Cuda) -> Result<Self> {
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
        let context = cuda.stream.context();
        let event = context.new_event(Some(flags)).map_err(driver_error("making an event"))?;
        Ok(Self { event, stream: Arc::clone(&cuda.stream), is_recorded: AtomicBool::new(false) })
    }

    /// Marks the end of what has been launched so far; again if it has been recorded before.
    pub fn record(&self) -> Result<()> {
        self.stream
            .submit_outside_captures("recording an event", |_| self.event.record(self.stream.raw()))?;
        self.is_recorded.store(true, Ordering::Release);
        Ok(())
    }

    /// Waits until the device has come to the mark.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.submit_outside_captures("waiting for an event", |_| self.event.synchronize())
    }

    /// Milliseconds of the device from this mark to `end`, which is waited for.
    pub fn elapsed_ms(&self, end: &Self) -> Result<f32> {
        if !Arc::ptr_eq(&self.stream, &end.stream) {
            bail!(
                Device,
                "CUDA: expected events of one device, got one of cuda:{} and one of cuda:{}",
                self.stream.ordinal(),
                end.stream.ordinal()
            );
        }
        for (which, event) in [("start", self), ("end", end)] {
            if !event.is_recorded.load(Ordering::Acquire) {
                bail!(
                    Argument,
                    "{which}: expected an event that has been recorded, got one that has not; call record() first"
                );
            }
        }
        self.stream
            .submit_outside_captures("timing between two events", |_| self.event.elapsed_ms(&end.event))
    }
}
