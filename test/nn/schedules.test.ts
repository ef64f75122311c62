// The cosine schedule is PyTorch's recursion, and an interrupted training goes on with the same bits.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  BatchNorm1d,
  full,
  loadSafetensors,
  manualSeed,
  nn,
  optim,
  saveSafetensors,
  type Tensor,
  tensor,
} from '../../src/index.js'
import { expectClose, expectCode } from '../support/compare.js'
import { SCHEDULE } from '../support/tolerances.js'

const folder = mkdtempSync(join(tmpdir(), 'schedules-'))
afterAll(() => rmSync(folder, { recursive: true }))

const optimizer = (lr: number) => new optim.SGD(new nn.Linear(1, 1).parameters(), { lr })

function rates(
  lr: number,
  options: optim.CosineAnnealingOptions,
  steps: number,
  hand: Record<number, number> = {},
) {
  const sgd = optimizer(lr)
  const schedule = new optim.CosineAnnealingLR(sgd, options)
  return Array.from({ length: steps }, (_, i) => {
    schedule.step()
    expect(schedule.getLastLr()).toEqual([sgd.lr])
    sgd.lr = hand[i + 1] ?? sgd.lr
    return sgd.lr
  })
}

describe('CosineAnnealingLR', () => {
  // From PyTorch's published recurrence (torch.optim.lr_scheduler.CosineAnnealingLR.get_lr), in float64.
  it('goes down to etaMin, and up again as PyTorch', () => {
    const want = [
      0.09045084971874738, 0.06545084971874737, 0.03454915028125263, 0.009549150281252633, 0,
      0.009549150281252628, 0.03454915028125265, 0.06545084971874741, 0.09045084971874744,
      0.10000000000000006, 0.09045084971874746, 0.06545084971874743,
    ]
    expectClose('lr', rates(0.1, { tMax: 5 }, 12), want, SCHEDULE)
  })

  it('goes on from a rate that was set by hand', () => {
    const want = [
      0.08828427124746191, 0.05, 0.028786796564403576, 0.02, 0.0317157287525381, 0.06000000000000001,
    ]
    expectClose('lr', rates(0.1, { tMax: 4, etaMin: 0.02 }, 6, { 2: 0.05 }), want, SCHEDULE)
  })

  it('left alone is the closed form', () => {
    const want = Array.from({ length: 30 }, (_, i) => 0.2 + 0.3 * (1 + Math.cos((Math.PI * (i + 1)) / 7)))
    expectClose('lr', rates(0.8, { tMax: 7, etaMin: 0.2 }, 30), want, SCHEDULE)
  })

  it('of one step goes to etaMin and back', () => {
    expect(rates(1, { tMax: 1 }, 4)).toEqual([0, 1, 0, 1])
  })

  it('refuses what is no optimiser, and no tMax', () => {
    expectCode(
      'ERR_ARGUMENT',
      () => new optim.CosineAnnealingLR(new nn.Linear(1, 1) as never, { tMax: 1 }),
      'optimizer',
    )
    expectCode('ERR_ARGUMENT', () => Reflect.construct(optim.CosineAnnealingLR, [optimizer(1)]), 'tMax')
    expectCode('ERR_ARGUMENT', () => new optim.CosineAnnealingLR(optimizer(1), {} as never), 'tMax')
    expectCode(
      'ERR_ARGUMENT',
      () => new optim.CosineAnnealingLR(optimizer(1), { T_max: 5 } as never),
      'tMax?',
    )
    expectCode('ERR_ARGUMENT', () => new optim.CosineAnnealingLR(optimizer(1), 5 as never), '{ tMax: 5 }')
    expectCode(
      'ERR_ARGUMENT',
      () => new optim.CosineAnnealingLR(optimizer(1), { tMax: 5, lastEpoch: 2 } as never),
    )
  })

  it('refuses a state that does not fit, and stays as it was', () => {
    const schedule = new optim.CosineAnnealingLR(optimizer(1), { tMax: 3 })
    schedule.step()
    const state = () => Object.entries(schedule.stateDict()).map(([key, value]) => [key, value.item()])
    const before = state()
    const good = new optim.CosineAnnealingLR(optimizer(0.5), { tMax: 3 }).stateDict()
    const wrong: Record<string, unknown>[] = [
      {},
      { ...good, extra: full([], 1) },
      { ...good, base_lr: undefined },
      { ...good, base_lr: 1 },
      { ...good, base_lr: full([2], 1) },
      { ...good, base_lr: full([], -1) },
      { ...good, last_lr: full([], Number.NaN) },
      { ...good, last_epoch: full([], 1.5) },
    ]
    for (const dict of wrong) {
      expectCode(
        'ERR_STATE_DICT',
        () => schedule.loadStateDict(dict as Record<string, Tensor>),
        'CosineAnnealingLR',
      )
      expect(state()).toEqual(before)
    }
    for (const dict of [undefined, null, 1, 'a'])
      expectCode('ERR_ARGUMENT', () => schedule.loadStateDict(dict as never))
  })
})

