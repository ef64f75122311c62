//! Bugs planted in the training kit's kernels.
