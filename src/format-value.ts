/** How a value of any kind is written in a message: short, quoted where it is text, and without running foreign code twice. */

const LONGEST_TEXT = 60
const MOST_ITEMS = 4

/** @returns `value` as it is named in messages; never throws, and never long */
export function formatValue(value: unknown): string {
  try {
    return format(value, true)
  } catch {
    // A proxy, or a getter that throws.
    return typeof value === 'function' ? 'a function' : 'an object'
  }
}

/** @returns text from outside for a message: quoted, without control characters, cut where it is long */
export function quote(text: string): string {
  const cut = text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT)}…` : text
  return `'${printable(cut)}'`
}

/** The same without quotes. */
export function unquoted(text: string): string {
  return quote(text).slice(1, -1)
}

/** @returns text from outside with control characters, lone surrogates and changes of direction as `\u{…}`: a terminal would obey them */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    return `\\u{${(character.codePointAt(0) as number).toString(16)}}`
  })
}

function format(value: unknown, isOutermost: boolean): string {
  switch (typeof value) {
    case 'string':
      return quote(value)
    case 'bigint':
      // Digits of a huge one take long to work out.
      return value > -(2n ** 128n) && value < 2n ** 128n ? `${value}n` : 'a bigint of more than 128 bits'
    case 'symbol':
      return `Symbol(${value.description === undefined ? '' : unquoted(value.description)})`
    case 'number':
      return Object.is(value, -0) ? '-0' : String(value)
    case 'function': {
      const kind = /^class\b/.test(Function.prototype.toString.call(value)) ? 'class' : 'function'
      const name: unknown = value.name
      return typeof name === 'string' && name !== '' ? `the ${kind} ${unquoted(name)}` : `a ${kind}`
    }
    case 'object':
      return value === null ? 'null' : formatObject(value, isOutermost)
    default:
      return String(value)
  }
}

function formatObject(value: object, isOutermost: boolean): string {
  if (Array.isArray(value)) {
    if (!isOutermost && value.length > 0) return '[…]'
    const items = Array.from(value.slice(0, MOST_ITEMS), (item) => format(item, false))
    const rest = value.length > MOST_ITEMS ? `, … ${value.length - MOST_ITEMS} more` : ''
    return `[${items.join(', ')}${rest}]`
  }
  const name = nameOfClass(value)
  if (ArrayBuffer.isView(value) && 'length' in value) return `a ${name} of ${value.length} values`
  if (name !== 'Object') return `${/^[aeiou]/i.test(name) ? 'an' : 'a'} ${name}`
  const keys = Object.keys(value)
  const rest = keys.length > MOST_ITEMS ? ', …' : ''
  const shown = keys.slice(0, MOST_ITEMS).map((key) => unquoted(key))
  return keys.length === 0 ? '{}' : `{ ${shown.join(', ')}${rest} }`
}

/** Name of an object's class; `'Object'` where it has none. */
export function nameOfClass(value: object): string {
  const name: unknown = (value as { constructor?: { name?: unknown } }).constructor?.name
  return typeof name === 'string' && name !== '' ? unquoted(name) : 'Object'
}
