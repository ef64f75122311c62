// `import` and `require` give the same classes, in whatever order.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const byRequire = require('spikenorm')
const byImport = await import('spikenorm')
assert.ok(byRequire.zeros([1]) instanceof byImport.Tensor)
assert.ok(byImport.zeros([1]) instanceof byRequire.Tensor)
assert.deepEqual(Object.keys(byImport).sort(), Object.keys(byRequire).sort())
for (const name of Object.keys(byImport)) assert.equal(byImport[name], byRequire[name], name)
// A state that only one instance has.
byImport.setNumThreads(1)
assert.equal(byRequire.getNumThreads(), 1)
