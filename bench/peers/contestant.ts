// A peer as a contestant: its rounds are run by the Python process.

import type { Device, DType } from 'spikenorm'
import type { LayerName } from '../cases/layers.js'
import type { Shape } from '../cases/shapes.js'
import type { Launch } from '../measure/cuda.js'
import type { Contestant, Round } from '../measure/rounds.js'
import { type PeerName, type PeerProcess, pointless } from './peer.js'

export interface Absent {
  absent: string
}

export interface PeerRequest {
  layer: LayerName
  shape: Shape
  dtype: DType
  device: Device
  threads: number
  sets: number
  launch: Launch
}

class PeerContestant implements Contestant {
  constructor(
    readonly name: string,
    readonly note: string | null,
    private readonly process: PeerProcess,
  ) {}

  async round(): Promise<Round> {
    const reply = await this.process.ask({ do: 'round', key: this.name })
    if (reply.absent) throw new Error(`${this.name}: ${reply.absent}`)
    return reply as unknown as Round
  }

  async dispose(): Promise<void> {
    await this.process.ask({ do: 'drop', key: this.name })
  }
}

/** The contestant, or why this peer has none here. */
export async function preparePeer(
  process: PeerProcess,
  peer: PeerName,
  { shape, ...rest }: PeerRequest,
): Promise<PeerContestant | Absent> {
  const reason = pointless(peer, rest.device)
  if (reason) return { absent: reason }
  const request = { do: 'prepare', kind: 'layer', key: peer, peer, shape: shape.dims, ...rest }
  return await prepared(process, peer, request)
}

/** The same for the steps of the N-API suite. */
export async function prepareSteps(
  process: PeerProcess,
  layer: LayerName,
  dims: readonly number[],
  threads: number,
) {
  const request = { do: 'prepare', kind: 'steps', key: 'spikingjelly', layer, shape: dims, threads }
  return await prepared(process, 'spikingjelly', request)
}

async function prepared(process: PeerProcess, name: string, request: Record<string, unknown>) {
  const reply = await process.ask(request)
  if (reply.absent === undefined)
    return new PeerContestant(name, (reply.note as string | null) ?? null, process)
  // What was made before it failed must not stay for the rest of the run.
  await process.ask({ do: 'drop', key: name })
  return { absent: reply.absent }
}
