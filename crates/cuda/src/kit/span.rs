//! How values that do not depend on each other are moved: in vectors where the addresses allow.

use spikenorm_core::DType;

use super::params::Span;
use crate::params::Address;

/// Blocks that share the work of a multiprocessor: eight of 256 threads fill one.
pub const MOST_BLOCKS_PER_MULTIPROCESSOR: usize = 8;

/// Bytes of the widest access.
const WIDEST: usize = 16;

/// A tensor as a kernel sees it.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub address: Address,
    pub dtype: DType,
}

impl Operand {
    pub fn new(address: Address, dtype: DType) -> Self {
        Self { address, dtype }
    }
}

/// Values that fit the widest access.
pub(super) fn widest(dtype: DType) -> usize {
    WIDEST / dtype.size()
}

impl Span {
    /// `count` values of each operand that is there, in packs of `width` where all of them are aligned after the
    /// same number of values.
    pub(super) fn new(count: usize, width: usize, operands: &[Operand]) -> Self {
        let missing = |operand: &Operand| {
            let past = operand.address as usize / operand.dtype.size() % width;
            (width - past) % width
        };
        let mut heads = operands.iter().filter(|operand| operand.address != 0).map(missing);
        let first = heads.next().unwrap_or(0);
        let (head, packs) = match heads.all(|head| head == first) && first <= count {
            true => (first, (count - first) / width),
            false => (0, 0),
        };
        Self { count: count as u64, head: head as u64, packs: packs as u64 }
    }

    /// The same for each of `steps` rows of `count` values: packs only where every row is aligned alike.
    pub(super) fn of_rows(steps: usize, count: usize, width: usize, operands: &[Operand]) -> Self {
        if steps > 1 && !count.is_multiple_of(width) {
            return Self { count: count as u64, head: 0, packs: 0 };
        }
        Self::new(count, width, operands)
    }

    /// Threads that have something to do.
    pub(super) fn items(&self, width: usize) -> usize {
        (self.packs as usize).max(self.count as usize - self.packs as usize * width)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DTYPES: [DType; 6] = DType::ALL;

    proptest! {
        #[test]
        fn packs_are_aligned_in_every_operand_and_the_rest_is_short_where_they_agree(
            count in 0usize..200,
            dtypes in prop::collection::vec(0usize..6, 1..4),
            places in prop::collection::vec(0usize..40, 4),
        ) {
            let operands: Vec<Operand> = dtypes.iter().zip(&places).map(|(&dtype, &place)| {
                let dtype = DTYPES[dtype];
                Operand::new(4096 + (place * dtype.size()) as u64, dtype)
            }).collect();
            let width = operands.iter().map(|operand| widest(operand.dtype)).min().unwrap_or(1);
            let span = Span::new(count, width, &operands);
            let (head, packs) = (span.head as usize, span.packs as usize);
            prop_assert!(head + packs * width <= count);
            if packs > 0 {
                for operand in &operands {
                    let size = operand.dtype.size();
                    let at = operand.address as usize + head * size;
                    prop_assert_eq!(at % (width * size), 0);
                }
            }
            let agree = operands.iter().zip(&places).all(|(_, place)| place % width == places[0] % width);
            if agree && count >= 2 * width {
                prop_assert!(count - packs * width < 2 * width, "{:?}", span);
            }
            prop_assert!(span.items(width) <= count && (count == 0) == (span.items(width) == 0));
        }
    }

    #[test]
    fn rows_of_an_odd_length_are_not_packed() {
        let operand = [Operand::new(4096, DType::F32)];
        assert_eq!(Span::of_rows(1, 7, 4, &operand).packs, 1);
        assert_eq!(Span::of_rows(2, 7, 4, &operand).packs, 0);
        assert_eq!(Span::of_rows(2, 8, 4, &operand).packs, 2);
    }
}
