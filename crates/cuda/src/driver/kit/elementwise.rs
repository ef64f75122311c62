//! Fill, copy, sum.

use spikenorm_core::{Result, Tensor, bail};

use crate::driver::memory::address;
use crate::driver::{Cuda, DeviceMemory};
use crate::kit::{Operand, elementwise};

fn operand(x: &Tensor<DeviceMemory>) -> Operand {
    Operand::new(address(x), x.dtype)
}

/// Whether bytes are part of both tensors, though not as the same value. By address: tensors over memory of
/// another owner may lie anywhere.
fn entangled(a: &Tensor<DeviceMemory>, b: &Tensor<DeviceMemory>) -> bool {
    let same = address(a) == address(b) && a.dtype == b.dtype;
    let (first, second) = (address(a), address(b));
    !same && first < second + b.bytes() as u64 && second < first + a.bytes() as u64
}

impl Cuda {
    pub fn fill(&self, x: &Tensor<DeviceMemory>, value: f64) -> Result<()> {
        self.launch_any(elementwise::fill(operand(x), x.len(), value, &self.limits))
    }

    /// `target = source`, rounded once where dtypes differ. In place.
    pub fn copy(&self, target: &Tensor<DeviceMemory>, source: &Tensor<DeviceMemory>) -> Result<()> {
        expect_len(target, source)?;
        let source = self.apart(target, source)?;
        if target.dtype != source.dtype {
            let (to, from) = (operand(target), operand(&source));
            return self.launch_any(elementwise::cast(to, from, target.len(), &self.limits));
        }
        if target.is_empty() || address(target) == address(&source) {
            return Ok(());
        }
        self.copy_bytes(address(target), address(&source), target.bytes())
    }

    /// `target += source`, equal dtypes. In place.
    pub fn accumulate(&self, target: &Tensor<DeviceMemory>, source: &Tensor<DeviceMemory>) -> Result<()> {
        expect_len(target, source)?;
        source.expect_dtype("source", target.dtype)?;
        let source = self.apart(target, source)?;
        let (to, from) = (address(target), address(&source));
        self.launch_any(elementwise::add(to, [to, from], target.dtype, target.len(), &self.limits)?)
    }

    /// `a + b`, equal shapes and dtypes.
    pub fn add(&self, a: &Tensor<DeviceMemory>, b: &Tensor<DeviceMemory>) -> Result<Tensor<DeviceMemory>> {
        b.expect_shape("sum", &a.shape)?;
        b.expect_dtype("sum", a.dtype)?;
        let out = self.empty(&a.shape, a.dtype)?;
        let terms = [address(a), address(b)];
        self.launch_any(elementwise::add(address(&out), terms, a.dtype, a.len(), &self.limits)?)?;
        Ok(out)
    }

    /// `source`, or a copy of it where writing `target` would change values still to be read.
    fn apart(
        &self,
        target: &Tensor<DeviceMemory>,
        source: &Tensor<DeviceMemory>,
    ) -> Result<Tensor<DeviceMemory>> {
        if entangled(target, source) { self.duplicate(source) } else { Ok(source.clone()) }
    }
}

fn expect_len(target: &Tensor<DeviceMemory>, source: &Tensor<DeviceMemory>) -> Result<()> {
    if target.len() != source.len() {
        bail!(Shape, "source: expected {} values as in the target, got {}", target.len(), source.len());
    }
    Ok(())
}
