// What of the benchmark is no measurement: formulas, options, statistics, comparison, plot, the README's table.

import { readdirSync } from 'node:fs'
import { cuda } from 'spikenorm'
import { describe, expect, it } from 'vitest'
import { LAYERS, passBytes } from '../bench/cases/layers.js'
import { bytesOf, parseShape, shapesOf } from '../bench/cases/shapes.js'
import { CopyOnCuda, LAUNCHES, NativeOnCuda } from '../bench/measure/cuda.js'
import { alternate, type Contestant } from '../bench/measure/rounds.js'
import { setCount } from '../bench/measure/sets.js'
import { gigabytesPerSecond, quantile, summarise } from '../bench/measure/statistics.js'
import { HELP, OptionError, parseOptions } from '../bench/options.js'
import { compareRows, comparisonText, geometricMean } from '../bench/report/compare.js'
import { copyDoubt } from '../bench/report/copy.js'
import { panelsOf, renderPlot } from '../bench/report/plot.js'
import { END, linesOf, replaceSummary, START, summary } from '../bench/report/readme.js'
import { FORMAT, type LayerRow, type ResultFile, readResults } from '../bench/report/results.js'
import { bytes, type Column, renderMarkdown, renderTable, short } from '../bench/report/table.js'
import { layerTable, memoryTable, napiTable, scalingTable, trainingTable } from '../bench/report/tables.js'

const time = (median: number, spread = 0.1) => ({
  median,
  q1: median - spread,
  q3: median + spread,
  samples: 50,
})

function row(over: Partial<LayerRow> = {}): LayerRow {
  return {
    ...{ layer: 'tebn', direction: 'forward', shape: '4,32,64,32x32', dtype: 'float32', device: 'cpu' },
    ...{ cache: 'cold', launch: 'call', threads: 2, time: time(100), bytes: 2e6, gigabytesPerSecond: 20 },
    check: { worst: 0.1, of: 'y', against: 'float64 on the CPU' },
    copy: { time: time(80), gigabytesPerSecond: 25 },
    percentOfCopy: 80,
    peers: {
      pytorch: { absent: 'PyTorch has no such layer' },
      spikingjelly: { time: time(400), speedup: 4 },
    },
    ...over,
  } as LayerRow
}

function file(layers: LayerRow[], over: Partial<ResultFile> = {}): ResultFile {
  return {
    format: FORMAT,
    date: '2026-01-02T03:04:05.000Z',
    command: 'npm run bench',
    commit: 'abc',
    machine: { system: 'linux', cpu: 'A & B', cores: 2, cache: 1, memory: 1, gpus: [] },
    versions: { spikenorm: '0.1.0', node: 'v20', python: '3', torch: '2.9', spikingjelly: '2.0.0' },
    threads: 2,
    skipped: [],
    suites: { layers },
    ...over,
  }
}

describe('bytes by formula', () => {
  it('are 2 U forward and 3 U backward for the batch norms', () => {
    for (const layer of ['batchnorm', 'tdbn', 'tebn', 'bntt'] as const) {
      expect(passBytes(layer, 'forward', 1000, 10)).toBe(2000)
      expect(passBytes(layer, 'backward', 1000, 10)).toBe(3000)
    }
  })

  it('are 2 U and the state in both directions for NeuNorm, whose backward needs no input', () => {
    expect(passBytes('neunorm', 'forward', 1000, 10)).toBe(2100)
    expect(passBytes('neunorm', 'backward', 1000, 10)).toBe(2100)
  })

  it('U is the size of the tensor in its dtype', () => {
    expect(bytesOf([4, 32, 64, 32, 32], 'float32')).toBe(4 * 32 * 64 * 1024 * 4)
    expect(bytesOf([4, 256, 512], 'bfloat16')).toBe(4 * 256 * 512 * 2)
  })

  it('10⁹ bytes in a second are 1 GB/s', () => {
    expect(gigabytesPerSecond(1e9, 1e6)).toBe(1)
  })
})

describe('shapes', () => {
  it('are read in one, two and three dimensions', () => {
    expect(parseShape('4,256,512')).toEqual({ name: '4,256,512', dims: [4, 256, 512], spatial: 0 })
    expect(parseShape('4,2,8,16').spatial).toBe(1)
    expect(parseShape('4,32,64,32x16').dims).toEqual([4, 32, 64, 32, 16])
    expect(parseShape('4,4,32,8x14x14').spatial).toBe(3)
  })

  it.each(['', '4,32', '4,32,64,0x2', '4,32,64,1x2x3x4', '4;32;64', '4,a,64'])('%j is refused', (text) => {
    expect(() => parseShape(text)).toThrow(RangeError)
  })

  it('more are measured on CUDA than on the CPU, and each once', () => {
    const names = (device: string) => shapesOf(device, false).map(({ name }) => name)
    expect(names('cuda')).toEqual(expect.arrayContaining(names('cpu')))
    expect(names('cuda').length).toBeGreaterThan(names('cpu').length)
    expect(new Set(names('cuda')).size).toBe(names('cuda').length)
  })
})

