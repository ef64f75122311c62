// A thread of the team of copy-team.ts, which it waits for without using the processor. Plain JavaScript: a worker does
// not inherit the main thread's way of reading TypeScript.

import { workerData } from 'node:worker_threads'
import { zeros } from 'spikenorm'

const { control, SLOT, COMMAND } = workerData
let seen = 0
let sets = []

const actions = {
  [COMMAND.allocate]() {
    const make = () => zeros([control[SLOT.bytes]], { dtype: 'uint8' })
    sets = Array.from({ length: control[SLOT.sets] }, () => ({ from: make(), to: make() }))
  },
  [COMMAND.copy]() {
    const { from, to } = sets[control[SLOT.set]]
    to.copy_(from)
  },
  [COMMAND.release]() {
    for (const { from, to } of sets) {
      from.dispose()
      to.dispose()
    }
    sets = []
  },
  [COMMAND.exit]() {},
}

for (;;) {
  Atomics.wait(control, SLOT.generation, seen)
  seen = Atomics.load(control, SLOT.generation)
  const command = Atomics.load(control, SLOT.command)
  Atomics.add(control, SLOT.armed, 1)
  while (Atomics.load(control, SLOT.go) === 0);
  actions[command]()
  Atomics.add(control, SLOT.done, 1)
  if (command === COMMAND.exit) break
}
