import { argumentError, refuseSurplus } from '../arguments.js'
import type { TypedArray } from '../dtype.js'
import { SpikenormError } from '../errors.js'
import { madeAt, native } from '../native.js'
import { expectTensor, Tensor, tensor } from '../tensor.js'
import { expectAttached, newNumbers } from '../tensor-data.js'

/** What {@link crossEntropy} gives. The gradient is there at once; the rest is read when it is asked for. */
export class LossAndGrad {
  /** Gradient of the loss by the logits, in their shape and dtype: what a net's `backward` takes. */
  readonly grad: Tensor
  readonly #report: Tensor
  #read: [loss: number, correct: number] | undefined

  /** @internal */
  constructor(report: Tensor, grad: Tensor) {
    // Users have this class by name, but crossEntropy makes it.
    this.#report = expectTensor('LossAndGrad', 'report', report)
    this.grad = expectTensor('LossAndGrad', 'grad', grad)
  }

  /**
   * The loss. On a CUDA device the first use waits for it, and throws `ERR_ARGUMENT` where a label was no class; in
   * a captured graph, {@link readLoss} gives that of the latest replay.
   */
  get loss(): number {
    return (this.#read ?? this.#readReport())[0]
  }

  /**
   * How many samples of the batch have their largest logit, the first of equals, at their label: the accuracy
   * without reading the logits back. Waits and throws as {@link loss} does.
   */
  get correct(): number {
    return (this.#read ?? this.#readReport())[1]
  }

  /** Reads the loss, and `correct`, anew: after a replay of the graph they were captured in, those of the replay. */
  readLoss(): number {
    return this.#readReport()[0]
  }

  #readReport(): [number, number] {
    try {
      this.#read = native.lossReport(this.#report.id) as [number, number]
      return this.#read
    } catch (thrown) {
      throw thrown instanceof SpikenormError ? thrown.within('crossEntropy') : thrown
    }
  }
}

/**
 * Cross entropy of softmax logits `[N, K]`, or `[T, N, K]` decoded by their mean over T, averaged over the batch.
 * `labels` are N class numbers: an int64 or uint8 tensor `[N]`, an array, or any typed array. Throws `ERR_SHAPE`, `ERR_DTYPE`,
 * and `ERR_ARGUMENT` for a label that is no class (labels on a CUDA device: when the loss is read; such a sample has no
 * gradient).
 */
export function crossEntropy(logits: Tensor, labels: Labels): LossAndGrad {
  refuseSurplus('crossEntropy', arguments, ['logits', 'labels'])
  expectTensor('crossEntropy', 'logits', logits).idFor('crossEntropy: logits')
  if (labels instanceof Tensor) return compute(logits, expectTensor('crossEntropy', 'labels', labels))
  const classes = tensor(classesOf(labels), { dtype: 'int64', device: logits.device })
  try {
    return compute(logits, classes)
  } finally {
    classes.dispose()
  }
}

/** Class numbers: a tensor, an array or a typed array. */
export type Labels = Tensor | readonly number[] | readonly bigint[] | TypedArray

/** Class numbers in an array or typed array, each of them whole. */
function classesOf(labels: unknown): Float64Array {
  const isTyped = ArrayBuffer.isView(labels) && 'length' in labels
  if (!Array.isArray(labels) && !isTyped) {
    throw argumentError(
      'crossEntropy',
      'labels',
      'a Tensor, an array or a typed array of class numbers',
      labels,
    )
  }
  if (isTyped) expectAttached('crossEntropy: labels', labels as ArrayBufferView)
  const given = labels as ArrayLike<unknown>
  const classes = newNumbers(given.length)
  // Not with find, which passes over what is undefined.
  for (let i = 0; i < given.length; i++) {
    const label = given[i]
    const value = typeof label === 'bigint' ? Number(label) : label
    if (!Number.isSafeInteger(value)) {
      throw argumentError('crossEntropy', 'labels', `a whole number for sample ${i}`, label)
    }
    classes[i] = value as number
  }
  return classes
}

function compute(logits: Tensor, labels: Tensor): LossAndGrad {
  try {
    const made = native.crossEntropy(logits.id, labels.id)
    return new LossAndGrad(new Tensor(madeAt(made, 0)), new Tensor(madeAt(made, 1)))
  } catch (thrown) {
    if (!(thrown instanceof SpikenormError)) throw thrown
    const error = thrown.within('crossEntropy')
    const isFloat = thrown.code === 'ERR_DTYPE' && labels.dtype !== 'int64' && labels.dtype !== 'uint8'
    throw isFloat
      ? error.withAdvice("one class number per sample, not one-hot; convert with labels.to('int64')")
      : error
  }
}
