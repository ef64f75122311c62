//! Device memory: who owns it, where it goes when it is dropped, and which address belongs to what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::result;
use spikenorm_core::{DType, Result, Tensor};

use super::Cuda;
use super::arena::Arena;
use super::stream::{Kept, Stream};

/// Where a block came from, and so where it goes.
pub(super) enum Source {
    /// The driver's stream-ordered pool: freed in stream order.
    Pool,
    /// What a graph works in: given back for the rest of the capture, freed with the graph.
    Arena(Arc<Arena>),
    /// Somebody else's: let go when the stream has passed its last use.
    External(Option<Kept>),
}

/// Bytes on a device that go together. Graphs that use them hold on to them beside the tensors.
pub(super) struct Block {
    pub(super) address: u64,
    pub(super) bytes: usize,
    pub(super) stream: Arc<Stream>,
    pub(super) source: Source,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.stream.blocks.remove(self);
        match &mut self.source {
            Source::Pool => self.stream.free(self.address),
            Source::Arena(arena) => arena.give_back(self.address, self.bytes),
            // Where the event cannot be recorded the context is gone, and nothing runs in it.
            Source::External(kept) => drop(kept.take().map(|kept| self.stream.retire(kept))),
        }
    }
}

/// A block of one device's memory, freed in stream order when it is dropped.
pub struct DeviceMemory(Arc<Block>);

impl DeviceMemory {
    pub(super) fn new(stream: &Arc<Stream>, bytes: usize) -> Result<Self> {
        // Tensors may be empty, allocations may not.
        let size = bytes.max(1);
        let (address, source) = match stream.capturing()? {
            Some(capture) => (capture.arena.take(size)?, Source::Arena(Arc::clone(&capture.arena))),
            None => (stream.allocate(size)?, Source::Pool),
        };
        Ok(Self::of(stream, address, bytes, source))
    }

    pub(super) fn of(stream: &Arc<Stream>, address: u64, bytes: usize, source: Source) -> Self {
        let block = Arc::new(Block { address, bytes, stream: Arc::clone(stream), source });
        stream.blocks.add(&block);
        Self(block)
    }

    pub(super) fn zeroed(stream: &Arc<Stream>, bytes: usize) -> Result<Self> {
        let memory = Self::new(stream, bytes)?;
        if bytes > 0 {
            let address = memory.address();
            stream.submit("clearing memory", |raw| {
                // SAFETY: the memory has just been allocated with that many bytes on this stream.
                unsafe { result::memset_d8_async(address, 0, bytes, raw) }
            })?;
        }
        Ok(memory)
    }

    pub fn address(&self) -> u64 {
        self.0.address
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// The device it is on.
    pub fn ordinal(&self) -> usize {
        self.0.stream.ordinal()
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.0.stream
    }
}

#[derive(Default)]
struct Registry {
    blocks: BTreeMap<u64, Weak<Block>>,
    allocated: usize,
    peak: usize,
    /// Bytes of all graphs.
    in_graphs: usize,
}

/// Every block of a device by its address.
#[derive(Default)]
pub(super) struct Blocks(Mutex<Registry>);

impl Blocks {
    fn with<R>(&self, work: impl FnOnce(&mut Registry) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, block: &Arc<Block>) {
        self.with(|registry| {
            registry.blocks.insert(block.address, Arc::downgrade(block));
            if !matches!(block.source, Source::External(_)) {
                registry.allocated += block.bytes;
                registry.peak = registry.peak.max(registry.allocated);
            }
        });
    }

    fn remove(&self, block: &Block) {
        self.with(|registry| {
            // Another tensor may lie over the same external memory.
            if registry.blocks.get(&block.address).is_some_and(|held| std::ptr::eq(held.as_ptr(), block)) {
                registry.blocks.remove(&block.address);
            }
            if !matches!(block.source, Source::External(_)) {
                registry.allocated -= block.bytes;
            }
        });
    }

    /// The block that holds an address.
    pub(super) fn find(&self, address: u64) -> Option<Arc<Block>> {
        let found = self.with(|registry| {
            registry.blocks.range(..=address).next_back().and_then(|(_, block)| block.upgrade())
        })?;
        // A block that is not the one looked for may be dropped here, so not under the lock.
        (address - found.address < found.bytes as u64).then_some(found)
    }

    /// Bytes in use now, and the most at any time.
    pub(super) fn usage(&self) -> (usize, usize) {
        self.with(|registry| (registry.allocated, registry.peak))
    }

    pub(super) fn graphs_take(&self, bytes: usize) {
        self.with(|registry| registry.in_graphs += bytes);
    }

    pub(super) fn graphs_give_back(&self, bytes: usize) {
        self.with(|registry| registry.in_graphs -= bytes);
    }

    pub(super) fn in_graphs(&self) -> usize {
        self.with(|registry| registry.in_graphs)
    }

    pub(super) fn reset_peak(&self) {
        self.with(|registry| registry.peak = registry.allocated);
    }
}

impl Cuda {
    /// New tensor with unspecified values.
    pub fn empty(&self, shape: &[usize], dtype: DType) -> Result<Tensor<DeviceMemory>> {
        let count: usize = shape.iter().product();
        Ok(Tensor::new(DeviceMemory::new(&self.stream, count * dtype.size())?, shape, dtype))
    }

    pub(super) fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor<DeviceMemory>> {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Ok(Tensor::new(DeviceMemory::zeroed(&self.stream, bytes)?, shape, dtype))
    }
}

/// Where a tensor's first element lies.
pub(super) fn address(x: &Tensor<DeviceMemory>) -> u64 {
    x.memory.address() + (x.offset * x.dtype.size()) as u64
}

/// The same for one that may be absent.
pub(super) fn address_of(x: Option<&Tensor<DeviceMemory>>) -> u64 {
    x.map_or(0, address)
}

/// Largest power of two, up to 16, that divides all addresses.
pub(super) fn alignment(addresses: &[u64]) -> usize {
    1 << addresses.iter().fold(16, |all, address| all | address).trailing_zeros()
}
