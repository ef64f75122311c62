//! Device memory: who owns it, where it goes when it is dropped, and which address belongs to what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::result;
use spikenorm_core::{DType, Error, ErrorCode, Result, Tensor, show};

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
    External {
        owner: Option<Kept>,
        /// The block of this library that the memory is part of, which stays as long.
        _allocation: Option<Arc<Block>>,
    },
}

/// Bytes on a device that go together. Graphs that use them hold on to them beside the tensors.
pub(super) struct Block {
    pub(super) address: u64,
    pub(super) bytes: usize,
    pub(super) stream: Arc<Stream>,
    pub(super) source: Source,
}

impl Block {
    fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|offset| offset < self.bytes as u64)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.stream.blocks.remove(self);
        match &mut self.source {
            Source::Pool => self.stream.free(self.address),
            Source::Arena(arena) => arena.give_back(self.address, self.bytes),
            Source::External { owner, .. } => {
                if let Some(owner) = owner.take() {
                    self.stream.retire(owner);
                }
            }
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
    /// Blocks that this library has allocated, by address. None overlaps another.
    allocations: BTreeMap<u64, Weak<Block>>,
    /// Blocks of other owners by address, and to tell those of one address apart, by the block. They may lie
    /// anywhere: over each other, and over the allocations above.
    externals: BTreeMap<(u64, usize), Weak<Block>>,
    allocated: usize,
    peak: usize,
    /// Bytes of all graphs.
    in_graphs: usize,
}

fn external_key(block: &Block) -> (u64, usize) {
    (block.address, std::ptr::from_ref(block) as usize)
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
            if matches!(block.source, Source::External { .. }) {
                registry.externals.insert(external_key(block), Arc::downgrade(block));
            } else {
                registry.allocations.insert(block.address, Arc::downgrade(block));
                registry.allocated += block.bytes;
                registry.peak = registry.peak.max(registry.allocated);
            }
        });
    }

    fn remove(&self, block: &Block) {
        self.with(|registry| {
            if matches!(block.source, Source::External { .. }) {
                registry.externals.remove(&external_key(block));
            } else {
                registry.allocations.remove(&block.address);
                registry.allocated -= block.bytes;
            }
        });
    }

    /// The block of this library that holds an address.
    pub(super) fn find_allocation(&self, address: u64) -> Option<Arc<Block>> {
        let found = self.with(|registry| {
            registry.allocations.range(..=address).next_back().and_then(|(_, block)| block.upgrade())
        })?;
        // A block that is not the one looked for may be dropped here, so not under the lock.
        found.holds(address).then_some(found)
    }

    /// All blocks that hold an address.
    pub(super) fn find(&self, address: u64) -> Vec<Arc<Block>> {
        let mut found = self.with(|registry| {
            let before = registry.externals.range(..=(address, usize::MAX));
            before.filter_map(|(_, block)| block.upgrade()).collect::<Vec<_>>()
        });
        found.retain(|block| block.holds(address));
        found.extend(self.find_allocation(address));
        found
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
        Ok(Tensor::new(DeviceMemory::new(&self.stream, bytes_of(shape, dtype)?)?, shape, dtype))
    }

    pub(super) fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor<DeviceMemory>> {
        Ok(Tensor::new(DeviceMemory::zeroed(&self.stream, bytes_of(shape, dtype)?)?, shape, dtype))
    }
}

/// Bytes of a tensor of that shape; out of memory where no number can say them.
fn bytes_of(shape: &[usize], dtype: DType) -> Result<usize> {
    if shape.contains(&0) {
        return Ok(0);
    }
    let bytes = shape.iter().try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent));
    bytes.ok_or_else(|| {
        let message = format!("CUDA: out of memory: a tensor of shape {} was asked for", show(shape));
        Error::new(ErrorCode::OutOfMemory, message)
    })
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
