// The report: one HTML page that needs no network and no script, drawn from the numbers of results.json alone.

import { LABELS, type Results, type RunResult } from '../results.js'
import { COLUMNS } from '../table.js'
import { distributionPlot } from './distributions.js'
import { legend, lineChart, logBars } from './lines.js'
import { rasterPlot } from './raster.js'
import { STYLE } from './style.js'
import { escapeText } from './svg.js'

const CHANCE = 10

export function renderReport(results: Results): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Deep spiking networks, with and without normalisation</title>
<style>${STYLE}</style>
</head>
<body>
<main>
${[header(results), training(results), start(results), distributions(results), rasters(results), notes(results)].join('\n')}
</main>
</body>
</html>
`
}

function header(results: Results): string {
  const { options, images, runs } = results
  const facts: [string, string | number][] = [
    ['layers', options.depth],
    ['T', options.steps],
    ['v_th', options.vth],
    ['epochs', options.epochs],
    ['batch', options.batch],
    ['seed', options.seed],
    ['train / validation / test', `${images.train} / ${images.validation} / ${images.test}`],
    ['device', options.device === 'cpu' ? `${options.threads} CPU threads` : options.device],
    ['time', `${results.seconds.toFixed(0)} s`],
  ]
  const head = COLUMNS.map(
    ({ title, numeric }) => `<th${numeric ? ' class="number"' : ''}>${title}</th>`,
  ).join('')
  return `<h1>Deep spiking networks, with and without normalisation</h1>
<p class="lead">${summary(results)}</p>
${results.interrupted ? '<p class="warning">Ctrl-C ended this run early: the last network may have fewer epochs.</p>' : ''}
<dl>${facts.map(([name, value]) => `<div><dt>${name}</dt><dd>${escapeText(String(value))}</dd></div>`).join('')}</dl>
<h2>Results</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Results"><table><thead><tr>${head}</tr></thead><tbody>${runs.map(row).join('')}</tbody></table></div>
<p class="soft">Test accuracy is that of the weights with the best validation accuracy; a new network that read them from the
file reached the same. First-layer gradient: L2 norm at the first convolution, before training. Last-layer firing: share of
the last layer’s neurons that fire in a time step, after training.</p>`
}

function row(run: RunResult): string {
  const cells = COLUMNS.map(({ numeric, value }, i) => {
    const dot = i === 0 ? `<span class="dot ${run.norm}"></span>` : ''
    return `<td${numeric ? ' class="number"' : ''}>${dot}${escapeText(value(run))}</td>`
  })
  return `<tr>${cells.join('')}</tr>`
}

/** Says only what this run's numbers say. */
function summary({ options, runs }: Results): string {
  const bare = runs.find((run) => run.norm === 'none')
  const normed = runs.filter((run) => run.norm !== 'none').map((run) => run.testAccuracy)
  const net = `${options.depth} layers of spiking neurons, T = ${options.steps}`
  const low = Math.min(...normed).toFixed(1)
  const high = Math.max(...normed).toFixed(1)
  const reach = normed.length > 1 ? `between ${low} and ${high}\u00a0%` : `${high}\u00a0%`
  const guess = bare && bare.testAccuracy < 2 * CHANCE ? `, where guessing gives about ${CHANCE}\u00a0%` : ''
  const without =
    bare &&
    `Without a norm the network reads ${bare.testAccuracy.toFixed(1)}\u00a0% of the test digits${guess}.`
  const withNorm =
    normed.length > 0 && `${bare ? 'With one, the same network reads' : 'The network reads'} ${reach}.`
  return [`${net}.`, without, withNorm].filter(Boolean).join(' ')
}

function training({ images, runs }: Results): string {
  const chart = (title: string, drawn: string) => `<figure><h3>${title}</h3>${drawn}</figure>`
  return `<h2>Training</h2>
