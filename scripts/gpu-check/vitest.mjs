// What the tests ask of vitest, on Node's own test runner, so that they run where there is no npm. scripts/gpu-pack.mjs
// bundles this with vitest's own matchers.

import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { JestAsymmetricMatchers, JestChaiExpect, JestExtend } from '@vitest/expect'
import * as chai from 'chai'

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin)

const { expect } = chai

export { after as afterAll, afterEach, before as beforeAll, beforeEach, describe, expect, it, it as test }
