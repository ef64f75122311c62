/** Checks of arguments: one way to refuse a wrong one, used by every constructor and function of the public API. */
import { type Device, parseDevice } from './device.js'
import { nearest } from './did-you-mean.js'
import { type DType, expectDType, expectFloatDType, isDType, parameterDType } from './dtype.js'
import { type ErrorCode, SpikenormError } from './errors.js'
import { meaningOf } from './foreign-names.js'
import { formatValue, quote } from './format-value.js'
import type { TensorOptions } from './tensor.js'

/** The error for an argument: who was called, unless it is added later, its name, what it should have been, and what it was. */
export function argumentError(
  where: string | undefined,
  name: string,
  expected: string,
  got: unknown,
  code: ErrorCode = 'ERR_ARGUMENT',
): SpikenormError {
  const subject = where === undefined ? name : `${where}: ${name}`
  return new SpikenormError(code, `${subject}: expected ${expected}, got ${formatValue(got)}`)
}

/** Checks one value: returns it, or throws naming `where` it was given and its `name`. */
export type Check<V> = (where: string, name: string, value: unknown) => V

/** @returns `value`, a whole number from `least` to `most`; throws `ERR_ARGUMENT` otherwise. */
export function wholeNumber(
  where: string,
  name: string,
  value: unknown,
  least = 1,
  most = 0x7fffffff,
): number {
  if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
    const range = most === 0x7fffffff ? `>= ${least}` : `from ${least} to ${most}`
    throw argumentError(where, name, `a whole number ${range}`, value)
  }
  return value as number
}

/** @returns `value`, a finite number; throws `ERR_ARGUMENT` otherwise. */
export function finiteNumber(
  where: string,
  name: string,
  value: unknown,
  least = Number.NEGATIVE_INFINITY,
): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < least) {
    const bound = least === Number.NEGATIVE_INFINITY ? '' : ` >= ${least}`
    throw argumentError(where, name, `a finite number${bound}`, value)
  }
  return value
}

/** @returns `value`, a finite number of at least 0; throws `ERR_ARGUMENT` otherwise. */
export function notNegative(where: string, name: string, value: unknown): number {
  return finiteNumber(where, name, value, 0)
}

/** @returns `value`, which is true or false; throws `ERR_ARGUMENT` otherwise. */
export function boolean(where: string, name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw argumentError(where, name, 'true or false', value)
  return value
}

/** @returns `value`, a function; throws `ERR_ARGUMENT` otherwise. */
export function callback<F extends (...args: never[]) => unknown>(
  where: string,
  name: string,
  value: unknown,
): F {
  if (typeof value !== 'function') throw argumentError(where, name, 'a function', value)
  return value as F
}

/** A check for one of a few words. */
export function oneOf<W extends string>(words: readonly W[], code: ErrorCode = 'ERR_ARGUMENT'): Check<W> {
  const expected = words.map((word) => `'${word}'`).join(' or ')
  return (where, name, value) => {
    if (!words.includes(value as W)) throw argumentError(where, name, expected, value, code)
    return value as W
  }
}

/** A check that allows `null` beside what `check` does. */
export function nullable<V>(check: Check<V>): Check<V | null> {
  return (where, name, value) => (value === null ? null : check(where, name, value))
}

/** `'s'` or `'m'`; which of them a class can be in is for the class to say. */
export const stepMode = oneOf(['s', 'm'], 'ERR_STEP_MODE')

/** A device that can be used, by its full name. */
export const device: Check<Device> = (where, _, value) => parseDevice(value, where)

/** The dtype of a layer's inputs. */
export const floatDType: Check<DType> = (where, _, value) => expectFloatDType(value, where)

/** Any dtype. */
export const anyDType: Check<DType> = (where, _, value) => expectDType(value, where)

/** @returns `value`, tensors by name in a plain object; throws `ERR_ARGUMENT`, saying what to write, otherwise. */
export function expectDict(where: string, value: unknown): Record<string, unknown> {
  if (isPlainObject(value)) return value as Record<string, unknown>
  const isModule = typeof (value as { stateDict?: unknown } | null | undefined)?.stateDict === 'function'
  const advice = isModule
    ? 'write net.stateDict()'
    : value instanceof Map
      ? 'write Object.fromEntries(map)'
      : ''
  throw argumentError(where, 'dict', 'an object of tensors by name', value).withAdvice(advice)
}

