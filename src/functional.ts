/** Whole-tree operations with SpikingJelly's names. */
import { refuseSurplus } from './arguments.js'
import { expectModule, Module, type StepMode } from './module.js'
import { atomically } from './rollback.js'

/**
 * Puts a net and all below it in a step mode, as `functional.set_step_mode`: all or nothing. Throws `ERR_STEP_MODE` if
 * one module cannot be in it (tdBN and TEBN are always in `'m'`).
 */
export function setStepMode(net: Module, mode: StepMode): void {
  refuseSurplus('setStepMode', arguments, ['net', 'mode'])
  const modules = expectModule('setStepMode', 'net', net).modules()
  for (const module of modules) module.checkStepMode(mode)
  atomically(() => {
    for (const module of modules) module.stepMode = mode
  })
}

/** Restores the initial state of every module and drops pending forwards, as `functional.reset_net`: all or nothing. */
export function resetNet(net: Module): void {
  Module.handDown('reset', expectModule('resetNet', 'net', net).modules())
}

/** Cuts the gradient chain through the state of every module, as `functional.detach_net`; values stay. */
export function detachNet(net: Module): void {
  Module.handDown('detach', expectModule('detachNet', 'net', net).modules())
}
