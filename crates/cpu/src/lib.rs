//! The CPU backend: tasks cut by a plan that depends on the shape alone, spread over the cores with
//! rayon, vectorised for the processor found at run time. Results are the same bits for any number of
//! threads, because each task's sums and the order in which they are merged are fixed by the plan.
#![deny(unsafe_code)]

mod backend;
mod block;
mod element;
mod four;
mod kit;
mod matmul;
mod memory;
#[cfg(test)]
mod memory_tests;
mod neu_norm;
mod norm;
mod parallel;
mod pool;
mod simd;
mod stream;
mod tensor_ops;
mod through_float32;
#[cfg(target_arch = "x86_64")]
mod v3;

pub use backend::{Cpu, CpuTensor};
pub use memory::{HostMemory, Lender, Lent, LentMut};
pub use parallel::{num_threads, set_num_threads};
pub use pool::{MemoryStats, empty_cache, memory_stats};
pub use simd::simd_level;
