/** The arguments of a command, on node:util's parser: what is wrong with them is said in one sentence. */
import { type ParseArgsConfig, parseArgs } from 'node:util'
import { didYouMean } from '../did-you-mean.js'
import { UsageError } from './errors.js'

type Options = NonNullable<ParseArgsConfig['options']>
type Parsed<O extends Options> = ReturnType<
  typeof parseArgs<{ args: string[]; options: O; allowPositionals: true }>
>

/** Options and positional arguments. Throws {@link UsageError}, naming the option that was probably meant. */
export function parseArguments<O extends Options>(argv: readonly string[], options: O): Parsed<O> {
  try {
    return parseArgs({ args: [...argv], options, allowPositionals: true })
  } catch (thrown) {
    const { code, message } = thrown as { code?: string; message: string }
    if (!code?.startsWith('ERR_PARSE_ARGS')) throw thrown
    // Node's own messages go on for several lines about '--'; the first sentence is the fact.
    const fact = message.split(/\.\s|\n/)[0] as string
    const name = /'(-[^'\s]*)/.exec(fact)?.[1]
    if (code !== 'ERR_PARSE_ARGS_UNKNOWN_OPTION' || name === undefined) throw new UsageError(`${fact}.`)
    const known = Object.keys(options).map((option) => `--${option}`)
    throw new UsageError(`unknown option ${name}.${didYouMean(name, known)}`)
  }
}
