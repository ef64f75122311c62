/** What an unpickled checkpoint is made of, before any tensor is read. Lists, tuples, strings and numbers are plain. */

/** A dict, or a subclass of it whose attributes are left out (`_metadata` of a state_dict). */
export class PickledDict {
  readonly entries = new Map<unknown, unknown>()
}

/** A dtype by PyTorch's name, without `torch.`. */
export class PickledDType {
  constructor(
    readonly name: string,
    /** Bytes of an element. */
    readonly itemSize: number,
  ) {}
}

/** A file of raw values in the archive. */
export class PickledStorage {
  constructor(
    readonly key: string,
    /** `null` for bytes without a type. */
    readonly dtype: PickledDType | null,
    readonly bytes: number,
  ) {}
}

/** A view of a storage; `offset` and `stride` count elements. */
export class PickledTensor {
  constructor(
    readonly storage: PickledStorage,
    readonly dtype: PickledDType,
    readonly offset: number,
    readonly size: readonly number[],
    readonly stride: readonly number[],
    /** Bits of PyTorch's that change what the values mean: `neg` and `conj` are known. */
    readonly bits: readonly string[] = [],
  ) {}
}

/** Counts what objects take of V8's heap; throws where it is too much. */
export type Spend = (bytes: number) => void

/** What objects take of V8's heap, roughly, beside what is in them. */
export const OBJECT_BYTES = { dict: 400, list: 100, bytes: 200, tensor: 600, item: 24 } as const

/** A Python function or class that is known here: its name, and what calling it gives. Never Python's own. */
export class PickledGlobal {
  constructor(
    readonly name: string,
    readonly call: ((args: readonly unknown[], spend: Spend) => unknown) | null,
    /** What it stands for where it is a type of storage. */
    readonly dtype: PickledDType | null = null,
  ) {}
}

/** A place that something not known here would have taken; never made, and left out of what is returned. */
export class Unsupported {
  constructor(readonly name: string) {}
}

/** Thrown where the contents of a pickle are not what PyTorch writes; the caller adds the file. */
export class PickleError extends Error {}
