/** Makes the compiler's declarations fit for publishing: those that no entry leads to are removed. */
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'

const SPECIFIERS = /(?:\bfrom\s*|\bimport\s*\(\s*|^import\s+)['"](\.[^'"]+)['"]/gm

/** The files that a declaration file names, as declaration files. */
function imports(file) {
  return [...readFileSync(file, 'utf8').matchAll(SPECIFIERS)].map(([, specifier]) =>
    resolve(dirname(file), specifier.replace(/\.js$/, '.d.ts')),
  )
}

/** Users need not have it among their `lib`, and the compiler does not say so by itself. */
const DISPOSABLE = '/// <reference lib="esnext.disposable" />\n'

function referToLibraries(file) {
  const text = readFileSync(file, 'utf8')
  if (text.includes('[Symbol.dispose]')) writeFileSync(file, DISPOSABLE + text)
}

/** Removes every .d.ts below `folder` that cannot be reached from `entries`, and folders that are empty then. */
export function pruneDeclarations(folder, entries) {
  const reached = new Set()
  const waiting = entries.map((entry) => join(folder, entry))
  while (waiting.length > 0) {
    const file = waiting.pop()
    if (reached.has(file)) continue
    if (!existsSync(file)) throw new Error(`declarations: ${file} is named and was not made`)
    if (relative(folder, file).startsWith('..'))
      throw new Error(`declarations: a public type leads out of the package's dist, to ${file}`)
    reached.add(file)
    referToLibraries(file)
    waiting.push(...imports(file))
  }
  const all = readdirSync(folder, { recursive: true, withFileTypes: true })
  for (const entry of all) {
    const path = join(entry.parentPath ?? entry.path, entry.name)
    if (entry.isFile() && entry.name.endsWith('.d.ts') && !reached.has(path)) rmSync(path)
  }
  const folders = all
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
  for (const path of folders.sort().reverse()) if (readdirSync(path).length === 0) rmdirSync(path)
}
