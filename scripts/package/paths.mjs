/** Paths of the machine that builds: none may be in what is published. */
import { readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, relative, resolve, sep } from 'node:path'

const MOST = 3
const { CARGO_HOME, RUSTUP_HOME } = process.env

function filesBelow(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
}

/** The text around what was found, as far as it can be read. */
const around = (text, at) => text.slice(Math.max(0, at - 40), at + 80).replace(/[^\x20-\x7e]+/g, '…')

/** @returns sentences about files of a staged package that name a folder of this machine */
export function wrongPaths(root, folder) {
  const folders = [root, homedir(), CARGO_HOME, RUSTUP_HOME].filter((path) => path && resolve(path) !== sep)
  const wanted = folders.map((path) => resolve(path) + sep)
  return filesBelow(folder).flatMap((file) => {
    const text = readFileSync(file, 'latin1')
    const found = wanted.map((path) => [path, text.indexOf(path)]).filter(([, at]) => at >= 0)
    return found
      .slice(0, MOST)
      .map(([path, at]) => `${relative(folder, file)} names ${path}: ${around(text, at)}`)
  })
}
