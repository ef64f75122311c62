// Tests run against src/ itself (no build of the TypeScript is needed), each file in a process of its own:
// the addon's thread count and memory pool are per process, so files must not see each other's settings.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
