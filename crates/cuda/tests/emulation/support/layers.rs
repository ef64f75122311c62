//! Convolution and the fully connected layer in float64, written out as loops.

use spikenorm_core::kit::{Conv2dSpec, Frames};

/// Results of a layer with weights.
pub struct LayerResults {
    pub y: Vec<f64>,
    pub dx: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
}

pub struct LayerInputs {
    pub x: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Option<Vec<f64>>,
    pub dy: Vec<f64>,
}

/// Every product of the definition, once: `y[at.0] += w[at.1] · x[at.2]`.
fn results(inputs: &LayerInputs, channel: impl Fn(usize) -> usize, terms: &[[usize; 3]]) -> LayerResults {
    let outputs = inputs.dy.len();
    let bias = inputs.bias.as_deref();
    let channels = (0..outputs).map(&channel).max().map_or(0, |last| last + 1);
    let mut all = LayerResults {
        y: (0..outputs).map(|i| bias.map_or(0.0, |bias| bias[channel(i)])).collect(),
        dx: vec![0.0; inputs.x.len()],
        weight: vec![0.0; inputs.weight.len()],
        bias: vec![0.0; bias.map_or(channels, <[f64]>::len)],
    };
    for &[y, w, x] in terms {
        all.y[y] += inputs.weight[w] * inputs.x[x];
        all.dx[x] += inputs.weight[w] * inputs.dy[y];
        all.weight[w] += inputs.dy[y] * inputs.x[x];
    }
    for (i, dy) in inputs.dy.iter().enumerate() {
        all.bias[channel(i)] += dy;
    }
    all
}

pub fn conv2d(spec: &Conv2dSpec, frames: Frames, inputs: &LayerInputs) -> LayerResults {
    let ([height, width], [rows, columns]) = (frames.input, frames.output);
    let ([kernel_h, kernel_w], [stride_h, stride_w], [padding_h, padding_w]) =
        (spec.window.kernel, spec.window.stride, spec.window.padding);
    let mut terms = Vec::new();
    for n in 0..frames.samples {
        for o in 0..spec.out_channels {
            for (v, h) in (0..rows).flat_map(|v| (0..columns).map(move |h| (v, h))) {
                let y = ((n * spec.out_channels + o) * rows + v) * columns + h;
                for c in 0..spec.in_channels {
                    for (i, j) in (0..kernel_h).flat_map(|i| (0..kernel_w).map(move |j| (i, j))) {
                        let row = (v * stride_h + i).wrapping_sub(padding_h);
                        let column = (h * stride_w + j).wrapping_sub(padding_w);
                        if row < height && column < width {
                            let w = ((o * spec.in_channels + c) * kernel_h + i) * kernel_w + j;
                            terms.push([y, w, ((n * spec.in_channels + c) * height + row) * width + column]);
                        }
                    }
                }
            }
        }
    }
    let plane = frames.output_plane();
    results(inputs, |i| i / plane % spec.out_channels, &terms)
}

pub fn linear(in_features: usize, out_features: usize, inputs: &LayerInputs) -> LayerResults {
    let rows = inputs.x.len() / in_features;
    let mut terms = Vec::new();
    for row in 0..rows {
        for o in 0..out_features {
            let (y, w, x) = (row * out_features + o, o * in_features, row * in_features);
            terms.extend((0..in_features).map(|i| [y, w + i, x + i]));
        }
    }
    results(inputs, |i| i % out_features, &terms)
}
