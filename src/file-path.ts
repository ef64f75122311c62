/** Paths of files, as every function that takes one reads them. */
import { fileURLToPath } from 'node:url'
import { argumentError } from './arguments.js'
import { SpikenormError } from './errors.js'

/** A `file:` URL, such as `new URL('net.pt', import.meta.url)`. */
export interface FileURL {
  /** The whole URL. */
  readonly href: string
  /** `'file:'` */
  readonly protocol: string
}

/** Where a file is: a path, or a `file:` URL. */
export type FilePath = string | FileURL

/** @returns the path that was given. Throws `ERR_ARGUMENT` for anything else, other URLs among them. */
export function pathOf(where: string, path: unknown): string {
  const text = typeof path === 'string' ? path : pathOfUrl(where, path)
  if (/[\0\p{Surrogate}]/u.test(text)) {
    throw argumentError(where, 'path', 'text without NUL characters and lone surrogates', text)
  }
  return text
}

function pathOfUrl(where: string, url: unknown): string {
  const { href, protocol } = (url ?? {}) as Partial<FileURL>
  // By its properties: realms (workers, vm, jsdom) have URL classes of their own.
  if (typeof href !== 'string' || typeof protocol !== 'string') {
    throw argumentError(where, 'path', 'a string or a file: URL', url)
  }
  try {
    return fileURLToPath(href)
  } catch (thrown) {
    const reason = (thrown as Error).message
    throw new SpikenormError('ERR_ARGUMENT', `${where}: path: expected a file: URL: ${reason}`, {
      cause: thrown,
    })
  }
}