describe('options', () => {
  const parse = (...argv: string[]) => parseOptions(argv) as Exclude<ReturnType<typeof parseOptions>, 'help'>

  it('without any, every layer, direction and dtype is measured, without peers', () => {
    const options = parse()
    expect(options.layers).toEqual([...LAYERS])
    expect(options.directions).toEqual(['forward', 'backward'])
    expect(options.dtypes).toEqual(['float64', 'float32', 'float16', 'bfloat16'])
    expect(options).toMatchObject({ suites: ['layers'], peers: 'none', repeats: 50, devices: undefined })
  })

  it('filters are put in the order of the tables, each name once', () => {
    expect(parse('--layer', 'NeuNorm, tdbn,tdbn').layers).toEqual(['tdbn', 'neunorm'])
    expect(parse('--shape', '4,2,8', '--shape', '4,2,8,3x3').shapes?.map(({ name }) => name)).toEqual([
      '4,2,8',
      '4,2,8,3x3',
    ])
    expect(parse('--device', 'cpu,cuda:1').devices).toEqual(['cpu', 'cuda:1'])
    expect(parse('--suite', 'all').suites).toHaveLength(5)
    expect(parse('--peers', 'torch').peers).toBe('usual')
    expect(parse('--peers', 'compile').peers).toEqual(['compile'])
  })

  it('--quick takes fewer samples, unless told otherwise', () => {
    expect(parse('--quick').repeats).toBeLessThan(50)
    expect(parse('--quick', '--repeats', '7').repeats).toBe(7)
  })

  it.each([
    [['--layer', 'groupnorm'], /'groupnorm' is not one of batchnorm/],
    [['--layer', ','], /needs a name/],
    [['--shape', '4,4'], /T,N,C/],
    [['--device', 'gpu'], /cuda:<n>/],
    [['--threads', '0'], /from 1 to/],
    [['--threads', '1.5'], /whole number/],
    [['--seconds', ''], /number/],
    [['--nonsense'], /nonsense/],
  ])('%j is told what is wrong', (argv, message) => {
    expect(() => parseOptions(argv)).toThrow(OptionError)
    expect(() => parseOptions(argv)).toThrow(message)
  })

  it('--help names every option that is understood', () => {
    expect(parseOptions(['--help'])).toBe('help')
    const names =
      'suite layer direction shape dtype device cache peers python threads repeats seconds minutes quick'
    for (const name of [...names.split(' '), 'check-only', 'json', 'plot', 'compare', 'readme'])
      expect(HELP).toContain(`--${name}`)
  })
})

describe('statistics', () => {
  it('median and quartiles lie between neighbours', () => {
    expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5)
    expect(summarise([4, 1, 3, 2, 5])).toEqual({ median: 3, q1: 2, q3: 4, samples: 5 })
    expect(() => summarise([])).toThrow(RangeError)
  })

  it('cold sets outgrow the cache twice over, hot ones are one', () => {
    const cache = 128 * 2 ** 20
    const U = 13 * 2 ** 20
    expect(setCount('cold', 'cuda', U) * 2 * U).toBeGreaterThan(2 * cache)
    expect(setCount('cold', 'cuda', 2 ** 30)).toBe(2)
    expect(setCount('hot', 'cuda', U)).toBe(1)
  })

  it('contestants take turns, rounds of warming up are not counted, and each stops at its own number', async () => {
    const turns: string[] = []
    const contestant = (name: string, us: number, perRound: number): Contestant => ({
      name,
      round() {
        turns.push(name)
        return { forward: new Array(perRound).fill(us), backward: [] }
      },
      dispose() {},
    })
    const timings = await alternate([contestant('a', 1, 2), contestant('b', 2, 1)], {
      repeats: 6,
      seconds: 60,
    })
    expect(turns.slice(0, 6).join('')).toBe('ababab')
    expect(timings.get('a')?.forward).toEqual({ median: 1, q1: 1, q3: 1, samples: 6 })
    expect(timings.get('b')?.forward?.samples).toBe(6)
    expect(timings.get('a')?.backward).toBeUndefined()
  })

  it('samples come from several rounds, however many one has', async () => {
    const round = () => ({ forward: new Array(64).fill(1), backward: [] })
    const timings = await alternate([{ name: 'small', round, dispose() {} }], { repeats: 50, seconds: 60 })
    expect(timings.get('small')?.forward?.samples).toBe(640)
  })
})

