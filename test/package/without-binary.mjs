// What a user sees where the binary cannot be loaded: a line for each way of loading, and a program that goes on.
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
for (const load of [() => import('spikenorm'), () => import('spikenorm'), async () => require('spikenorm')]) {
  try {
    await load()
    console.log('it loads')
  } catch (error) {
    console.log(`${error.name} ${error.code}: ${error.message}`)
  }
  // Node reports a promise that nobody awaits at the end of a turn.
  await new Promise((resolve) => setTimeout(resolve, 10))
}
console.log('the program goes on')
