/** spikenorm/tfjs: modules as operations of TensorFlow.js. Needs @tensorflow/tfjs-core, a peer dependency. */
export { type Op, type OpOptions, op } from './op.js'
