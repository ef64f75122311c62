// Before anything is measured: threads, devices and the Python process, or a sentence that says what is missing.

import { SpikenormError, setNumThreads, tensor } from 'spikenorm'
import { Context } from './context.js'
import { OptionError, type Options } from './options.js'
import { findPython, PeerError, PeerProcess } from './peers/peer.js'

export async function prepare(options: Options, interruption: AbortSignal): Promise<Context> {
  setNumThreads(options.threads)
  for (const device of options.devices ?? []) {
    try {
      tensor([0], [1], { device }).dispose()
    } catch (error) {
      if (!(error instanceof SpikenormError)) throw error
      throw new OptionError(`--device ${device}: ${error.message}.`)
    }
  }
  return new Context(options, await startPeer(options), interruption)
}

async function startPeer({ peers, python, checkOnly }: Options): Promise<PeerProcess | undefined> {
  if (peers === 'none' || checkOnly) return undefined
  const found = findPython(python)
  if ('reason' in found) throw new OptionError(`--peers: ${found.reason}.`)
  try {
    return await PeerProcess.start(found.python)
  } catch (error) {
    if (!(error instanceof PeerError)) throw error
    throw new OptionError(`--peers: ${error.message}.`)
  }
}
