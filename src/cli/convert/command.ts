/** `spikenorm convert`: the arguments, and the order in which things are done. */
import { existsSync } from 'node:fs'
import { printable } from '../../format-value.js'
import { type DType, saveSafetensors } from '../../index.js'
import { parseArguments } from '../arguments.js'
import { Failure, UsageError } from '../errors.js'
import { json } from '../text.js'
import { type CheckResult, checkAll, checkClass, checkText } from './check.js'
import { convertDtype } from './dtype.js'
import { load } from './file.js'
import { foldDict, parseFolding } from './fold.js'
import { type Arguments, CLASS_NAMES, classesText, findLayers, placeOf } from './layers.js'
import { type Dict, parseRenaming, rename, select } from './rename.js'
import { summariseAll, summaryTable } from './statistics.js'

const FLOAT_DTYPES = ['float64', 'float32', 'float16', 'bfloat16'] as const satisfies DType[]

const HELP = `Inspects, checks, renames and converts the weights in a checkpoint.

Usage: npx spikenorm convert <file> [options]

<file> is a .safetensors file, or one of torch.save (.pt, .pth), of which no code is run. Without options its tensors are
listed, and the layers that their keys tell of. What is asked for is done in this order:

  --key <name>            where the state dict is in a file of torch.save that holds more, such as an optimiser's; several
                          for a key within a key
  --skip-unsupported      leaves out tensors of dtypes that have no counterpart here
  --select <prefix>       only the keys that begin with it, named without it
  --strip-prefix <p>      takes the prefix off the keys that begin with it, such as 'module.'
  --rename <re>=<text>    in every key, text for what the regular expression matches; $1 is its first group
  --fold conv=<p>,norm=<p>
                          folds the batch norm below the second prefix into the convolution or linear layer below the
                          first, for inference; add ,eps=<number> where the norm's is not 1e-5. TEBN and BNTT make
                          T layers of it, for nn.PerStep
  --dtype <name>          ${FLOAT_DTYPES.join(', ')}: all but whole numbers, each value rounded once
  --check <class>         whether keys and shapes fit a layer; auto: every layer that the keys tell of
  --args <json>           its arguments by name, such as '{"T":4,"numFeatures":64,"affine":false}'; what is left out is
                          taken from the shapes
  --output, -o <file>     writes what has become of it, as .safetensors, with the metadata of such a file
  --force                 also over a file that is there

--strip-prefix, --rename and --fold may be given several times.

  --json                  what was found, as JSON
  --help, -h              this text

Classes: ${classesText(CLASS_NAMES).replaceAll(' or ', ', ')}.
The exit status is 1 where something cannot be done or does not fit.

Examples:
  npx spikenorm convert model.safetensors
  npx spikenorm convert checkpoint.pt --key net -o model.safetensors
  npx spikenorm convert model.safetensors --select bn1. --check TemporalEffectiveBatchNorm2d --args '{"T":4}'
  npx spikenorm convert model.safetensors --strip-prefix module. --dtype float16 -o half.safetensors
  npx spikenorm convert model.safetensors --rename '^layers\\.(\\d+)=$1' -o renamed.safetensors
  npx spikenorm convert model.safetensors --fold conv=conv1,norm=bn1 -o folded.safetensors
`

const text = { type: 'string' } as const
const texts = { type: 'string', multiple: true } as const
const flag = { type: 'boolean' } as const
const OPTIONS = {
  key: texts,
  'skip-unsupported': flag,
  select: text,
  'strip-prefix': texts,
  rename: texts,
  fold: texts,
  dtype: text,
  check: text,
  args: text,
  output: { ...text, short: 'o' },
  force: flag,
  json: flag,
  help: { ...flag, short: 'h' },
} as const

export async function run(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(argv, OPTIONS)
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const [file, ...others] = positionals
  if (file === undefined) throw new UsageError('which file? Give the path of a .safetensors or .pt file.')
  if (others.length > 0) throw new UsageError(`takes one file, got ${positionals.join(', ')}.`)
  const { output } = values
  // Everything that can be said about the command line is said before a large file is read.
  const renamings = (values.rename ?? []).map(parseRenaming)
  const foldings = (values.fold ?? []).map(parseFolding)
  const dtype = values.dtype === undefined ? undefined : floatDtype(values.dtype)
  const args = parseArgs(values.args, values.check)
  if (output !== undefined && existsSync(output) && !values.force)
    throw new Failure(`${output} is there already; --force writes over it`)

  const notes: string[] = []
  const note = (sentence: string) => {
    notes.push(sentence)
    console.error(`spikenorm convert: ${printable(sentence)}`)
  }
  const loaded = load(file, {
    keys: values.key ?? [],
    skipUnsupported: values['skip-unsupported'] ?? false,
  })
  let { dict }: { dict: Dict } = loaded
  if (values.select !== undefined) dict = select(dict, values.select)
  dict = rename(dict, { strip: values['strip-prefix'] ?? [], renamings }, note)
  for (const folding of foldings) dict = foldDict(dict, folding)
  if (dtype !== undefined) dict = convertDtype(dict, dtype, note)
  const checks = values.check === undefined ? [] : check(dict, values.check, args)
  const fits = checks.every((result) => result.fits)
  const isWritten = output !== undefined && fits
  if (isWritten) saveSafetensors(output, dict, { metadata: loaded.metadata })
  const tensors = summariseAll(dict)
  if (values.json) {
    const written = isWritten ? output : null
    console.log(json({ file, tensors, layers: findLayers(dict), checks, notes, written }))
    return fits ? 0 : 1
  }
  console.log(summaryTable(tensors))
  if (values.check === undefined) {
    for (const { prefix, classes } of findLayers(dict))
      console.log(`${placeOf(prefix)}: ${classesText(classes)}`)
  }
  for (const result of checks) console.log(checkText(result))
  if (isWritten) console.log(`Written: ${printable(output)}`)
  else if (output !== undefined) console.log(`Not written: ${printable(output)}, since the check failed`)
  return fits ? 0 : 1
}

function check(dict: Dict, name: string, args: Arguments): CheckResult[] {
  if (name !== 'auto') return [checkClass(dict, name, args)]
  const checks = checkAll(dict)
  if (checks.length === 0)
    throw new Failure(`--check auto: no keys are those of a layer known here (${CLASS_NAMES.join(', ')})`)
  return checks
}

function floatDtype(name: string): DType {
  const dtype = FLOAT_DTYPES.find((one) => one === name)
  if (dtype === undefined) throw new UsageError(`--dtype takes ${FLOAT_DTYPES.join(', ')}, not '${name}'.`)
  return dtype
}

function parseArgs(text: string | undefined, check: string | undefined): Arguments {
  if (text === undefined) return {}
  if (check === undefined || check === 'auto')
    throw new UsageError('--args needs --check with the name of a class.')
  try {
    const args: unknown = JSON.parse(text)
    if (args !== null && typeof args === 'object' && !Array.isArray(args)) return args as Arguments
  } catch {
    // Said below, as for JSON that is no object.
  }
  throw new UsageError(`--args takes a JSON object such as '{"numFeatures":64}', not '${text}'.`)
}
