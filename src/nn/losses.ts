import { SpikenormError } from '../errors.js'
import { native } from '../native.js'
import { Tensor, tensor } from '../tensor.js'

/** What {@link crossEntropy} gives. The gradient is there at once; the rest is read when it is asked for. */
export class LossAndGrad {
  /** Gradient of the loss by the logits, in their shape and dtype: what a net's `backward` takes. */
  readonly grad: Tensor
  readonly #report: Tensor
  #read: [loss: number, correct: number] | undefined

  /** @internal */
  constructor(report: Tensor, grad: Tensor) {
    this.#report = report
    this.grad = grad
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
 * `labels` are N class numbers: an int64 or uint8 tensor `[N]`, or an array. Throws `ERR_SHAPE`, `ERR_DTYPE`, and
 * `ERR_ARGUMENT` for a label that is no class (labels on a CUDA device: when the loss is read; such a sample has no
 * gradient).
 */
export function crossEntropy(logits: Tensor, labels: Tensor | readonly number[]): LossAndGrad {
  if (labels instanceof Tensor) return compute(logits, labels)
  const wrong = Array.isArray(labels) ? labels.find((label) => !Number.isSafeInteger(label)) : labels
  if (wrong !== undefined || !Array.isArray(labels)) {
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `crossEntropy: labels: expected a Tensor or an array of whole numbers, got ${String(wrong)}`,
    )
  }
  const classes = tensor(labels, [labels.length], { dtype: 'int64', device: logits.device })
  try {
    return compute(logits, classes)
  } finally {
    classes.dispose()
  }
}

function compute(logits: Tensor, labels: Tensor): LossAndGrad {
  try {
    const [report, grad] = native.crossEntropy(logits.id, labels.id) as [number, number]
    return new LossAndGrad(new Tensor(report), new Tensor(grad))
  } catch (thrown) {
    throw thrown instanceof SpikenormError ? thrown.within('crossEntropy') : thrown
  }
}
