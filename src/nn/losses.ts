import { SpikenormError } from '../errors.js'
import { native } from '../native.js'
import { Tensor, tensor } from '../tensor.js'

export interface LossAndGrad {
  loss: number
  /** Gradient of the loss by the logits, in their shape and dtype: what a net's `backward` takes. */
  grad: Tensor
}

/**
 * Cross entropy of softmax logits `[N, K]`, or `[T, N, K]` decoded by their mean over T, averaged over the batch.
 * `labels` are N class numbers: an int64 or uint8 tensor `[N]`, or an array. Throws `ERR_SHAPE`, `ERR_DTYPE`, and
 * `ERR_ARGUMENT` for a label that is no class.
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
  const classes = tensor(labels, [labels.length], { dtype: 'int64' })
  try {
    return compute(logits, classes)
  } finally {
    classes.dispose()
  }
}

function compute(logits: Tensor, labels: Tensor): LossAndGrad {
  try {
    const { loss, grad } = native.crossEntropy(logits.id, labels.id)
    return { loss, grad: new Tensor(grad) }
  } catch (thrown) {
    throw thrown instanceof SpikenormError ? thrown.within('crossEntropy') : thrown
  }
}
