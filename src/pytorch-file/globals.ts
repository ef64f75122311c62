/**
 * The Python functions and classes that torch.save needs for state dicts and what usually lies beside them, by name. Each
 * is a function of this file; nothing else can be called, whatever the pickle says.
 */
import {
  OBJECT_BYTES,
  PickledDict,
  PickledDType,
  PickledGlobal,
  PickledStorage,
  PickledTensor,
  PickleError,
  type Spend,
  Unsupported,
} from './pickled-values.js'

const ITEM_SIZES: Record<string, number> = {
  float64: 8,
  float32: 4,
  float16: 2,
  bfloat16: 2,
  uint8: 1,
  int64: 8,
  int32: 4,
  int16: 2,
  int8: 1,
  bool: 1,
  complex32: 4,
  complex64: 8,
  complex128: 16,
  uint16: 2,
  uint32: 4,
  uint64: 8,
  float8_e4m3fn: 1,
  float8_e5m2: 1,
  float8_e4m3fnuz: 1,
  float8_e5m2fnuz: 1,
  float8_e8m0fnu: 1,
}

const STORAGES: Record<string, string> = {
  DoubleStorage: 'float64',
  FloatStorage: 'float32',
  HalfStorage: 'float16',
  BFloat16Storage: 'bfloat16',
  ByteStorage: 'uint8',
  LongStorage: 'int64',
  IntStorage: 'int32',
  ShortStorage: 'int16',
  CharStorage: 'int8',
  BoolStorage: 'bool',
  ComplexFloatStorage: 'complex64',
  ComplexDoubleStorage: 'complex128',
}

/** Axes that a tensor may have, as in most of PyTorch's functions. */
const MOST_AXES = 64

const DTYPES = new Map(Object.entries(ITEM_SIZES).map(([name, size]) => [name, new PickledDType(name, size)]))
const KNOWN = new Map<string, unknown>()

function define(name: string, call: PickledGlobal['call'], dtype?: PickledDType) {
  KNOWN.set(name, new PickledGlobal(name, call, dtype))
}

for (const [name, dtype] of DTYPES) KNOWN.set(`torch.${name}`, dtype)
for (const [name, dtype] of Object.entries(STORAGES)) define(`torch.${name}`, null, DTYPES.get(dtype))
for (const name of ['torch.storage.UntypedStorage', 'torch.UntypedStorage']) define(name, null)
for (const name of ['torch.Tensor', 'torch.nn.parameter.Parameter', 'torch.nn.parameter.Buffer'])
  define(name, null)

define('collections.OrderedDict', ([pairs], spend) => dictOf(pairs, spend))
define('collections.Counter', ([counts], spend) => dictOf(counts, spend))
define('torch.Size', ([extents]) => expectList('torch.Size', extents ?? []))
define('torch.device', ([kind, index]) => deviceOf(kind, index))
define('_codecs.encode', ([text], spend) => bytesOf(text, spend))
for (const builtins of ['builtins', '__builtin__']) {
  define(`${builtins}.set`, ([items]) => expectList('set', items ?? []))
  define(`${builtins}.bytearray`, ([bytes], spend) =>
    bytes instanceof Uint8Array ? bytes : bytesOf(bytes ?? '', spend),
  )
}

define('torch._utils._rebuild_tensor', ([storage, offset, size, stride], spend) =>
  rebuild({ storage, offset, size, stride }, spend),
)
define('torch._utils._rebuild_tensor_v2', ([storage, offset, size, stride, , , metadata], spend) =>
  rebuild({ storage, offset, size, stride, metadata }, spend),
)
define('torch._utils._rebuild_tensor_v3', ([storage, offset, size, stride, , , dtype, metadata], spend) =>
  rebuild({ storage, offset, size, stride, dtype, metadata }, spend),
)
define('torch._utils._rebuild_parameter', ([data]) => data)
define('torch._utils._rebuild_parameter_with_state', ([data]) => data)
// A tensor with attributes of its own, which are left out.
const FROM_TYPE = 'torch._tensor._rebuild_from_type_v2'
define(FROM_TYPE, ([make, , args], spend) => {
  if (make instanceof Unsupported) return make
  // Not by itself: its arguments may be a list that has itself for an item.
  if (!(make instanceof PickledGlobal) || !make.call || make.name === FROM_TYPE) {
    throw new PickleError('a tensor is made by no function')
  }
  return make.call(expectList(make.name, args), spend)
})

