/**
 * Programs of users, bundled as docs/bundlers.md says: with spikenorm external, and with everything in one file and the
 * binary beside it.
 */
import { copyFileSync, mkdirSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import commonjs from '@rollup/plugin-commonjs'
import { nodeResolve } from '@rollup/plugin-node-resolve'
import * as esbuild from 'esbuild'
import { rollup } from 'rollup'
import * as vite from 'vite'
import webpack from 'webpack'
import { run } from './consumers.mjs'

/** esbuild leaves `require` of Node's own modules in ES modules, where there is none. */
const REQUIRE = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);"

/** Each writes `file` of the program `input`; spikenorm is external unless `isWhole`. */
const BUNDLERS = {
  async esbuild({ folder, input, file, isWhole, isModule }) {
    await esbuild.build({
      absWorkingDir: folder,
      entryPoints: [input],
      outfile: file,
      bundle: true,
      minify: true,
      platform: 'node',
      logLevel: 'error',
      format: isModule ? 'esm' : 'cjs',
      ...(isWhole ? {} : { external: ['spikenorm'] }),
      ...(isWhole && isModule ? { banner: { js: REQUIRE } } : {}),
    })
  },
  async rollup({ folder, input, file, isWhole, isModule }) {
    const bundle = await rollup({
      input: join(folder, input),
      plugins: [nodeResolve({ preferBuiltins: true }), commonjs()],
      external: isWhole ? [] : [/^spikenorm/],
      onwarn: ({ code, message }) => {
        if (code !== 'CIRCULAR_DEPENDENCY') throw new Error(message)
      },
    })
    await bundle.write({ file, format: isModule ? 'es' : 'cjs' })
    await bundle.close()
  },
  async webpack({ folder, input, file, isWhole, isModule }) {
    const external = isModule ? 'module spikenorm' : 'commonjs spikenorm'
    const compiler = webpack({
      context: folder,
      entry: `./${input}`,
      target: 'node20',
      mode: 'production',
      externals: isWhole ? {} : { spikenorm: external },
      output: { path: join(file, '..'), filename: basename(file), module: isModule },
      ...(isModule ? { experiments: { outputModule: true } } : {}),
    })
    const stats = await new Promise((resolve, reject) => {
      compiler.run((error, result) => (error ? reject(error) : resolve(result)))
    })
    await new Promise((resolve) => compiler.close(resolve))
    if (stats.hasErrors() || stats.hasWarnings())
      throw new Error(stats.toString({ all: false, errors: true, warnings: true }))
  },
  async 'Vite SSR'({ folder, input, file, isWhole, isModule }) {
    await vite.build({
      root: folder,
      configFile: false,
      logLevel: 'error',
      ssr: isWhole ? { noExternal: true } : {},
      build: {
        ssr: input,
        outDir: relative(folder, join(file, '..')),
        emptyOutDir: false,
        rollupOptions: { output: { format: isModule ? 'es' : 'cjs', entryFileNames: basename(file) } },
      },
    })
  },
}

/**
 * @param project a folder in which the package is installed
 * @returns claims, each with its problems
 */
export async function useBundlers({ root, project, work, binary, node }) {
  const results = []
  for (const [name, bundle] of Object.entries(BUNDLERS)) {
    for (const kind of ['mjs', 'cjs']) {
      const input = `bundled.${kind}`
      copyFileSync(join(root, 'test', 'package', input), join(project, input))
      for (const isWhole of [false, true]) {
        const where = isWhole ? 'in one file with the binary beside it' : 'external'
        const claim = `${name}, ${kind === 'mjs' ? 'ES modules' : 'CommonJS'}: ${where}`
        const label = `${name.replace(' ', '-')}-${kind}`.toLowerCase()
        // A bundle alone lies where no node_modules is above it.
        const folder = isWhole ? join(work, 'bundles', label) : join(project, 'bundles', label)
        mkdirSync(folder, { recursive: true })
        const file = join(folder, `program.${kind}`)
        const problems = []
        try {
          await bundle({ folder: project, input, file, isWhole, isModule: kind === 'mjs' })
          if (isWhole) problems.push(...withoutBinary(run(node, [basename(file)], folder), file))
          if (isWhole) copyFileSync(binary, join(folder, basename(binary)))
          const { isGood, output } = run(node, [basename(file)], folder)
          if (!isGood) problems.push(output || 'it failed and said nothing')
        } catch (error) {
          problems.push(error.stack ?? String(error))
        }
        results.push([claim, problems])
      }
    }
  }
  return results
}

/** What a bundle says whose binary was left behind. */
function withoutBinary({ isGood, output }, file) {
  if (isGood) return [`${basename(file)} runs without the binary: it was found elsewhere`]
  return ['mark spikenorm as external', 'to the folder of the bundle']
    .filter((words) => !output.includes(words))
    .map((words) => `without the binary: '${words}' is not in: ${output}`)
}
