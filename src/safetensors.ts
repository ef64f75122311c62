/** .safetensors files: the format in which PyTorch models are exchanged. */
import {
  argumentError,
  boolean,
  type Check,
  isPlainObject,
  readOptions,
  refuseSurplus,
  type Signature,
} from './arguments.js'
import { SpikenormError } from './errors.js'
import { type FilePath, pathOf } from './file-path.js'
import { quote } from './format-value.js'
import { native } from './native.js'
import { Tensor } from './tensor.js'

/** Options of {@link saveSafetensors}. */
export interface SaveSafetensorsOptions {
  /**
   * Text by name for the file's `__metadata__`, such as `{ epoch: '3' }`; {@link loadSafetensorsMetadata} reads it. `format`
   * is `'pt'`, which readers of PyTorch's look for, unless given.
   */
  metadata?: Readonly<Record<string, string>>
}

/** Options of {@link loadSafetensors}. */
export interface LoadSafetensorsOptions {
  /** Whether tensors of dtypes unknown here are left out, instead of being an error. Default false. */
  skipUnsupported?: boolean
}

/** Where the format keeps the metadata, among the names of tensors. */
const METADATA = '__metadata__'

const metadata: Check<Readonly<Record<string, string>>> = (where, name, value) => {
  if (!isPlainObject(value)) throw argumentError(where, name, 'an object of strings', value)
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw argumentError(where, `${name}: ${quote(key)}`, 'a string', text)
    for (const part of [key, text]) expectUnicode(where, name, part)
  }
  return value as Record<string, string>
}

const SAVE: Signature<SaveSafetensorsOptions> = {
  call: 'saveSafetensors',
  leading: ['path', 'dict'],
  options: { metadata },
}

const LOAD: Signature<LoadSafetensorsOptions> = {
  call: 'loadSafetensors',
  leading: ['path'],
  options: { skipUnsupported: boolean },
}

/**
 * Writes tensors to a .safetensors file that PyTorch reads (`safetensors.torch.load_file`), all or nothing: the tensors go to
 * a file beside it, which takes its name once it is on the disk. A file that is there keeps its mode and owner, and a
 * symbolic link stays one. Throws `ERR_FILE`, for anything that is no regular file too, and `ERR_ARGUMENT` for a name that
 * could not be read back: `__metadata__`, or text with lone surrogates.
 */
export function saveSafetensors(
  path: FilePath,
  dict: Readonly<Record<string, Tensor>>,
  options: SaveSafetensorsOptions = {},
): void {
  const where = 'saveSafetensors'
  const { metadata = {} } = readOptions(where, options, arguments, SAVE)
  const file = pathOf(where, path)
  if (!isPlainObject(dict)) {
    throw argumentError(where, 'dict', 'an object with a Tensor for each name, such as net.stateDict()', dict)
  }
  const entries = Object.entries(dict)
  for (const [name, tensor] of entries) {
    if (name === METADATA) {
      throw new SpikenormError(
        'ERR_ARGUMENT',
        `${where}: dict: no tensor can be called ${METADATA}, which is the format's name for metadata; the option metadata writes it`,
      )
    }
    expectUnicode(where, 'dict', name)
    if (!(tensor instanceof Tensor)) throw argumentError(where, `dict: ${quote(name)}`, 'a Tensor', tensor)
  }
  native.saveSafetensors(
    file,
    entries.map(([name]) => name),
    entries.map(([, tensor]) => tensor.id),
    { format: 'pt', ...metadata },
  )
}

/**
 * Reads every tensor of a .safetensors file. bool becomes uint8; int8, int16, int32, uint16 and uint32 become int64. Throws
 * `ERR_FILE`, and `ERR_DTYPE` for a dtype that no dtype here holds (`skipUnsupported` leaves such tensors out).
 */
export function loadSafetensors(
  path: FilePath,
  options: LoadSafetensorsOptions = {},
): Record<string, Tensor> {
  const where = 'loadSafetensors'
  const { skipUnsupported = false } = readOptions(where, options, arguments, LOAD)
  const loaded = native.loadSafetensors(pathOf(where, path), skipUnsupported)
  return Object.fromEntries(loaded.map(({ name, handle }) => [name, new Tensor(handle)]))
}

/**
 * The `__metadata__` of a .safetensors file, as `safe_open(path, 'pt').metadata()` gives it; `{}` where there is none. Reads
 * no tensor. Throws `ERR_FILE`.
 */
export function loadSafetensorsMetadata(path: FilePath): Record<string, string> {
  const where = 'loadSafetensorsMetadata'
  refuseSurplus(where, arguments, ['path'])
  const entries = native.loadSafetensorsMetadata(pathOf(where, path))
  return Object.fromEntries(entries.map(({ key, value }) => [key, value]))
}

/** The format's names are UTF-8, which has no lone surrogates: two of them would become the same name. */
function expectUnicode(where: string, argument: string, text: string): void {
  if (/\p{Surrogate}/u.test(text)) {
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${where}: ${argument}: ${quote(text)} has a lone surrogate, which no file can hold`,
    )
  }
}