describe('comparison', () => {
  it('joins rows of the same measurement and says which differences may be noise', () => {
    const before = [row({ time: time(100, 1) }), row({ dtype: 'float16', time: time(50) })]
    const now = [row({ time: time(80, 1) }), row({ dtype: 'bfloat16' })]
    const [only, ...others] = compareRows(now, before)
    expect(others).toEqual([])
    expect(only?.ratio).toBe(0.8)
    expect(only?.overlap).toBe(false)
    expect(compareRows([row({ time: time(101, 1) })], before)[0]?.overlap).toBe(true)
  })

  it('tells threads, cache and clock apart', () => {
    for (const other of [{ threads: 1 }, { cache: 'hot' }, { launch: 'graph' }, { direction: 'backward' }]) {
      expect(compareRows([row()], [row(other as Partial<LayerRow>)])).toEqual([])
    }
  })

  it('means ratios geometrically, and says when there is nothing to compare', () => {
    expect(geometricMean([2, 0.5])).toBeCloseTo(1, 12)
    expect(comparisonText(file([row()]), file([row({ time: time(200) })]))).toContain('0.500')
    expect(comparisonText(file([row()]), file([]))).toContain('nothing to compare')
  })
})

describe('tables', () => {
  it('align numbers on the right', () => {
    const columns = [
      { title: 'name', numeric: false, value: ([name]: [string, number]) => name },
      { title: 'n', numeric: true, value: ([, n]: [string, number]) => String(n) },
    ]
    expect(renderTable(columns, [['a', 10]] as [string, number][])).toBe('name   n\n────  ──\na     10')
    expect(renderMarkdown(columns, [['a', 10]] as [string, number][])).toBe(
      '| name | n   |\n| ---- | --- |\n| a    | 10  |',
    )
  })

  const WIDTH = 80
  const tooWide = (text: string) => text.split('\n').filter(({ length }) => length > WIDTH)

  it('break their titles where they would be wider than a terminal', () => {
    const columns = ['one two', 'a long title of words'].map(
      (title): Column<string> => ({ title, numeric: true, value: (value) => value }),
    )
    const wide = { title: 'x'.repeat(60), numeric: false, key: true, value: () => '' }
    expect(renderTable([wide, ...columns], ['1']).split('\n')).toEqual([
      `${' '.repeat(71)}a`,
      `${' '.repeat(68)}long`,
      `${' '.repeat(67)}title`,
      `${' '.repeat(62)}one     of`,
      `${'x'.repeat(60)}  two  words`,
      `${'─'.repeat(60)}  ───  ─────`,
      `${' '.repeat(64)}1      1`,
    ])
  })

  it('go on below themselves where that is not enough, with the key columns once more', () => {
    const columns: Column<number>[] = [
      { title: 'row', numeric: false, key: true, value: (row) => `r${row}` },
      ...Array.from({ length: 9 }, (_, i) => ({
        title: `column${i}-of-the-table`,
        numeric: true,
        value: (row: number) => String(row * i),
      })),
    ]
    const text = renderTable(columns, [1, 2])
    expect(tooWide(text)).toEqual([])
    const blocks = text.split('\n\n').map((block) => block.split('\n'))
    expect(blocks.length).toBeGreaterThan(1)
    for (const block of blocks)
      expect(block.map((line) => line.slice(0, 3))).toEqual(['row', '───', 'r1 ', 'r2 '])
    for (let i = 0; i < 9; i++) expect(text.split(`column${i}-`)).toHaveLength(2)
  })

  it('fit into 80 columns for every result there is, and so does the help', () => {
    const folder = new URL('../bench/results/', import.meta.url)
    const files = readdirSync(folder).filter((name) => name.endsWith('.json'))
    expect(files.length).toBeGreaterThan(2)
    for (const name of files) {
      const results = readResults(new URL(name, folder).pathname)
      const { layers = [], napi, scaling, memory, training } = results.suites
      const caseOf = ({ device, shape, dtype, cache, launch }: LayerRow) =>
        [device, shape, dtype, cache, launch].join()
      const tables = [...new Set(layers.map(caseOf))].map((key) =>
        layerTable(layers.filter((row) => caseOf(row) === key)),
      )
      if (napi) tables.push(napiTable(napi))
      if (scaling) tables.push(scalingTable(scaling))
      if (memory) tables.push(memoryTable(memory))
      if (training) tables.push(trainingTable(training))
      if (layers.length > 0) tables.push(comparisonText(results, results))
      for (const table of tables) expect(tooWide(table), name).toEqual([])
    }
    expect(tooWide(HELP)).toEqual([])
  })

  it('show no percentage of a copy that cannot be right, and say why', () => {
    const slow = row({ percentOfCopy: 8400, copy: { time: time(8000), gigabytesPerSecond: 0.066 } })
    const table = layerTable([slow, row({ direction: 'backward' })])
    expect(table).toMatch(/forward .* +\? /)
    expect(table).toMatch(/backward .* +80 /)
    expect(table).toContain('copy 25.0 GB/s')
    expect(table).toContain('  ? the copy was slower than the layer')
    expect(table).not.toContain('8400')
    expect(layerTable([slow])).toContain('no copy to compare with')
    expect(layerTable([row()])).not.toContain('?')
    expect(panelsOf([slow, row()])[0]?.copySpeed).toBe(25)
    expect(panelsOf([slow])[0]?.copySpeed).toBeNull()
    expect(renderPlot([slow], '')).not.toMatch(/NaN|Infinity|null/)
    const fast = { time: time(0), gigabytesPerSecond: Number.POSITIVE_INFINITY }
    expect(copyDoubt(row({ percentOfCopy: 0, copy: fast }))).toContain('faster than memory')
    expect(copyDoubt(row({ copy: { time: time(1), gigabytesPerSecond: 2000 } }))).toContain('faster')
    expect(copyDoubt(row({ device: 'cuda:0', copy: { time: time(1), gigabytesPerSecond: 4000 } }))).toBeNull()
    const summarised = summary(file([slow, row({ direction: 'backward' })]), 'plot.svg')
    expect(summarised).toContain('| ?, 80 ')
  })

  it('show three digits that matter', () => {
    expect([0.12345, 1.2345, 12.345, 123.45].map(short)).toEqual(['0.123', '1.23', '12.3', '123'])
    expect(bytes(2_500_000)).toBe('2.50 MB')
  })

  it('say why a peer has no number', () => {
    const table = layerTable([row()])
    expect(table).toContain('4.00×')
    expect(table).toContain('– pytorch: PyTorch has no such layer')
  })
})

