//! The parameter structs of kernels/kit_params.h.

use bytemuck::NoUninit;
use std::mem::{offset_of, size_of};

use crate::params::Address;

/// How `count` values are moved: one by one up to `head`, then `packs` vectors, then one by one again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct Span {
    pub count: u64,
    pub head: u64,
    pub packs: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct ElementwiseParams {
    pub a: Address,
    pub b: Address,
    pub out: Address,
    pub value: f64,
    pub span: Span,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct NeuronParams {
    pub input: Address,
    pub out: Address,
    pub state: Address,
    pub state_out: Address,
    pub voltages: Address,
    pub tau: f64,
    pub threshold: f64,
    pub rest: f64,
    pub slope: f64,
    pub height: f64,
    pub to_input: f64,
    pub to_state: f64,
    pub span: Span,
    pub steps: u64,
    pub charge: u32,
    pub surrogate: u32,
    pub hard_reset: u32,
    pub detach_reset: u32,
}

/// Pairs are `[vertical, horizontal]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct PoolParams {
    pub input: Address,
    pub out: Address,
    pub indices: Address,
    pub planes: u64,
    pub share: f64,
    pub size: [u32; 2],
    pub output: [u32; 2],
    pub kernel: [u32; 2],
    pub stride: [u32; 2],
    pub padding: [u32; 2],
    pub index_bytes: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct LossParams {
    pub logits: Address,
    pub labels: Address,
    pub grad: Address,
    pub report: Address,
    pub losses: Address,
    pub ticket: Address,
    pub steps: u64,
    pub samples: u64,
    pub classes: u64,
    pub label_bytes: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct SgdParams {
    pub parameter: Address,
    pub grad: Address,
    pub momentum: Address,
    pub lr: f64,
    pub decay: f64,
    pub keep: f64,
    pub take: f64,
    pub look_ahead: f64,
    pub span: Span,
    pub nesterov: u32,
    pub first: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct AdamParams {
    pub parameter: Address,
    pub grad: Address,
    pub first_moment: Address,
    pub second_moment: Address,
    pub step: Address,
    pub ticket: Address,
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub into_grad: f64,
    pub shrink: f64,
    pub span: Span,
}

// The same numbers as in kit_params.h.
const _: () = {
    assert!(size_of::<Span>() == 24);
    assert!(offset_of!(ElementwiseParams, value) == 24);
    assert!(size_of::<ElementwiseParams>() == 56);
    assert!(offset_of!(NeuronParams, tau) == 40);
    assert!(offset_of!(NeuronParams, span) == 96);
    assert!(offset_of!(NeuronParams, charge) == 128);
    assert!(size_of::<NeuronParams>() == 144);
    assert!(offset_of!(PoolParams, share) == 32);
    assert!(offset_of!(PoolParams, index_bytes) == 80);
    assert!(size_of::<PoolParams>() == 88);
    assert!(offset_of!(LossParams, steps) == 48);
    assert!(offset_of!(LossParams, label_bytes) == 72);
    assert!(size_of::<LossParams>() == 80);
    assert!(offset_of!(SgdParams, lr) == 24);
    assert!(offset_of!(SgdParams, nesterov) == 88);
    assert!(size_of::<SgdParams>() == 96);
    assert!(offset_of!(AdamParams, lr) == 48);
    assert!(offset_of!(AdamParams, span) == 96);
    assert!(size_of::<AdamParams>() == 120);
};
