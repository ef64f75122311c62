/** Opening files to be read, without waiting for anybody. */
import { closeSync, constants, fstatSync, openSync, type Stats, statSync } from 'node:fs'
import { fileError } from './file-error.js'

/** Node has no such flag on Windows, where nothing waits. */
const WITHOUT_WAITING = constants.O_NONBLOCK ?? 0

/**
 * Opens a regular file for as long as `body` runs. Throws `ERR_FILE` for one that cannot be read and for anything else: a
 * FIFO would wait for its writer, and opening a device may do something already.
 */
export function readingRegularFile<R>(path: string, body: (fd: number, size: number) => R): R {
  const fd = orFileError(path, () => {
    expectRegular(path, statSync(path))
    return openSync(path, constants.O_RDONLY | WITHOUT_WAITING)
  })
  try {
    // Once more: it may have been replaced.
    const stats = orFileError(path, () => fstatSync(fd))
    expectRegular(path, stats)
    return body(fd, stats.size)
  } finally {
    closeSync(fd)
  }
}

function orFileError<R>(path: string, body: () => R): R {
  try {
    return body()
  } catch (thrown) {
    if ((thrown as { name?: string }).name === 'SpikenormError') throw thrown
    throw fileError(path, (thrown as Error).message, thrown)
  }
}

function expectRegular(path: string, stats: Stats): void {
  if (stats.isFile()) return
  const kind = stats.isDirectory()
    ? 'a folder'
    : stats.isFIFO()
      ? 'a FIFO'
      : stats.isSocket()
        ? 'a socket'
        : 'a device'
  throw fileError(path, `is ${kind}, not a file`)
}
