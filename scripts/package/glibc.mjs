#!/usr/bin/env node
/**
 * node scripts/package/glibc.mjs 2.17 FILE…: fails where a binary needs a newer glibc than that.
 *
 * The versions of the symbols that a binary asks for stand in its string table, each ended by a zero.
 */
import { readFileSync } from 'node:fs'

const [most, ...files] = process.argv.slice(2)
if (!/^\d+\.\d+$/.test(most ?? '') || files.length === 0) {
  console.error('usage: node scripts/package/glibc.mjs <version, such as 2.17> <file>…')
  process.exit(2)
}

const compare = (a, b) => a[0] - b[0] || a[1] - b[1]
const parse = (version) => version.split('.').map(Number)

let isBad = false
for (const file of files) {
  const found = [...readFileSync(file, 'latin1').matchAll(/\0GLIBC_(\d+\.\d+)(?:\.\d+)?(?=\0)/g)].map(
    ([, version]) => parse(version),
  )
  const newest = found.sort(compare).at(-1)
  if (!newest) {
    console.error(`${file}: asks for no version of glibc; is it a binary for Linux with glibc?`)
    isBad = true
    continue
  }
  const fits = compare(newest, parse(most)) <= 0
  console.log(`${file}: needs glibc ${newest.join('.')}${fits ? '' : `, which is newer than ${most}`}`)
  if (!fits) isBad = true
}
process.exit(isBad ? 1 : 0)
