/** `spikenorm doctor`. */
import { parseArguments } from '../arguments.js'
import { UsageError } from '../errors.js'
import { examine } from './examine.js'
import { render } from './render.js'

const HELP = `Says what was found on this machine and whether it works: Node, the addon, the CPU backend, NVIDIA's driver, CUDA devices.

Usage: npx spikenorm doctor [options]

  --json          the same as JSON
  --require-cuda  fail where no CUDA device can be used
  --help, -h      this text

A small forward and backward is run on the CPU and on every CUDA device, and compared. The exit status is 0 if all that
should work does, and 1 if something does not: no addon, a wrong result, a driver that does not start, a device that
fails. A machine without a GPU and a build without kernels are all right, unless --require-cuda is given.
`

export async function run(argv: readonly string[]): Promise<number> {
  const flag = { type: 'boolean' } as const
  const options = { json: flag, 'require-cuda': flag, help: { ...flag, short: 'h' } } as const
  const { values, positionals } = parseArguments(argv, options)
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  if (positionals.length > 0) throw new UsageError(`takes no arguments, got '${positionals[0]}'.`)
  const report = await examine()
  if (values['require-cuda'] && !report.cuda?.usable) {
    const reason = 'no CUDA device can be used, and --require-cuda asks for one'
    const remedy = 'See what is said above of kernels, driver and devices.'
    report.findings.push({ about: 'cuda', level: 'error', reason, remedy })
    report.ok = false
  }
  console.log(values.json ? JSON.stringify(report, null, 2) : render(report))
  return report.ok ? 0 : 1
}
