//! NeuNorm's kernels, emulated, against the recurrence written out.

use crate::support::case::{grid, small_device};
use crate::support::emulator::{SCHEDULES, emulator};
use crate::support::neu_norm::NeuNormCase;
use spikenorm_core::DType;
use spikenorm_core::norm::Layout;

#[test]
fn forward_and_backward_match_the_recurrence_in_every_dtype_and_layout() {
    let Some(emulator) = emulator() else { return };
    let shapes =
        [grid(3, 5, 6, 49), grid(2, 3, 5, 1), grid(4, 2, 1, 16), grid(1, 4, 40, 12), grid(2, 7, 300, 4)];
    let mut count = 0;
    for shape in shapes {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            for layout in [Layout::Contiguous, Layout::ChannelsLast] {
                count += 1;
                let case = NeuNormCase {
                    grid: shape,
                    layout,
                    dtype,
                    shared: count % 3 == 0,
                    carried: count % 2 == 0,
                    offset: if count % 5 == 0 { dtype.size() } else { 0 },
                };
                let result = case.check(emulator, &small_device(64, 16 << 10), SCHEDULES);
                result.unwrap_or_else(|why| panic!("{why}\n{case:?}"));
            }
        }
    }
}