<p>Both axes are logarithmic, so that nets which read nearly everything lie apart. Points of one epoch stand side by side.</p>
${legend(runs.map((run) => run.norm))}
<div class="grid-of-two">
${chart(
  'Test images read wrong, %',
  lineChart({
    description: 'Share of test images read wrong by epoch, logarithmic',
    x: 'epoch',
    lines: runs.map(({ norm, epochs }) => ({
      norm,
      values: epochs.map((epoch) => 100 - epoch.testAccuracy),
    })),
    // Half an image: no image lies at the bottom.
    least: 50 / images.test,
    format: (value) => String(Math.round(value * 10) / 10),
  }),
)}
${chart(
  'Training loss',
  lineChart({
    description: 'Training loss by epoch, logarithmic',
    x: 'epoch',
    lines: runs.map(({ norm, epochs }) => ({ norm, values: epochs.map((epoch) => epoch.loss) })),
    least: 1e-4,
    format: (value) => String(Math.round(value * 1000) / 1000),
  }),
)}
</div>`
}

function start({ runs }: Results): string {
  return `<h2>Before training: where the signal goes</h2>
<p>The same initial weights in every network, one batch of training images. Where fewer and fewer neurons fire from layer to
layer there is nothing left to classify, and next to no gradient finds its way back to the first layer.</p>
${legend(runs.map((run) => run.norm))}
<div class="grid-of-two">
<figure><h3>Neurons that fire in a time step, %</h3>${lineChart({
    description: 'Firing rate by layer before training',
    x: 'layer',
    lines: runs.map(({ norm, start }) => ({ norm, values: start.firingRates.map((rate) => 100 * rate) })),
    format: (value) => String(Math.round(value * 10) / 10),
  })}</figure>
<figure><h3>Gradient that reaches the first layer</h3>${logBars(
    'Norm of the gradient of the first convolution before training',
    'L2 norm, logarithmic',
    runs.map(({ norm, start }) => ({ norm, value: start.gradientNorm })),
  )}</figure>
</div>`
}

function distributions({ options, runs }: Results): string {
  const layer = runs[0]?.probe.layer ?? 0
  const figures = runs.map(
    ({ norm, probe }) =>
      `<figure><h3>${LABELS[norm]}</h3>${distributionPlot(norm, probe, options.vth)}</figure>`,
  )
  return `<h2>What reaches the neurons</h2>
<p>Input currents of layer ${layer} of ${options.depth} by time step, in the trained networks on test images. Filled: what the
neurons get. Dashed: what the convolution gives, which is what they would get without the norm. The upright line is the firing
threshold; each curve has a height of its own, the same at all time steps.</p>
<div class="grid-of-two">${figures.join('\n')}</div>`
}

function rasters({ options, runs }: Results): string {
  const figures = runs.map(
    ({ norm, probe }) =>
      `<figure><h3>${LABELS[norm]}</h3>${rasterPlot(norm, probe.raster, options.steps)}</figure>`,
  )
  return `<h2>Spikes of the last layer</h2>
<p>One test image of each digit in the trained networks: a row is a neuron (16 channels at two places near the middle of the
image), a column a time step, a mark a spike.</p>
<div class="grid-of-two">${figures.join('\n')}</div>`
}

function notes({ options }: Results): string {
  const { norms, depth, steps, vth, epochs, seed, batch } = options
  const command = `npm run demo -- --norm ${norms.join(',')} --depth ${depth} --steps ${steps} --vth ${vth} --epochs ${epochs} --batch ${batch} --seed ${seed}`
  return `<h2>How to read this</h2>
<ul>
<li>All networks are one network: 3×3 convolutions of 16 channels without bias, LIF neurons (τ = 2, undecayed input, hard
reset, arctangent
surrogate), a linear classifier averaged over time, PyTorch’s default initial weights, Adam at 0.002 with a cosine schedule.
Only the norm differs.</li>
<li>The claim is that normalisation makes a deep spiking network trainable, and that tdBN, which scales to α · v_th, stays
trainable when the threshold changes (try <code>--norm batchnorm,tdbn --vth 3</code>). It is depth that makes the network need
a norm: with few layers it learns without one too (try <code>--norm none --depth 4</code>).</li>
<li>It is no claim that one norm beats another at v_th = 1: on this many test images a per cent is within the noise of the
seed, and there tdBN, which starts from α · v_th = 1, is BatchNorm to the last bit. NeuNorm comes with BatchNorm
here because it normalises spikes, not currents.</li>
</ul>
<p>This run again: <code>${escapeText(command)}</code></p>
<p class="soft">Images: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
CC BY 4.0; the 1,797 images of its test set.</p>`
}
