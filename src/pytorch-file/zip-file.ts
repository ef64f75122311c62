/**
 * The part of the zip format that torch.save writes, read with random access: the central directory (zip64 too), then
 * ranges of entries. Stored entries are read in place; compressed ones, which other tools make of them, are inflated whole.
 *
 * Entries that overlap are refused. Checksums are not compared: torch.serialization.set_crc32_options lets PyTorch leave them out.
 */
import { readSync } from 'node:fs'
import { inflateRawSync } from 'node:zlib'
import { fileError } from '../file-error.js'
import { unquoted } from '../format-value.js'
import { readingRegularFile } from '../regular-file.js'
import { ReadLimit } from './read-limit.js'

const END = 0x06054b50
const END_64 = 0x06064b50
const END_64_LOCATOR = 0x07064b50
const CENTRAL = 0x02014b50
const LOCAL = 0x04034b50

const END_BYTES = 22
const LOCATOR_BYTES = 20
const END_64_BYTES = 56
const CENTRAL_BYTES = 46
const LOCAL_BYTES = 30
/** A 16- or 32-bit field that says "see the zip64 record". */
const IN_ZIP64 = { short: 0xffff, long: 0xffffffff }
const LONGEST_COMMENT = 0xffff
/** Deflate makes at most 1032 bytes of one: an entry that claims more is broken or made to exhaust memory. */
const HIGHEST_RATIO = 1032
/** The most that one read is asked for; some systems refuse 2 GiB and more. */
const CHUNK = 2 ** 30

/** What the directory's entries take of V8's heap, beside their names. */
const ENTRY_OBJECTS = 400

const STORED = 0
const DEFLATED = 8

export interface ZipEntry {
  name: string
  /** Bytes of its contents. */
  size: number
  compressedSize: number
  method: number
  headerOffset: number
  /** Where the next entry, or the directory, begins. */
  end: number
}

export class ZipFile {
  readonly path: string
  readonly entries: ReadonlyMap<string, ZipEntry>
  /** What the file may take of memory. */
  readonly limit: ReadLimit
  readonly #fd: number
  readonly #size: number
  /** Inflated entries, so that the tensors of one storage inflate it once. */
  readonly #inflated = new Map<string, Uint8Array>()

  private constructor(path: string, fd: number, size: number) {
    this.path = path
    this.#fd = fd
    this.#size = size
    this.limit = new ReadLimit(path, size)
    this.entries = this.#readDirectory()
  }

  /** Opens a file for as long as `body` runs. Throws `ERR_FILE` for one that cannot be read. */
  static reading<R>(path: string, body: (zip: ZipFile) => R): R {
    return readingRegularFile(path, (fd, size) => body(new ZipFile(path, fd, size)))
  }

  /** Bytes `start..end` of an entry, in memory of their own. */
  read(entry: ZipEntry, start = 0, end = entry.size): Uint8Array<ArrayBuffer> {
    if (start < 0 || end < start || end > entry.size) {
      throw this.#entryError(entry, `bytes ${start}..${end} of ${entry.size}`)
    }
    this.limit.takeBytes(end - start, unquoted(entry.name))
    if (entry.method === STORED) return this.#bytes(this.#dataOffset(entry) + start, end - start)
    // A copy: an inflated Buffer's own slice() would be a view of it.
    return new Uint8Array(this.#inflate(entry).subarray(start, end))
  }

  #inflate(entry: ZipEntry): Uint8Array {
    const known = this.#inflated.get(entry.name)
    if (known) return known
    if (entry.method !== DEFLATED) {
      throw this.#entryError(entry, `compression method ${entry.method} is not supported`)
    }
    if (entry.size > entry.compressedSize * HIGHEST_RATIO) {
      throw this.#entryError(entry, `claims ${entry.size} bytes in ${entry.compressedSize}`)
    }
    this.limit.takeBytes(entry.size, unquoted(entry.name))
    const packed = this.#bytes(this.#dataOffset(entry), entry.compressedSize)
    let inflated: Uint8Array
    try {
      inflated = inflateRawSync(packed, { maxOutputLength: Math.max(entry.size, 1) })
    } catch (thrown) {
      throw this.#entryError(entry, `cannot be inflated: ${(thrown as Error).message}`, thrown)
    }
    if (inflated.length !== entry.size) {
      throw this.#entryError(entry, `${inflated.length} bytes where ${entry.size} are expected`)
    }
    this.#inflated.set(entry.name, inflated)
    return inflated
  }

