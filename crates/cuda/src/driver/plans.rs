//! Plans of the batch norm family. The best one for a shape is looked for once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use spikenorm_core::norm::{CudaPass, CudaPlan, Layout};
use spikenorm_core::{DType, Grid, Result};

use super::Cuda;
use super::memory::alignment;

/// What a plan depends on beside the device.
type Question = (CudaPass, Grid, DType, usize);

/// Plans kept. A net asks for two or three a layer; who trains on samples of ever new lengths would fill memory.
const MOST: usize = 4096;

#[derive(Default)]
pub(super) struct Plans(Mutex<HashMap<Question, Arc<CudaPlan>>>);

impl Cuda {
    /// The plan for a pass over tensors at `addresses`. What a pass allocates is aligned better than any plan asks for.
    pub(super) fn norm_plan(
        &self,
        pass: CudaPass,
        grid: Grid,
        dtype: DType,
        addresses: &[u64],
    ) -> Result<Arc<CudaPlan>> {
        let question = (pass, grid, dtype, alignment(addresses));
        let lock = || self.plans.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = lock().get(&question) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(CudaPlan::new(pass, grid, Layout::Contiguous, dtype, question.3, &self.limits)?);
        let mut plans = lock();
        if plans.len() >= MOST {
            plans.clear();
        }
        plans.insert(question, Arc::clone(&plan));
        Ok(plan)
    }
}
