/**
 * A restricted unpickler: the opcodes that torch.save writes, in pickle protocols 2 to 5. A pickle is a program for a stack
 * machine that may ask for any Python function to be called; this machine knows the functions of globals.ts and no other,
 * and has no way to run code.
 */
import { unquoted } from '../format-value.js'
import { knownGlobal, storageOf } from './globals.js'
import {
  OBJECT_BYTES,
  PickledDict,
  PickledGlobal,
  PickledTensor,
  PickleError,
  type Spend,
  Unsupported,
} from './pickled-values.js'

export interface UnpickleOptions {
  /** Whether what is not known becomes {@link Unsupported} instead of an error. */
  skipUnsupported: boolean
  /** Told of what is made. */
  spend: Spend
}

/** The value a pickle describes. Throws {@link PickleError}. */
export function unpickle(bytes: Uint8Array, options: UnpickleOptions): unknown {
  return new Unpickler(bytes, options).load()
}

class Unpickler {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #skipUnsupported: boolean
  readonly #spend: Spend
  readonly #memo = new Map<number, unknown>()
  /** Stacks below the marks. */
  readonly #marked: unknown[][] = []
  #stack: unknown[] = []
  #at = 0

  constructor(bytes: Uint8Array, { skipUnsupported, spend }: UnpickleOptions) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#skipUnsupported = skipUnsupported
    this.#spend = spend
  }

  load(): unknown {
    for (;;) {
      const opcode = this.#byte()
      if (opcode === 0x2e /* STOP */) return this.#pop()
      if (
        !(this.#literal(opcode) || this.#collection(opcode) || this.#object(opcode) || this.#memory(opcode))
      ) {
        throw new PickleError(
          `pickle opcode 0x${opcode.toString(16).padStart(2, '0')} at ${this.#at - 1}, which torch.save does not write`,
        )
      }
    }
  }

  /** None, numbers, text and bytes. */
  #literal(opcode: number): boolean {
    switch (opcode) {
      case 0x4e /* NONE */:
        return this.#push(null)
      case 0x88 /* NEWTRUE */:
        return this.#push(true)
      case 0x89 /* NEWFALSE */:
        return this.#push(false)
      case 0x4a /* BININT */:
        return this.#push(this.#view.getInt32(this.#take(4), true))
      case 0x4b /* BININT1 */:
        return this.#push(this.#byte())
      case 0x4d /* BININT2 */:
        return this.#push(this.#view.getUint16(this.#take(2), true))
      case 0x8a /* LONG1 */:
        return this.#push(this.#long(this.#byte()))
      case 0x47 /* BINFLOAT */:
        return this.#push(this.#view.getFloat64(this.#take(8), false))
      case 0x58 /* BINUNICODE */:
        return this.#push(this.#text(this.#uint32()))
      case 0x8c /* SHORT_BINUNICODE */:
        return this.#push(this.#text(this.#byte()))
      case 0x8d /* BINUNICODE8 */:
        return this.#push(this.#text(this.#uint64()))
      case 0x55 /* SHORT_BINSTRING */:
        return this.#push(Buffer.from(this.#slice(this.#byte())).toString('latin1'))
      case 0x54 /* BINSTRING */:
        return this.#push(Buffer.from(this.#slice(this.#uint32())).toString('latin1'))
      case 0x43 /* SHORT_BINBYTES */:
        return this.#push(this.#slice(this.#byte()))
      case 0x42 /* BINBYTES */:
        return this.#push(this.#slice(this.#uint32()))
      case 0x8e /* BINBYTES8 */:
      case 0x96 /* BYTEARRAY8 */:
        return this.#push(this.#slice(this.#uint64()))
    }
    return false
  }

  /** Lists, tuples, sets and dicts. */
  #collection(opcode: number): boolean {
    switch (opcode) {
      case 0x28 /* MARK */:
        this.#spend(OBJECT_BYTES.list)
        this.#marked.push(this.#stack)
        this.#stack = []
        return true
      case 0x5d /* EMPTY_LIST */:
      case 0x8f /* EMPTY_SET */:
      case 0x29 /* EMPTY_TUPLE */:
        this.#spend(OBJECT_BYTES.list)
        return this.#push([])
      case 0x7d /* EMPTY_DICT */:
        this.#spend(OBJECT_BYTES.dict)
        return this.#push(new PickledDict())
      case 0x74 /* TUPLE */:
      case 0x91 /* FROZENSET */:
        return this.#push(this.#popMark())
      case 0x85 /* TUPLE1 */:
      case 0x86 /* TUPLE2 */:
      case 0x87 /* TUPLE3 */:
        this.#spend(OBJECT_BYTES.list)
        return this.#push(Array.from({ length: opcode - 0x84 }, () => this.#pop()).reverse())
      case 0x61 /* APPEND */:
        return this.#append([this.#pop()])
      case 0x65 /* APPENDS */:
      case 0x90 /* ADDITEMS */:
        return this.#append(this.#popMark())
      case 0x73 /* SETITEM */:
        {
          const value = this.#pop()
          return this.#setItems([this.#pop(), value])
        }
      case 0x75 /* SETITEMS */:
        return this.#setItems(this.#popMark())
    }
    return false
  }

  /** Globals, calls and tensors' storages. */
  #object(opcode: number): boolean {
    switch (opcode) {
      case 0x63 /* GLOBAL */:
        {
          const module = this.#line()
          return this.#push(this.#global(module, this.#line()))
        }
      case 0x93 /* STACK_GLOBAL */:
        {
          const name = this.#pop()
          const module = this.#pop()
          if (typeof module !== 'string' || typeof name !== 'string') {
            throw new PickleError('a global without a name')
          }
          return this.#push(this.#global(module, name))
        }
      case 0x52 /* REDUCE */:
      case 0x81 /* NEWOBJ */:
        {
          const args = this.#pop()
          return this.#push(this.#call(this.#pop(), args))
        }
      case 0x92 /* NEWOBJ_EX */:
        {
          this.#pop()
          const args = this.#pop()
          return this.#push(this.#call(this.#pop(), args))
        }
      case 0x62 /* BUILD */:
        {
          this.#pop()
          return this.#expectAttributes(this.#peek())
        }
      case 0x51 /* BINPERSID */:
        return this.#push(storageOf(this.#pop()))
    }
    return false
  }

  /** The memo, the stack itself and framing. */
  #memory(opcode: number): boolean {
    switch (opcode) {
      case 0x80 /* PROTO */:
        {
          const protocol = this.#byte()
          if (protocol > 5) throw new PickleError(`pickle protocol ${protocol}: expected at most 5`)
          return true
        }
      case 0x95 /* FRAME */:
        this.#take(8)
        return true
      case 0x30 /* POP */:
        this.#pop()
        return true
      case 0x68 /* BINGET */:
        return this.#push(this.#recall(this.#byte()))
      case 0x6a /* LONG_BINGET */:
        return this.#push(this.#recall(this.#uint32()))
      case 0x71 /* BINPUT */:
        return this.#remember(this.#byte())
      case 0x72 /* LONG_BINPUT */:
        return this.#remember(this.#uint32())
      case 0x94 /* MEMOIZE */:
        return this.#remember(this.#memo.size)
    }
    return false
  }

  #global(module: string, attribute: string): unknown {
    const name = `${module}.${attribute}`
    const known = knownGlobal(name)
    if (known !== undefined) return known
    if (this.#skipUnsupported) return new Unsupported(name)
    throw new PickleError(
      `needs ${unquoted(name)} of Python, which is not loaded and was not run. Save tensors, numbers, text and dicts and lists of ` +
        'them (state_dict() rather than a whole net), or give skipUnsupported: true to leave such things out',
    )
  }

  #call(callee: unknown, args: unknown): unknown {
    if (callee instanceof Unsupported) return callee
    if (!(callee instanceof PickledGlobal) || !callee.call || !Array.isArray(args)) {
      const name = callee instanceof PickledGlobal ? callee.name : 'something that is no function'
      throw new PickleError(`calls ${name}, which torch.save does not`)
    }
    return callee.call(args, this.#spend)
  }

  /** Attributes are dropped; only what may have some in a checkpoint is given any. */
  #expectAttributes(target: unknown): boolean {
    const may =
      target instanceof PickledDict || target instanceof PickledTensor || target instanceof Unsupported
    if (!may) throw new PickleError('sets the attributes of something that has none')
    return true
  }

  #append(items: readonly unknown[]): boolean {
    const list = this.#peek()
    if (list instanceof Unsupported) return true
    if (!Array.isArray(list)) throw new PickleError('appends to something that is no list')
    for (const item of items) list.push(item)
    return true
  }

  #setItems(items: readonly unknown[]): boolean {
    const dict = this.#peek()
    if (dict instanceof Unsupported) return true
    if (!(dict instanceof PickledDict) || items.length % 2 !== 0) {
      throw new PickleError('sets items of something that is no dict')
    }
    this.#spend(OBJECT_BYTES.item * items.length)
    for (let i = 0; i < items.length; i += 2) dict.entries.set(items[i], items[i + 1])
    return true
  }

  #push(value: unknown): true {
    this.#spend(OBJECT_BYTES.item)
    this.#stack.push(value)
    return true
  }

  #peek(): unknown {
    if (this.#stack.length === 0) throw new PickleError(`nothing on the stack at ${this.#at}`)
    return this.#stack.at(-1)
  }

  #pop(): unknown {
    this.#peek()
    return this.#stack.pop()
  }

  /** What was pushed since the latest mark. */
  #popMark(): unknown[] {
    const below = this.#marked.pop()
    if (!below) throw new PickleError(`no mark on the stack at ${this.#at}`)
    const items = this.#stack
    this.#stack = below
    return items
  }

  #remember(index: number): true {
    this.#spend(OBJECT_BYTES.item)
    this.#memo.set(index, this.#peek())
    return true
  }

  #recall(index: number): unknown {
    if (!this.#memo.has(index)) throw new PickleError(`memo ${index} is empty at ${this.#at}`)
    return this.#memo.get(index)
  }

  /** Moves on by `count` bytes; @returns where they start. */
  #take(count: number): number {
    const start = this.#at
    if (start + count > this.#bytes.length) throw new PickleError('the pickle is cut short')
    this.#at = start + count
    return start
  }

  #byte(): number {
    return this.#view.getUint8(this.#take(1))
  }

  #uint32(): number {
    return this.#view.getUint32(this.#take(4), true)
  }

  #uint64(): number {
    return Number(this.#view.getBigUint64(this.#take(8), true))
  }

  #slice(count: number): Uint8Array {
    const start = this.#take(count)
    this.#spend(OBJECT_BYTES.bytes + count)
    return this.#bytes.slice(start, start + count)
  }

  #text(count: number): string {
    return Buffer.from(this.#slice(count)).toString('utf8')
  }

  /** A whole number of `count` bytes, two's complement, lowest first. */
  #long(count: number): number | bigint {
    let value = 0n
    const bytes = this.#slice(count)
    for (const byte of bytes.toReversed()) value = (value << 8n) | BigInt(byte)
    value = BigInt.asIntN(8 * count, value)
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value
  }

  /** Text up to the end of the line. */
  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at)
    if (end < 0) throw new PickleError('the pickle is cut short')
    const line = this.#text(end - this.#at)
    this.#take(1)
    return line
  }
}
