/** What can be imported from the library, found by walking it. */
import * as library from '../../src/index.js'

export type Callable = (...args: unknown[]) => unknown

export const isClass = (value: Callable) => /^class\b/.test(Function.prototype.toString.call(value))

/** Every function and class that can be imported, by its name; those in namespaces too, such as `nn.Linear`. */
export function exported(): [name: string, value: Callable][] {
  const found: [string, Callable][] = []
  const walk = (prefix: string, values: object) => {
    for (const [name, value] of Object.entries(values)) {
      if (typeof value === 'function') found.push([prefix + name, value as Callable])
      else if (typeof value === 'object' && value !== null) walk(`${prefix}${name}.`, value)
    }
  }
  walk('', library)
  return found
}

/** Calls a function, or constructs a class. */
export function invoke(value: Callable, args: readonly unknown[]): unknown {
  return isClass(value) ? Reflect.construct(value, args) : Reflect.apply(value, undefined, args)
}