  /** Where an entry's contents begin: behind its local header, whose extra field PyTorch pads for alignment. */
  #dataOffset(entry: ZipEntry): number {
    const header = viewOf(this.#bytes(entry.headerOffset, LOCAL_BYTES))
    if (header.getUint32(0, true) !== LOCAL) throw this.#broken(`no header of ${unquoted(entry.name)}`)
    const offset = entry.headerOffset + LOCAL_BYTES + header.getUint16(26, true) + header.getUint16(28, true)
    if (offset + entry.compressedSize > entry.end) {
      throw this.#broken(`${unquoted(entry.name)} reaches into the next entry`)
    }
    return offset
  }

  #readDirectory(): Map<string, ZipEntry> {
    const tailBytes = Math.min(this.#size, END_BYTES + LONGEST_COMMENT)
    const tailOffset = this.#size - tailBytes
    const tail = viewOf(this.#bytes(tailOffset, tailBytes))
    let end = tailBytes - END_BYTES
    const isEnd = (at: number) =>
      tail.getUint32(at, true) === END && at + END_BYTES + tail.getUint16(at + 20, true) === tailBytes
    while (end >= 0 && !isEnd(end)) end--
    if (end < 0) throw this.#noZip()
    let count = tail.getUint16(end + 10, true)
    let bytes = tail.getUint32(end + 12, true)
    let offset = tail.getUint32(end + 16, true)
    if (count === IN_ZIP64.short || bytes === IN_ZIP64.long || offset === IN_ZIP64.long) {
      const wide = this.#zip64End(tailOffset + end - LOCATOR_BYTES)
      if (wide) [count, bytes, offset] = wide
    }
    const entries = this.#entriesOf(viewOf(this.#bytes(offset, bytes)), count)
    this.#findEnds(entries, offset)
    return entries
  }

  /** Number of entries, bytes and offset of the directory from the zip64 end record, if there is one. */
  #zip64End(locatorOffset: number): [number, number, number] | undefined {
    if (locatorOffset < 0) return undefined
    const locator = viewOf(this.#bytes(locatorOffset, LOCATOR_BYTES))
    if (locator.getUint32(0, true) !== END_64_LOCATOR) return undefined
    const record = viewOf(this.#bytes(this.#wide(locator, 8), END_64_BYTES))
    if (record.getUint32(0, true) !== END_64) throw this.#broken('no zip64 end record')
    return [this.#wide(record, 32), this.#wide(record, 40), this.#wide(record, 48)]
  }

  #entriesOf(directory: DataView, count: number): Map<string, ZipEntry> {
    const entries = new Map<string, ZipEntry>()
    let at = 0
    for (let index = 0; index < count; index++) {
      if (at + CENTRAL_BYTES > directory.byteLength || directory.getUint32(at, true) !== CENTRAL) {
        throw this.#broken(`entry ${index} of ${count} is missing`)
      }
      const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) =>
        directory.getUint16(at + field, true),
      ) as [number, number, number]
      const nameAt = at + CENTRAL_BYTES
      const next = nameAt + nameBytes + extraBytes + commentBytes
      if (next > directory.byteLength) throw this.#broken(`entry ${index} of ${count} is cut short`)
      const name = new TextDecoder().decode(
        new Uint8Array(directory.buffer, directory.byteOffset + nameAt, nameBytes),
      )
      this.limit.takeObjects(ENTRY_OBJECTS + nameBytes, 'the directory of the archive')
      if (directory.getUint16(at + 8, true) & 1) throw fileError(this.path, `${unquoted(name)} is encrypted`)
      if (entries.has(name)) throw this.#broken(`two entries are called ${unquoted(name)}`)
      const entry: ZipEntry = {
        name,
        method: directory.getUint16(at + 10, true),
        compressedSize: directory.getUint32(at + 20, true),
        size: directory.getUint32(at + 24, true),
        headerOffset: directory.getUint32(at + 42, true),
        end: 0,
      }
      this.#widen(entry, directory, nameAt + nameBytes, extraBytes)
      if (entry.method === STORED && entry.size !== entry.compressedSize) {
        throw this.#broken(`${unquoted(name)} is stored, but not in as many bytes as it has`)
      }
      entries.set(name, entry)
      at = next
    }
    return entries
  }

