/** Whole-tree operations with SpikingJelly's names. */
import { Module, type StepMode } from './module.js'
import { atomically } from './rollback.js'

/**
 * Puts a net and all below it in a step mode, as `functional.set_step_mode`: all or nothing. Throws `ERR_STEP_MODE` if
 * one module cannot be in it (tdBN and TEBN are always in `'m'`).
 */
export function setStepMode(net: Module, mode: StepMode): void {
  const modules = net.modules()
  for (const module of modules) module.checkStepMode(mode)
  atomically(() => {
    for (const module of modules) module.stepMode = mode
  })
}

/** Restores the initial state of every module and drops pending forwards, as `functional.reset_net`: all or nothing. */
export function resetNet(net: Module): void {
  Module.handDown('reset', net.modules())
}

/** Cuts the gradient chain through the state of every module, as `functional.detach_net`; values stay. */
export function detachNet(net: Module): void {
  Module.handDown('detach', net.modules())
}