/** An address or handle of 64 bits, as a bigint. */
export const addressOf64Bits: Check<bigint> = (where, name, value) => {
  if (typeof value !== 'bigint' || value < 0n || value >= 2n ** 64n) {
    throw argumentError(where, name, 'a bigint from 0n to 2n ** 64n - 1n', value)
  }
  return value
}

/** What is checked where it is used. */
export const anything: Check<never> = (_, __, value) => value as never

/** What `to` is given: a device or a dtype. `given` are its `arguments`: both at once would leave one unheard. */
export function readTarget(
  where: string,
  target: unknown,
  given: ArrayLike<unknown>,
): { device: Device; dtype?: undefined } | { dtype: DType; device?: undefined } {
  if (given.length > 1) {
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${where}: expected a device or a dtype, got ${given.length} arguments; write one call for each`,
    )
  }
  if (isDType(target)) return { dtype: target }
  if (typeof target === 'string' && /^(cpu|cuda)/.test(target)) return { device: parseDevice(target, where) }
  const expected = `a device ('cpu', 'cuda' or 'cuda:N') or a dtype ('float32', 'float64', …)`
  throw new SpikenormError('ERR_DEVICE', `${where}: expected ${expected}, got ${formatValue(target)}`)
}

/** Where and in which dtype a layer keeps its parameters: its options, which have been checked. */
export function placeOfParameters(options: { dtype?: DType; device?: Device }): Required<TensorOptions> {
  return { dtype: parameterDType(options.dtype ?? 'float32'), device: options.device ?? 'cpu' }
}

/** A check for every option. */
export type OptionChecks<O> = { readonly [K in keyof O]-?: Check<Exclude<O[K], undefined>> }

/** How something with options is called. */
export interface Signature<O> {
  /** What is called, as users write it. Default: `new` and the class. */
  readonly call?: string
  /** Names of the arguments before the options. */
  readonly leading: readonly string[]
  /** How many of them have to be there. Default: all. */
  readonly required?: number
  /** The options. */
  readonly options: OptionChecks<O>
  /** Options in the order in which PyTorch or SpikingJelly takes them without names; `''` for one that is none here. */
  readonly positional?: readonly ((keyof O & string) | '')[]
}

/**
 * The options of a call, each read once and checked, and absent where it is undefined. `given` are the call's `arguments`.
 * Throws `ERR_ARGUMENT`, saying what to write, for an unknown option, for anything that is no plain object and for
 * arguments behind the options.
 */
export function readOptions<O extends object>(
  where: string,
  options: unknown,
  given: ArrayLike<unknown>,
  signature: Signature<O>,
): O {
  if (given.length > signature.leading.length + 1) throw surplus(where, given, signature)
  expectLeading(where, given, signature)
  if (options === undefined) return {} as O
  if (!isPlainObject(options)) throw noOptions(where, given, signature)
  const checks = signature.options as Record<string, Check<unknown>>
  const read: Record<string, unknown> = {}
  for (const key of Object.keys(options)) {
    const value = (options as Record<string, unknown>)[key]
    if (value === undefined) continue
    if (!Object.hasOwn(checks, key)) throw unknownOption(where, key, signature)
    read[key] = (checks[key] as Check<unknown>)(where, key, value)
  }
  return read as O
}

/** Throws `ERR_ARGUMENT` where an argument is missing, or options stand in its place. */
function expectLeading<O>(where: string, given: ArrayLike<unknown>, signature: Signature<O>): void {
  const { leading, required = leading.length } = signature
  const isEarly = required > 0 && given.length === required && areOptions(given[required - 1], signature)
  if (given.length >= required && !isEarly) return
  const name = leading[isEarly ? required - 1 : given.length]
  const got = isEarly ? `, got ${formatValue(given[required - 1])}` : ''
  const advice = writeInstead(where, [], signature)
  throw new SpikenormError('ERR_ARGUMENT', `${where}: ${name}: it is missing${got}; ${advice}`)
}

/** Whether a value is an object of nothing but options. */
function areOptions<O>(value: unknown, { options }: Signature<O>): boolean {
  if (!isPlainObject(value)) return false
  const keys = Object.keys(value)
  return keys.length > 0 && keys.every((key) => Object.hasOwn(options, key))
}

/** Throws `ERR_ARGUMENT` for more arguments than a function without options takes. `given` are its `arguments`. */
export function refuseSurplus(where: string, given: ArrayLike<unknown>, leading: readonly string[]): void {
  if (given.length <= leading.length) return
  const got = Array.from(given).slice(leading.length).map(formatValue).join(', ')
  throw new SpikenormError('ERR_ARGUMENT', `${where}: write ${where}(${leading.join(', ')}), without ${got}`)
}

/** Whether a value is an object literal, of this realm or another; not an array and not of a class. */
export function isPlainObject(value: unknown): value is object {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** Whether a value could be an option's, so that the message may show how it is written. */
const isShowable = (value: unknown) =>
  value === null || ['number', 'boolean', 'string'].includes(typeof value)

/** Whether there is an option of this name that may have this value. */
function accepts<O>({ options }: Signature<O>, name: string | undefined, value: unknown): boolean {
  if (name === undefined || !Object.hasOwn(options, name)) return false
  try {
    options[name as keyof O]('', name, value)
    return true
  } catch {
    return false
  }
}

/** The call as it should be written, with the positional values under their names where they are known. */
function writeInstead<O>(where: string, given: ArrayLike<unknown>, signature: Signature<O>): string {
  const { call = `new ${where}`, leading, positional = [] } = signature
  const values = Array.from(given).slice(leading.length)
  const named = values.flatMap((value, i) => {
    // A step mode is known by its value alone.
    const candidates = value === 's' || value === 'm' ? [positional[i], 'stepMode'] : [positional[i]]
    const name = candidates.find((known) => accepts(signature, known, value))
    return name && isShowable(value) ? [`${name}: ${formatValue(value)}`] : []
  })
  const options = named.length === 0 ? 'options' : `{ ${named.join(', ')} }`
  return `write ${call}(${[...leading, options].join(', ')})`
}

function noOptions<O>(where: string, given: ArrayLike<unknown>, signature: Signature<O>): SpikenormError {
  const got = formatValue(given[signature.leading.length])
  return new SpikenormError(
    'ERR_ARGUMENT',
    `${where}: options: expected an object with named options, got ${got}; ${writeInstead(where, given, signature)}`,
  )
}

function surplus<O>(where: string, given: ArrayLike<unknown>, signature: Signature<O>): SpikenormError {
  const at = signature.leading.length
  // Where the options are in their place, what is behind them is too much; otherwise all of it lacks its name.
  if (!isPlainObject(given[at]) && given[at] !== undefined) return noOptions(where, given, signature)
  return new SpikenormError(
    'ERR_ARGUMENT',
    `${where}: expected at most ${at + 1} arguments, got ${given.length}; ${writeInstead(where, [], signature)}`,
  )
}

function unknownOption<O>(where: string, key: string, signature: Signature<O>): SpikenormError {
  const { call = `new ${where}`, leading, options } = signature
  const known = Object.keys(options)
  const meaning = meaningOf(key, [...known, ...leading])
  const shown = quote(key)
  const all = known.length === 0 ? 'there are no options' : `the options are ${known.join(', ')}`
  if (meaning === 'unsupported') return refused(`${shown} is not supported; ${all}`)
  const meant = meaning ?? nearest(key, [...known, ...leading])
  if (meant !== undefined && known.includes(meant)) {
    return refused(`there is no option ${shown}; did you mean ${meant}?`)
  }
  if (meant !== undefined) {
    const write = `${call}(${[...leading, 'options'].join(', ')})`
    return refused(`there is no option ${shown}; ${meant} is an argument of its own: write ${write}`)
  }
  return refused(`there is no option ${shown}; ${all}`)

  function refused(fact: string) {
    return new SpikenormError('ERR_ARGUMENT', `${where}: options: ${fact}`)
  }
}
