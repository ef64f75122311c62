//! The memory a graph works in. A replay uses the addresses of the capture, so they stay the graph's: what is
//! freed while capturing serves later allocations of the same capture, and nobody else until the graph and
//! every tensor made in it are gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::{CudaContext, result};
use spikenorm_core::Result;

use super::stream::Stream;

/// Sizes up to this one are rounded to powers of two, larger ones to multiples of it.
const LARGE: usize = 2 << 20;
/// What the driver aligns allocations to.
const SMALLEST: usize = 256;

/// Bytes that an allocation of `bytes` takes.
fn size_class(bytes: usize) -> usize {
    if bytes <= LARGE { bytes.next_power_of_two().max(SMALLEST) } else { bytes.next_multiple_of(LARGE) }
}

/// Allocations of the driver, freed together.
struct Allocations {
    context: Arc<CudaContext>,
    addresses: Vec<u64>,
}

impl Drop for Allocations {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            for &address in &self.addresses {
                // SAFETY: allocated by malloc_sync below, freed once; nothing uses it any more (Arena's drop).
                // A failure means that the context is gone, and the memory with it.
                let _ = unsafe { result::free_sync(address) };
            }
        }
    }
}

struct Inside {
    allocations: Allocations,
    /// Free addresses by size class.
    free: HashMap<usize, Vec<u64>>,
    bytes: usize,
}

pub(super) struct Arena {
    /// Weak, because the stream holds what is retired, arenas included.
    stream: Weak<Stream>,
    inside: Mutex<Inside>,
}

impl Arena {
    pub(super) fn new(stream: &Arc<Stream>) -> Self {
        let allocations = Allocations { context: Arc::clone(stream.context()), addresses: Vec::new() };
        let inside = Inside { allocations, free: HashMap::new(), bytes: 0 };
        Self { stream: Arc::downgrade(stream), inside: Mutex::new(inside) }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Inside) -> R) -> R {
        work(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Memory for the capture in progress.
    pub(super) fn take(&self, bytes: usize) -> Result<u64> {
        let class = size_class(bytes);
        if let Some(address) = self.with(|inside| inside.free.get_mut(&class).and_then(Vec::pop)) {
            return Ok(address);
        }
        let Some(stream) = self.stream.upgrade() else {
            spikenorm_core::bail!(Internal, "CUDA: a capture has outlived its stream");
        };
        // SAFETY: the context is bound, and the size is not zero. Allocating is no work of the stream, and a
        // relaxed capture allows it.
        let ask = || stream.submit("allocating memory", |_| unsafe { result::malloc_sync(class) });
        let address = ask().or_else(|_| {
            // The stream cannot be waited for, but what the pool keeps is of no use here.
            stream.trim()?;
            ask().map_err(|error| stream.out_of_memory(error, bytes))
        })?;
        self.with(|inside| {
            inside.allocations.addresses.push(address);
            inside.bytes += class;
        });
        stream.blocks.graphs_take(class);
        Ok(address)
    }

    /// A block made in the capture is no longer used, and serves the rest of it. Once the capture is over nobody
    /// takes anything any more: the graph still writes there.
    pub(super) fn give_back(&self, address: u64, bytes: usize) {
        self.with(|inside| inside.free.entry(size_class(bytes.max(1))).or_default().push(address));
    }

    pub(super) fn bytes(&self) -> usize {
        self.with(|inside| inside.bytes)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let context = self.with(|inside| Arc::clone(&inside.allocations.context));
        let allocations = self.with(|inside| {
            std::mem::replace(&mut inside.allocations, Allocations { context, addresses: Vec::new() })
        });
        // Replays may still be on their way. Where there is no stream any more, or no context, nothing is.
        if let Some(stream) = self.stream.upgrade() {
            stream.blocks.graphs_give_back(self.bytes());
            stream.retire(Box::new(allocations));
        }
    }
}
