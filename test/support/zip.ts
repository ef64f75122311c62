// A writer of zip archives for tests: stored entries, and every field that a hostile or broken file may get wrong.

export interface Entry {
  name: string
  data: Uint8Array
  /** Written to the directory instead of the truth. */
  claims?: { size?: number; compressedSize?: number; method?: number; flags?: number; headerOffset?: number }
}

/** The bytes of an archive of `entries`. */
export function zip(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { name, data, claims = {} } of entries) {
    const nameBytes = Buffer.from(name)
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt16LE(nameBytes.length, 26)
    parts.push(local, nameBytes, Buffer.from(data))
    const central = Buffer.alloc(46)
    central.writeUInt32LE(0x02014b50, 0)
    central.writeUInt16LE(claims.flags ?? 0, 8)
    central.writeUInt16LE(claims.method ?? 0, 10)
    central.writeUInt32LE(claims.compressedSize ?? data.length, 20)
    central.writeUInt32LE(claims.size ?? data.length, 24)
    central.writeUInt16LE(nameBytes.length, 28)
    central.writeUInt32LE(claims.headerOffset ?? offset, 42)
    directory.push(central, nameBytes)
    offset += 30 + nameBytes.length + data.length
  }
  const bytes = directory.reduce((sum, part) => sum + part.length, 0)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(bytes, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...parts, ...directory, end])
}