describe('plot', () => {
  it('has a panel for each shape, dtype and cache, and a bar for ours and each peer that ran', () => {
    const panels = panelsOf([row(), row({ direction: 'backward' }), row({ dtype: 'float16' })])
    expect(panels.map(({ groups }) => groups.length)).toEqual([2, 1])
    expect(panels[0]?.groups[0]?.bars).toEqual([
      { name: 'spikenorm', speed: 20 },
      { name: 'spikingjelly', speed: 5 },
    ])
  })

  it('is SVG in which lengths are to scale and text is escaped', () => {
    const svg = renderPlot([row()], 'A & B')
    expect(svg).toContain('A &#38; B')
    const widths = [...svg.matchAll(/<rect x="190"[^>]*width="([\d.]+)"/g)].map(([, width]) => Number(width))
    expect(widths).toHaveLength(2)
    expect(widths[0]! / widths[1]!).toBeCloseTo(4, 1)
  })
})

describe('the summary in the README', () => {
  const both = [row(), row({ direction: 'backward', time: time(150), percentOfCopy: 70 })]

  it('pairs forward and backward of the cold measurement', () => {
    expect(linesOf([...both, row({ cache: 'hot' })])).toHaveLength(1)
    const text = summary(file(both), 'bench/results/cpu.svg')
    expect(text).toContain('100, 150')
    expect(text).toContain('80, 70')
    expect(text).toContain('–, –')
    expect(text).toContain('SpikingJelly 2.0.0')
  })

  it('replaces what stands between the markers and nothing else', () => {
    const text = `before\n${START}\nold\n${END}\nafter`
    expect(replaceSummary(text, `${START} new ${END}`)).toBe(`before\n${START} new ${END}\nafter`)
    expect(replaceSummary('a\n\n## Status\n', 'TABLE')).toBe('a\n\n## Speed\n\nTABLE\n\n## Status\n')
    expect(() => replaceSummary('nothing', '')).toThrow(/neither/)
  })
})

describe('contestants on CUDA', () => {
  const shape = parseShape('2,2,8')
  const options = { dtype: 'float32', device: 'cuda' } as const

  for (const launch of LAUNCHES) {
    it.skipIf(!cuda.isAvailable())(`a round by ${launch} has a time for each direction`, () => {
      const ours = new NativeOnCuda(launch, 'bntt', shape, options, 2)
      const copy = new CopyOnCuda(launch, shape, options, 2)
      for (let round = 0; round < 3; round++) {
        const { forward, backward } = ours.round()
        expect(forward).toHaveLength(1)
        expect(backward).toHaveLength(1)
        expect(Math.min(...forward, ...backward, ...copy.round().forward)).toBeGreaterThan(0)
      }
      ours.dispose()
      copy.dispose()
    })
  }
})
