//! Words that kernels count in: barriers and tickets. They hold zeros before their first use, and every pass
//! leaves them ready for the next one of its stream.

use std::sync::{Arc, Mutex, PoisonError};

use spikenorm_core::Result;

use super::stream::Stream;
use super::{Cuda, DeviceMemory};

type Place = Mutex<Option<Arc<DeviceMemory>>>;

#[derive(Default)]
pub(super) struct Words {
    barriers: Place,
    tickets: Place,
}

impl Words {
    pub(super) fn clear(&self) {
        for place in [&self.barriers, &self.tickets] {
            let held = place.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(held);
        }
    }
}

/// The words in `place`, or larger ones that take their place.
fn at_least(place: &Place, stream: &Arc<Stream>, words: usize) -> Result<Arc<DeviceMemory>> {
    let mut held = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(memory) = held.as_ref()
        && memory.bytes() >= 4 * words
    {
        return Ok(Arc::clone(memory));
    }
    let memory = Arc::new(DeviceMemory::zeroed(stream, 4 * words.next_power_of_two())?);
    *held = Some(Arc::clone(&memory));
    Ok(memory)
}

impl Cuda {
    /// Passes of one stream take turns, so they share the words; a graph has words of its own, which a replay
    /// clears first.
    pub(super) fn barriers(&self, words: usize) -> Result<Arc<DeviceMemory>> {
        match self.stream.capturing()? {
            Some(capture) => at_least(&capture.words.barriers, &self.stream, words),
            None => at_least(&self.words.barriers, &self.stream, words),
        }
    }

    /// The same where all words are tickets.
    pub(super) fn tickets(&self, words: usize) -> Result<Arc<DeviceMemory>> {
        match self.stream.capturing()? {
            Some(capture) => at_least(&capture.words.tickets, &self.stream, words),
            None => at_least(&self.words.tickets, &self.stream, words),
        }
    }
}