describe('a training interrupted half-way', () => {
  const x = tensor(
    Array.from({ length: 24 }, (_, i) => Math.sin(i * i)),
    [8, 3],
  )
  const labels = [0, 1, 1, 0, 1, 0, 0, 1]
  const make = (kind: 'SGD' | 'Adam' | 'AdamW') => {
    manualSeed(3)
    const net = new nn.Sequential(
      new nn.Linear(3, 4),
      new BatchNorm1d(4),
      new nn.LIFNode(),
      new nn.Linear(4, 2),
    )
    const options = kind === 'SGD' ? { lr: 0.1, momentum: 0.9 } : { lr: 0.1 }
    const opt = new optim[kind](net.parameters(), options)
    return { net, opt, schedule: new optim.CosineAnnealingLR(opt, { tMax: 4, etaMin: 0.01 }) }
  }
  const step = ({ net, opt, schedule }: ReturnType<typeof make>) => {
    const { loss, grad } = nn.crossEntropy(net.forward(x), labels)
    net.backward(grad)
    opt.step()
    opt.zeroGrad()
    schedule.step()
    net.reset()
    return loss
  }

  for (const kind of ['SGD', 'Adam', 'AdamW'] as const) {
    for (const order of ['before', 'after'] as const) {
      it(`goes on with the same bits: ${kind}, the schedule's state loaded ${order} the optimiser's`, () => {
        const whole = make(kind)
        const losses = Array.from({ length: 12 }, () => step(whole))
        const first = make(kind)
        for (let i = 0; i < 5; i++) step(first)
        const path = join(folder, `${kind}.safetensors`)
        const under = (prefix: string, dict: Record<string, Tensor>) =>
          Object.fromEntries(Object.entries(dict).map(([key, value]) => [prefix + key, value]))
        saveSafetensors(path, {
          ...under('net.', first.net.stateDict()),
          ...under('opt.', first.opt.stateDict()),
          ...under('schedule.', first.schedule.stateDict()),
        })
        const file = Object.entries(loadSafetensors(path))
        const part = (prefix: string) =>
          Object.fromEntries(
            file
              .filter(([key]) => key.startsWith(prefix))
              .map(([key, value]) => [key.slice(prefix.length), value]),
          )
        const second = make(kind)
        second.net.loadStateDict(part('net.'))
        if (order === 'before') second.schedule.loadStateDict(part('schedule.'))
        second.opt.loadStateDict(part('opt.'))
        if (order === 'after') second.schedule.loadStateDict(part('schedule.'))
        expect(second.schedule.lastEpoch).toBe(5)
        expect(second.schedule.getLastLr()).toEqual(first.schedule.getLastLr())
        expect(Array.from({ length: 7 }, () => step(second))).toEqual(losses.slice(5))
        expect(second.opt.lr).toBe(whole.opt.lr)
      })
    }
  }
})
