// Every golden case, on every dtype it allows, on every device (test/golden/README.md). Further cases of the same
// format can be run by naming their folder in GOLDEN_CASES.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { describeOnDevices } from './support/devices.js'
import { dtypesOf, readCase, runCase } from './support/golden.js'

const folder = process.env.GOLDEN_CASES ?? fileURLToPath(new URL('./golden', import.meta.url))
const cases = readdirSync(folder)
  .filter((file) => file.endsWith('.safetensors'))
  .sort()
  .map((file) => readCase(join(folder, file)))

it('the folder of golden cases holds as many as were handed over', () => {
  expect(cases.length).toBe(process.env.GOLDEN_CASES ? cases.length : 89)
  expect(cases.length).toBeGreaterThan(0)
})

describeOnDevices('golden case', (device) => {
  for (const given of cases) {
    for (const { dtype, errorsOnly } of dtypesOf(given)) {
      const what = errorsOnly ? 'throws the same errors' : 'gives the numbers of SpikingJelly on PyTorch'
      it(`${given.name} in ${dtype} ${what}`, () => runCase(given, dtype, device, errorsOnly))
    }
  }
})
