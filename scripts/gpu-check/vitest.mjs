// What the tests ask of vitest, on Node's own test runner, so that they run where there is no npm. scripts/gpu-pack.mjs
// bundles this with vitest's own matchers.

import { after, afterEach, before, beforeEach, describe, it as nodeIt } from 'node:test'
import { format } from 'node:util'
import { JestAsymmetricMatchers, JestChaiExpect, JestExtend } from '@vitest/expect'
import * as chai from 'chai'

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin)

const { expect } = chai
const it = Object.assign((...test) => nodeIt(...test), {
  skip: nodeIt.skip,
  todo: nodeIt.todo,
  skipIf: (condition) => (condition ? nodeIt.skip : nodeIt),
  runIf: (condition) => (condition ? nodeIt : nodeIt.skip),
  each: (rows) => (name, test) => {
    for (const row of rows) {
      const values = Array.isArray(row) ? row : [row]
      nodeIt(format(name, ...values), () => test(...values))
    }
  },
})

export { after as afterAll, afterEach, before as beforeAll, beforeEach, describe, expect, it, it as test }
