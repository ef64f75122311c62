//! Specifications of the training kit: what a spiking net needs around the normalisation layers.
