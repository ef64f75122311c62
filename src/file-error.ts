import { SpikenormError } from './errors.js'

/** What is wrong with the file at `path`. */
export function fileError(path: string, what: string, cause?: unknown): SpikenormError {
  return new SpikenormError('ERR_FILE', `${path}: ${what}`, cause === undefined ? undefined : { cause })
}