/** What stands for a Python global here, or `undefined`. */
export function knownGlobal(name: string): unknown {
  return KNOWN.get(name)
}

/** The storage that a persistent id names: `('storage', type, key, location, number of elements)`. */
export function storageOf(id: unknown): PickledStorage | Unsupported {
  const [kind, type, key, , count] = expectList('a persistent id', id)
  if (type instanceof Unsupported) return type
  if (kind !== 'storage' || !(type instanceof PickledGlobal) || typeof key !== 'string' || !isCount(count)) {
    throw new PickleError('a persistent id that names no storage')
  }
  return new PickledStorage(key, type.dtype, count * (type.dtype?.itemSize ?? 1))
}

interface Rebuilt {
  storage: unknown
  offset: unknown
  size: unknown
  stride: unknown
  dtype?: unknown
  metadata?: unknown
}

function rebuild(
  { storage, offset, size, stride, dtype, metadata }: Rebuilt,
  spend: Spend,
): PickledTensor | Unsupported {
  spend(OBJECT_BYTES.tensor)
  for (const part of [storage, dtype]) if (part instanceof Unsupported) return part
  const type = storage instanceof PickledStorage ? (dtype ?? storage.dtype) : undefined
  const [extents, strides] = [expectList('a size', size), expectList('a stride', stride)]
  // Such a list may be long and be given to many tensors.
  if (Math.max(extents.length, strides.length) > MOST_AXES) {
    throw new PickleError(
      `a tensor of ${Math.max(extents.length, strides.length)} axes: the limit is ${MOST_AXES}`,
    )
  }
  const isWhole = isCount(offset) && extents.every(isCount) && strides.every(isCount)
  if (!(storage instanceof PickledStorage && type instanceof PickledDType && isWhole)) {
    throw new PickleError('a tensor without storage, dtype, size or stride')
  }
  if (extents.length !== strides.length) {
    throw new PickleError(`a tensor of ${extents.length} axes with ${strides.length} strides`)
  }
  const [from, shape, steps] = [offset as number, extents as number[], strides as number[]]
  return new PickledTensor(storage, type, from, shape, steps, bitsOf(metadata))
}

/** The bits that are set in what `torch._utils.get_tensor_metadata` gives. */
function bitsOf(metadata: unknown): string[] {
  if (metadata === undefined || metadata === null) return []
  if (!(metadata instanceof PickledDict)) throw new PickleError("a tensor's metadata: expected a dict")
  return [...metadata.entries].filter(([, isSet]) => isSet !== false).map(([name]) => nameOf(name))
}

function nameOf(key: unknown): string {
  return typeof key === 'string' ? key : 'a bit without a name'
}

function deviceOf(kind: unknown, index: unknown): string {
  const isIndex = index === undefined || (typeof index === 'number' && isCount(index))
  if (typeof kind !== 'string' || kind.length > 100 || !isIndex)
    throw new PickleError('torch.device: expected a name and a number')
  return index === undefined ? kind : `${kind}:${index}`
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function expectList(what: string, value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new PickleError(`${what}: expected a list or tuple`)
  return value
}

/** A new dict from nothing, a dict or a list of pairs. */
function dictOf(source: unknown, spend: Spend): PickledDict {
  const dict = new PickledDict()
  const isDict = source instanceof PickledDict
  const pairs = isDict ? source.entries : expectList('a dict', source ?? [])
  spend(OBJECT_BYTES.dict + OBJECT_BYTES.item * ('size' in pairs ? pairs.size : pairs.length))
  for (const pair of pairs) {
    const [key, value] = expectList('an item of a dict', pair)
    dict.entries.set(key, value)
  }
  return dict
}

/** Bytes that pickle protocol 2 writes as text, one character each. */
function bytesOf(text: unknown, spend: Spend): Uint8Array {
  if (typeof text !== 'string') throw new PickleError('bytes: expected text')
  spend(OBJECT_BYTES.bytes + 2 * text.length)
  return new Uint8Array(Buffer.from(text, 'latin1'))
}
