// Modules for tests: a tree of any modules, and a look at everything a module holds.

import { Module, type Tensor } from '../../src/index.js'
import { expectSameBits } from './compare.js'

/** A container under names of one's choice; forward goes through its parts in order, backward in reverse. */
export class Tree extends Module {
  constructor(readonly parts: Record<string, Module>) {
    super()
    for (const [name, part] of Object.entries(parts)) this.registerModule(name, part)
  }

  protected override computeForward(x: Tensor): Tensor {
    return Object.values(this.parts).reduce((value, part) => part.forward(value), x)
  }

  protected override computeBackward(dy: Tensor): Tensor {
    return Object.values(this.parts).reduceRight((value, part) => part.backward(value), dy)
  }
}

/** Everything about a module that can be seen from outside, values copied. */
export interface Snapshot {
  modes: string[]
  pending: number[]
  state: Record<string, Tensor>
  grads: (Tensor | null)[]
}

export function snapshot(module: Module): Snapshot {
  const modules = module.modules()
  return {
    modes: modules.map(({ training, stepMode }) => `${training ? 'training' : 'eval'} ${stepMode}`),
    pending: modules.map(({ pendingForwards }) => pendingForwards),
    state: module.stateDict(),
    grads: module.parameters().map(({ grad }) => grad?.clone() ?? null),
  }
}

export function expectSameSnapshot(label: string, got: Snapshot, expected: Snapshot): void {
  const show = ({ modes, pending, state }: Snapshot) => JSON.stringify([modes, pending, Object.keys(state)])
  if (show(got) !== show(expected)) throw new Error(`${label}: expected ${show(expected)}, got ${show(got)}`)
  for (const [name, value] of Object.entries(expected.state)) {
    expectSameBits(`${label}: ${name}`, got.state[name] as Tensor, value)
  }
  expected.grads.forEach((value, i) => {
    const other = got.grads[i]
    if ((value === null) !== (other === null)) throw new Error(`${label}: gradient ${i} came or went`)
    if (value && other) expectSameBits(`${label}: gradient ${i}`, other, value)
  })
}