  /** Says where each entry ends: those that overlap are not read, or a small file would hold much. */
  #findEnds(entries: ReadonlyMap<string, ZipEntry>, directory: number): void {
    const inOrder = [...entries.values()].sort((a, b) => a.headerOffset - b.headerOffset)
    inOrder.forEach((entry, i) => {
      entry.end = inOrder[i + 1]?.headerOffset ?? directory
    })
  }

  /** Takes sizes and offset that do not fit 32 bits from the zip64 extra field. */
  #widen(entry: ZipEntry, directory: DataView, start: number, bytes: number): void {
    let at = start
    while (at + 4 <= start + bytes) {
      const [kind, length] = [directory.getUint16(at, true), directory.getUint16(at + 2, true)]
      at += 4
      if (kind === 1) {
        let field = at
        // In this order, and only those that are marked.
        for (const key of ['size', 'compressedSize', 'headerOffset'] as const) {
          if (entry[key] !== IN_ZIP64.long) continue
          if (field + 8 > Math.min(at + length, start + bytes)) {
            throw this.#broken(`the zip64 record of ${unquoted(entry.name)} is cut short`)
          }
          entry[key] = this.#wide(directory, field)
          field += 8
        }
      }
      at += length
    }
  }

  #wide(view: DataView, at: number): number {
    const value = Number(view.getBigUint64(at, true))
    if (!Number.isSafeInteger(value)) throw this.#broken('a size or offset is past counting')
    return value
  }

  #bytes(offset: number, length: number): Uint8Array<ArrayBuffer> {
    if (offset + length > this.#size) {
      throw this.#broken(`cut short: bytes ${offset}..${offset + length} of ${this.#size}`)
    }
    const bytes = new Uint8Array(length)
    let done = 0
    while (done < length) {
      const got = readSync(this.#fd, bytes, done, Math.min(CHUNK, length - done), offset + done)
      if (got === 0) throw this.#broken('cut short while being read')
      done += got
    }
    return bytes
  }

  #entryError(entry: ZipEntry, what: string, cause?: unknown) {
    return fileError(this.path, `${unquoted(entry.name)}: ${what}`, cause)
  }

  #broken(what: string) {
    return fileError(this.path, `not a whole zip archive: ${what}`)
  }

  /** What else the file may be, by its first bytes. */
  #noZip() {
    const head = this.#bytes(0, Math.min(this.#size, 15))
    const magic = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9]
    if (magic.every((byte, i) => head[i] === byte)) {
      return fileError(
        this.path,
        "written in the format of before PyTorch 1.6: load it in Python and torch.save it again, without '_use_new_zipfile_serialization=False'",
      )
    }
    if (head[0] === 0x50 && head[1] === 0x4b) return this.#broken('it has no end; is it cut short?')
    return fileError(
      this.path,
      'not a file of torch.save, which is a zip archive (loadSafetensors reads .safetensors files)',
    )
  }
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
