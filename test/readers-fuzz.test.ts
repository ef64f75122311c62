// A fuzz of the readers of files, for a bounded time: whatever a file holds, it is loaded or refused with a code, soon and in
// bounded memory. SPIKENORM_FUZZ_SECONDS says for how long, SPIKENORM_FUZZ_SEED repeats a run.

import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const seconds = Number(process.env.SPIKENORM_FUZZ_SECONDS ?? 10)
const seed = Number(process.env.SPIKENORM_FUZZ_SEED ?? Date.now() % 2 ** 31)
/** Memory of the process: Node itself and what an input of 64 KiB may take, 64 MiB and 64 times its size, twice over. */
const MOST_MEGABYTES = 800

it(
  `the readers stand ${seconds} seconds of broken files (SPIKENORM_FUZZ_SEED=${seed})`,
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'spikenorm-fuzz-'))
    const script = fileURLToPath(new URL('./fuzz/run.ts', import.meta.url))
    const args = ['--import', import.meta.resolve('tsx'), script, String(seconds), String(seed), folder]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    const [out, err] = [child.stdout, child.stderr].map((stream) => {
      const parts: Buffer[] = []
      stream.on('data', (part: Buffer) => parts.push(part))
      return parts
    }) as [Buffer[], Buffer[]]
    const hung = setTimeout(() => child.kill('SIGKILL'), 1000 * seconds + 40_000)
    const end = await new Promise<string>((resolve) => {
      child.once('close', (code, signal) => resolve(`${signal ?? code}`))
    })
    clearTimeout(hung)
    const left = readdirSync(folder).join()
    const report = `${Buffer.concat(err)}\nSPIKENORM_FUZZ_SEED=${seed}; the input is ${left || 'none'}: its own seed is in its name`
    if (left === '') rmSync(folder, { recursive: true })
    expect(end, report).toBe('0')
    const { inputs, megabytes, outcomes } = JSON.parse(String(Buffer.concat(out)))
    expect(megabytes, report).toBeLessThan(MOST_MEGABYTES)
    // The inputs are of use: some of each are loaded, some are refused.
    expect(inputs, report).toBeGreaterThan(100)
    for (const reader of ['loadSafetensors', 'loadPyTorch', 'loadPyTorchCheckpoint']) {
      expect(outcomes[`${reader}: loaded`], report).toBeGreaterThan(0)
      expect(outcomes[`${reader}: ERR_FILE`], report).toBeGreaterThan(0)
    }
  },
  1000 * seconds + 60_000,
)
