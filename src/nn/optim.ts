/** Optimisers and learning-rate schedules, by PyTorch's rules. Reached as `optim`. */
export { Adam, type AdamOptions, AdamW } from './optim/adam.js'
export { CosineAnnealingLR, type CosineAnnealingOptions } from './optim/cosine-annealing-lr.js'
export { Optimizer, type OptimizerOptions } from './optim/optimizer.js'
export { SGD, type SGDOptions } from './optim/sgd.js'
