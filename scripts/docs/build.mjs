#!/usr/bin/env node
/**
 * `npm run docs`: the reference of every public name as a site in docs-site/. Fails on any warning, a public name
 * without a doc comment among them; `-- --check` looks for warnings and writes nothing.
 */
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { entryPoints, fail, installTools, root } from './tools.mjs'

const arguments_ = process.argv.slice(2)
if (arguments_.includes('--help') || arguments_.includes('-h')) {
  console.log(`Usage: npm run docs [-- --check]

Writes the reference of every public name to docs-site/. Every warning is an error: a public name without a doc
comment, a link to nothing. --check writes nothing.`)
  process.exit(0)
}
const unknown = arguments_.find((argument) => argument !== '--check')
if (unknown !== undefined) {
  console.error(`npm run docs: expected --check or nothing, got '${unknown}'; see npm run docs -- --help`)
  process.exit(2)
}

installTools()
const typedoc = join(
  dirname(createRequire(import.meta.url).resolve('typedoc/package.json')),
  'bin',
  'typedoc',
)
const { status } = spawnSync(
  process.execPath,
  [
    typedoc,
    '--options',
    join(root, 'scripts', 'docs', 'typedoc.json'),
    ...(arguments_.includes('--check') ? ['--emit', 'none'] : []),
    ...entryPoints.map(({ source }) => join(root, source)),
  ],
  { cwd: root, stdio: 'inherit' },
)
if (status !== 0) fail('the reference has the problems above')
