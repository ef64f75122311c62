// Rounds: every contestant runs a few passes, then the next does, until all have enough samples. What disturbs the
// machine for a while so disturbs them all alike.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Direction } from '../cases/layers.js'
import { summarise, type Timing } from './statistics.js'

/** µs of each pass of one round. A contestant without a direction leaves it empty. */
export type Round = Record<Direction, number[]>

export interface Contestant {
  name: string
  round(): Round | Promise<Round>
  dispose(): void | Promise<void>
}

export interface Budget {
  /** Samples of a direction after which a contestant is done. */
  repeats: number
  /** Seconds after which it is done too, once it has run `LEAST_ROUNDS`. */
  seconds: number
}

export type Timings = Partial<Record<Direction, Timing>>

const LEAST_ROUNDS = 3
/** One round of a small tensor has many samples, and what disturbs the machine then disturbs all of them. */
const SAMPLES_OF_A_ROUND = 5
const WARM_UP_ROUNDS = 2
/** Threads of PyTorch's OpenMP go on spinning for about a millisecond after their work; a GPU's does not care. */
export const SETTLE_MS = { cpu: 4, cuda: 0 } as const

interface Tally {
  contestant: Contestant
  samples: Round
  rounds: number
  seconds: number
}

export interface Turns {
  /** Milliseconds to wait between the rounds of different contestants. */
  settle?: number
  /** Rounds of a contestant before the next one's turn. Of several, the first is not counted: it finds a cold cache. */
  rounds?: number
}

export async function alternate(
  contestants: Contestant[],
  budget: Budget,
  { settle = SETTLE_MS.cpu, rounds = 1 }: Turns = {},
): Promise<Map<string, Timings>> {
  const tallies: Tally[] = contestants.map((contestant) => ({
    contestant,
    samples: { forward: [], backward: [] },
    rounds: -WARM_UP_ROUNDS,
    seconds: 0,
  }))
  for (;;) {
    const running = tallies.filter((tally) => !isDone(tally, budget))
    if (running.length === 0) break
    for (const tally of running) {
      if (settle > 0 && tallies.length > 1) await sleep(settle)
      for (let round = 0; round < rounds; round++) await takeRound(tally, round > 0 || rounds === 1)
    }
  }
  return new Map(tallies.map(({ contestant, samples }) => [contestant.name, timingsOf(samples)]))
}

async function takeRound(tally: Tally, counts: boolean): Promise<void> {
  const started = performance.now()
  const round = await tally.contestant.round()
  tally.seconds += (performance.now() - started) / 1000
  if (!counts || ++tally.rounds <= 0) return
  tally.samples.forward.push(...round.forward)
  tally.samples.backward.push(...round.backward)
}

function isDone({ samples, rounds, seconds }: Tally, budget: Budget): boolean {
  if (rounds < LEAST_ROUNDS) return false
  if (seconds >= budget.seconds) return true
  const taken = Math.max(samples.forward.length, samples.backward.length)
  return taken >= budget.repeats && rounds >= budget.repeats / SAMPLES_OF_A_ROUND
}

function timingsOf(samples: Round): Timings {
  const timings: Timings = {}
  if (samples.forward.length > 0) timings.forward = summarise(samples.forward)
  if (samples.backward.length > 0) timings.backward = summarise(samples.backward)
  return timings
}
