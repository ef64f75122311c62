// Saving loses nothing: all or nothing whatever goes wrong, by whatever kind of path, for names that can be read back.

import { spawn, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { describe, expect, it, onTestFinished } from 'vitest'
import {
  BatchNorm2d,
  loadSafetensors,
  loadSafetensorsMetadata,
  saveSafetensors,
  tensor,
} from '../src/index.js'
import { expectCode } from './support/compare.js'

const isUnix = process.platform !== 'win32'
const isRoot = process.getuid?.() === 0

function emptyFolder(): string {
  const folder = fs.mkdtempSync(join(tmpdir(), 'spikenorm-save-'))
  onTestFinished(() => fs.rmSync(folder, { recursive: true, force: true }))
  return folder
}

const dict = (value: number) => ({ a: tensor([value], [1]) })
const valueIn = (path: string) => loadSafetensors(path).a!.item()

/** A program that has the library as S. */
const program = (body: string) => [
  ...['--import', import.meta.resolve('tsx'), '--input-type=module', '-e'],
  `import * as S from ${JSON.stringify(new URL('../src/index.ts', import.meta.url).href)}\n${body}`,
]

describe.skipIf(!isUnix)('a file that is replaced', () => {
  it('keeps its mode, and a new one has that of the umask', () => {
    const folder = emptyFolder()
    for (const mode of [0o600, 0o640, 0o664, 0o755, 0o4711]) {
      const path = join(folder, `${mode}`)
      fs.writeFileSync(path, 'old')
      fs.chmodSync(path, mode)
      saveSafetensors(path, dict(2))
      expect([fs.statSync(path).mode & 0o7777, valueIn(path)]).toEqual([mode, 2])
    }
    const before = process.umask()
    saveSafetensors(join(folder, 'new'), dict(1))
    expect(fs.statSync(join(folder, 'new')).mode & 0o777).toBe(0o666 & ~before)
  })

  it.skipIf(!isRoot)('keeps its owner and group', () => {
    const path = join(emptyFolder(), 'owned')
    fs.writeFileSync(path, 'old')
    fs.chownSync(path, 1234, 5678)
    fs.chmodSync(path, 0o4750)
    saveSafetensors(path, dict(2))
    const { uid, gid, mode } = fs.statSync(path)
    expect([uid, gid, mode & 0o7777]).toEqual([1234, 5678, 0o4750])
  })

  it.skipIf(isRoot)('must be one that may be written to', () => {
    const path = join(emptyFolder(), 'protected')
    fs.writeFileSync(path, 'old', { mode: 0o444 })
    expectCode('ERR_FILE', () => saveSafetensors(path, dict(2)), path)
    expect(fs.readFileSync(path, 'utf8')).toBe('old')
  })

  it('is written through symbolic links, absolute, relative, in a chain and to nothing yet', () => {
    const folder = emptyFolder()
    fs.mkdirSync(join(folder, 'runs'))
    fs.writeFileSync(join(folder, 'runs', 'real'), 'old')
    fs.symlinkSync('runs/real', join(folder, 'relative'))
    fs.symlinkSync(join(folder, 'runs', 'real'), join(folder, 'absolute'))
    fs.symlinkSync('../relative', join(folder, 'runs', 'chain'))
    fs.symlinkSync('runs/new', join(folder, 'dangling'))
    const links = { relative: 'real', absolute: 'real', 'runs/chain': 'real', dangling: 'new' }
    Object.entries(links).forEach(([link, target], i) => {
      saveSafetensors(join(folder, link), dict(i))
      expect(fs.lstatSync(join(folder, link)).isSymbolicLink(), link).toBe(true)
      expect(valueIn(join(folder, 'runs', target)), link).toBe(i)
    })
    fs.symlinkSync('loop', join(folder, 'loop'))
    expectCode('ERR_FILE', () => saveSafetensors(join(folder, 'loop'), dict(1)), 'loop')
    expect(fs.readdirSync(folder).sort()).toEqual(['absolute', 'dangling', 'loop', 'relative', 'runs'])
  })

  it('may have the longest of names, and none that is a path of one name', () => {
    const folder = emptyFolder()
    const name = 'x'.repeat(255)
    saveSafetensors(join(folder, name), dict(3))
    expect(valueIn(join(folder, name))).toBe(3)
    const { status, stderr } = spawnSync(
      process.execPath,
      program(`S.saveSafetensors('here', { a: S.ones([1]) })`),
      {
        cwd: folder,
        encoding: 'utf8',
      },
    )
    expect([status, stderr]).toEqual([0, ''])
    expect(valueIn(join(folder, 'here'))).toBe(1)
  })

  it('must be a regular file: FIFOs, sockets, folders and devices stay what they are', async () => {
    const folder = emptyFolder()
    const path = (name: string) => join(folder, name)
    spawnSync('mkfifo', [path('fifo')])
    fs.mkdirSync(path('folder'))
    fs.symlinkSync('fifo', path('link'))
    const server = createServer().listen(path('socket'))
    await new Promise((resolve) => server.once('listening', resolve))
    const kinds: Record<string, string> = {
      fifo: 'a FIFO',
      link: 'a FIFO',
      folder: 'a folder',
      socket: 'a socket',
    }
    if (spawnSync('mknod', [path('device'), 'c', '1', '3']).status === 0) kinds.device = 'a device'
    try {
      for (const [name, kind] of Object.entries(kinds)) {
        const before = fs.lstatSync(path(name))
        expectCode('ERR_FILE', () => saveSafetensors(path(name), dict(1)), `is ${kind}, not a file`)
        const after = fs.lstatSync(path(name))
        expect([after.ino, after.mode]).toEqual([before.ino, before.mode])
      }
      expect(fs.readdirSync(folder).sort()).toEqual(Object.keys(kinds).sort())
    } finally {
      server.close()
    }
  })
})

describe('names that could not be read back', () => {
  it('are refused, and the file stays as it is', () => {
    const path = join(emptyFolder(), 'net.safetensors')
    saveSafetensors(path, dict(1))
    const names = ['__metadata__', '\ud800', 'a\udfff', '\udc00\ud800']
    for (const name of names) {
      expectCode(
        'ERR_ARGUMENT',
        () => saveSafetensors(path, { ...dict(2), [name]: tensor([3], [1]) }),
        'saveSafetensors',
      )
    }
    expectCode('ERR_ARGUMENT', () =>
      saveSafetensors(path, { '\ud800': tensor([3], [1]), '\ud801': tensor([3], [1]) }),
    )
    const many = tensor([3], [1])
    expectCode(
      'ERR_ARGUMENT',
      () => saveSafetensors(path, { ['x'.repeat(100_000_001)]: many }),
      'format allows',
    )
    expect(valueIn(path)).toBe(1)
  })

  it('are none of these', () => {
    const path = join(emptyFolder(), 'net.safetensors')
    const names = [
      '',
      ' ',
      'a.b',
      '\0',
      '\u001b',
      '"',
      '\\',
      '\u2028',
      '😀',
      '__proto__',
      'constructor',
      'metadata',
      'é',
      'e\u0301',
    ]
    const saved = Object.fromEntries(names.map((name, i) => [name, tensor([i], [1])]))
    saveSafetensors(path, saved)
    const loaded = loadSafetensors(path)
    expect(Object.keys(loaded).sort()).toEqual([...names].sort())
    names.forEach((name, i) => {
      expect(Object.getOwnPropertyDescriptor(loaded, name)?.value.item(), name).toBe(i)
    })
  })

  it('and what is no dict of tensors, is told apart', () => {
    const path = join(emptyFolder(), 'net.safetensors')
    for (const wrong of [
      null,
      undefined,
      7,
      [tensor([1], [1])],
      new Map(),
      new BatchNorm2d(2),
      tensor([1], [1]),
    ]) {
      expectCode('ERR_ARGUMENT', () => saveSafetensors(path, wrong as never), 'dict')
    }
    for (const wrong of [1, null, [1], new BatchNorm2d(2)]) {
      expectCode('ERR_ARGUMENT', () => saveSafetensors(path, { w: wrong as never }), "dict: 'w'", 'Tensor')
    }
    expect(fs.existsSync(path)).toBe(false)
  })
})

describe('a save that does not come to its end', () => {
  it.skipIf(!isUnix)(
    'because of kill -9 leaves a whole file, the old one or the new one',
    async () => {
      const folder = emptyFolder()
      const path = join(folder, 'net.safetensors')
      const body = `
      const path = ${JSON.stringify(path)}
      for (let i = 1; ; i++) { S.saveSafetensors(path, { a: S.full([2 ** 23], i) }); process.send(i) }`
      let interrupted = 0
      for (let round = 0; round < 4; round++) {
        const child = spawn(process.execPath, program(body), { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] })
        const saved = await new Promise<number>((resolve) => child.once('message', resolve as () => void))
        expect(saved).toBe(1)
        // While the next one is being written: its temporary file says so.
        const isWriting = () => fs.readdirSync(folder).some((name) => name.endsWith('.tmp'))
        while (!isWriting()) await new Promise((resolve) => setTimeout(resolve, 1))
        const gone = new Promise((resolve) => child.once('exit', resolve))
        child.kill('SIGKILL')
        await gone
        const values = loadSafetensors(path).a!.toTypedArray() as Float32Array
        expect(values.length).toBe(2 ** 23)
        expect(values.every((value) => value === values[0])).toBe(true)
        const left = fs.readdirSync(folder).filter((name) => name !== 'net.safetensors')
        interrupted += left.length
        for (const name of left) fs.rmSync(join(folder, name))
      }
      expect(interrupted).toBeGreaterThan(0)
    },
    60_000,
  )

  it.skipIf(!isUnix)('because the disk is full keeps the old file and leaves nothing beside it', () => {
    const folder = emptyFolder()
    const path = join(folder, 'net.safetensors')
    saveSafetensors(path, dict(1))
    // A limit on files' sizes stands for the disk.
    const run = program(
      `try { S.saveSafetensors(${JSON.stringify(path)}, { a: S.zeros([2 ** 20]) }) } catch (e) { console.log(e.code, e.message) }`,
    )
    const { stdout } = spawnSync('bash', ['-c', 'ulimit -f 64; exec "$0" "$@"', process.execPath, ...run], {
      encoding: 'utf8',
    })
    expect(stdout).toContain(`ERR_FILE ${path}: File too large`)
    expect([valueIn(path), fs.readdirSync(folder)]).toEqual([1, ['net.safetensors']])
  })

  it.skipIf(process.platform !== 'linux')(
    'because memory is short is ERR_OUT_OF_MEMORY or works, since nothing is copied',
    () => {
      const path = join(emptyFolder(), 'net.safetensors')
      // The addon alone: what reads TypeScript needs more address space than this.
      const root = fileURLToPath(new URL('..', import.meta.url))
      const binary = join(root, fs.readdirSync(root).find((name) => name.endsWith('.node'))!)
      const body = `
        import { createRequire } from 'node:module'
        const native = createRequire(${JSON.stringify(binary)})(${JSON.stringify(binary)})
        const take = (bytes) => native.tensorFull([bytes], 0, 'uint8', 'cpu')
        const t = take(1e8), held = []
        for (let n = 2 ** 27; n >= 2 ** 20;) try { held.push([take(n), n]) } catch { n /= 2 }
        for (let left = 2e7; left > 0;) { const [handle, n] = held.pop(); left -= n; native.free(handle) }
        native.emptyCache('cpu')
        try { native.saveSafetensors(${JSON.stringify(path)}, ['t'], [t], {}); console.log('saved') } catch (e) { console.log(e.code) }`
      const limit = ['--as=3200000000', process.execPath, '--input-type=module', '-e', body]
      const { stdout, signal } = spawnSync('prlimit', limit, { encoding: 'utf8', timeout: 60_000 })
      expect(signal).toBeNull()
      expect(['saved', 'ERR_OUT_OF_MEMORY']).toContain(stdout.trim())
    },
    60_000,
  )
})

describe('saving from several threads to one path', () => {
  it('never shows a torn file', async () => {
    const path = join(emptyFolder(), 'net.safetensors')
    const script = fileURLToPath(new URL('./support/worker-save.mjs', import.meta.url))
    saveSafetensors(path, { a: tensor(new Float32Array(100_000), [100_000]) })
    let running = 2
    let failures = 0
    for (const value of [1, 2]) {
      new Worker(script, { workerData: { path, value, count: 40 } }).on('message', (failed: number) => {
        failures += failed
        running--
      })
    }
    let reads = 0
    while (running > 0) {
      await new Promise(setImmediate)
      const { a } = loadSafetensors(path)
      const values = a!.toTypedArray() as Float32Array
      expect(values.every((value) => value === values[0])).toBe(true)
      a!.dispose()
      reads++
    }
    expect([failures, reads > 1]).toEqual([0, true])
    expect(loadSafetensorsMetadata(path)).toEqual({ format: 'pt' })
  }, 60_000)
})
