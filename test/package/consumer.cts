// Compiles for a user whose code is CommonJS.
import spikenorm = require('spikenorm')

const norm = new spikenorm.BatchNorm2d(4)
export const y: spikenorm.Tensor = norm.forward(spikenorm.zeros([1, 4, 1, 1]))
export const { Tensor: RequiredTensor } = spikenorm
// @ts-expect-error a step mode is 's' or 'm'
norm.stepMode = 'x'
