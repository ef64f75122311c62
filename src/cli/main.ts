#!/usr/bin/env node
import { didYouMean } from '../did-you-mean.js'
import { printable } from '../format-value.js'
import { isAddonError } from '../missing-addon.js'
/**
 * The command `spikenorm`. Each command is loaded when it is asked for, so that `--help`, `--version` and `doctor` work
 * where the addon does not load.
 */
import { Failure, UsageError } from './errors.js'
import { packageOfThis } from './package.js'

/** Runs a command with the arguments behind its name; gives the exit status, unless the command sets it later. */
type Run = (argv: readonly string[]) => Promise<number | undefined>

interface Command {
  summary: string
  load(): Promise<{ run: Run }>
}

const COMMANDS: Record<string, Command> = {
  doctor: {
    summary: 'what was found on this machine, whether it works, and what to do about what does not',
    load: () => import('./doctor/command.js'),
  },
  convert: {
    summary: 'inspect, check, rename, fold and convert the weights in a checkpoint',
    load: () => import('./convert/command.js'),
  },
  bench: {
    summary: 'measure every layer, beside memory copies and beside PyTorch and SpikingJelly',
    load: () => import('./bench.js'),
  },
}

const EXIT_FAILURE = 1
const EXIT_USAGE = 2

function help(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length))
  const commands = Object.entries(COMMANDS).map(
    ([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`,
  )
  return `Normalisation layers of deep spiking neural networks.

Usage: npx spikenorm <command> [options]

Commands
${commands.join('\n')}

Options
  --version, -v  print the version
  --help, -h     print this text; npx spikenorm <command> --help tells of a command
`
}

async function main([name, ...rest]: readonly string[]): Promise<number | undefined> {
  if (name === undefined || name === '--help' || name === '-h' || (name === 'help' && rest.length === 0)) {
    process.stdout.write(help())
    return name === undefined ? EXIT_USAGE : 0
  }
  if (name === '--version' || name === '-v') {
    console.log(packageOfThis().version)
    return 0
  }
  if (name === 'help') return main([...rest, '--help'])
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (command === undefined) {
    const what = name.startsWith('-') ? 'option' : 'command'
    const known = [...Object.keys(COMMANDS), ...(what === 'option' ? ['--help', '--version'] : [])]
    throw new UsageError(`unknown ${what} ${name}.${didYouMean(name, known)}`)
  }
  const { run } = await command.load()
  return run(rest)
}

/** Where a reader such as `head` has gone away, nothing is left to be said. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit(process.exitCode ?? 0)
})

/** Node 20 reports what a CommonJS module throws once more, although the import that met it was awaited. */
process.on('unhandledRejection', (reason) => {
  if (!isAddonError(reason)) throw reason
})

/** Messages may quote a file. Of an error that is not of a file, the lines are kept. */
const withoutCommands = (message: string) => message.split('\n').map(printable).join('\n')

const argv = process.argv.slice(2)
main(argv).then(
  (code) => {
    if (code !== undefined) process.exitCode = code
  },
  (error: Error) => {
    const isUsage = error instanceof UsageError
    const name = argv[0] !== undefined && Object.hasOwn(COMMANDS, argv[0]) ? argv[0] : undefined
    // What users can cause has a message that says all; of anything else, the place is needed too.
    const isPlain = isUsage || error instanceof Failure || error.name === 'SpikenormError'
    const text = error.message.replace(/^spikenorm: /, '')
    const message = error.name === 'SpikenormError' ? printable(text) : withoutCommands(text)
    console.error(
      isPlain ? `spikenorm${name ? ` ${name}` : ''}: ${message}` : withoutCommands(error.stack ?? message),
    )
    if (isUsage) console.error(`See npx spikenorm${name ? ` ${name}` : ''} --help.`)
    process.exitCode = isUsage ? EXIT_USAGE : EXIT_FAILURE
  },
)
