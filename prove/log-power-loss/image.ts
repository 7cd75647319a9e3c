/**
 * What a disk may hold when the power fails: all that was synced, and of everything after it any part. A write that was not synced
 * is there, is not, or is there in some of its sectors; a creation or removal that the folder was not synced after is there or not.
 */
import type { Deed } from './recording.ts'

/** What a file of the folder holds. */
export type Image = ReadonlyMap<string, Buffer>

/** A write to one sector is done or not done. */
const SECTOR_BYTES = 512

/** How much of what was not synced is on the disk. */
export interface Fate {
  readonly random: () => number
  /** How likely a deed is there. */
  readonly kept: number
  /** How likely a write that is there is so in some sectors only. */
  readonly torn: number
}

/** What the disk holds when the power fails after so many deeds. */
export function imageAfter(deeds: readonly Deed[], count: number, fate: Fate): Image {
  const synced = syncsOf(deeds, count)
  const files = new Map<number, Content>()
  const names = new Map<string, number>()
  for (let index = 0; index < count; index++) {
    const deed = deeds[index]
    if (deed === undefined || deed.what === 'told' || deed.what === 'sync' || deed.what === 'sync folder') continue
    const isDurable = index < (synced.get('file' in deed && deed.what !== 'create' ? deed.file : 0) ?? 0)
    if (!isDurable && fate.random() >= fate.kept) continue
    if (deed.what === 'create') names.set(deed.name, deed.file)
    else if (deed.what === 'remove') names.delete(deed.name)
    else {
      const content = files.get(deed.file) ?? new Content()
      files.set(deed.file, content)
      if (deed.what === 'truncate') content.resize(deed.length)
      else write(content, deed, !isDurable && fate.random() < fate.torn ? fate.random : undefined)
    }
  }
  return new Map([...names].map(([name, file]) => [name, files.get(file)?.bytes ?? Buffer.alloc(0)]))
}

/** Behind which deed each file was synced last; the folder as file 0. */
function syncsOf(deeds: readonly Deed[], count: number): Map<number, number> {
  const synced = new Map<number, number>()
  for (let index = 0; index < count; index++) {
    const deed = deeds[index]
    if (deed?.what === 'sync') synced.set(deed.file, index)
    if (deed?.what === 'sync folder') synced.set(0, index)
  }
  return synced
}

function write(
  content: Content,
  { offset, bytes }: Extract<Deed, { what: 'write' }>,
  tear: (() => number) | undefined,
): void {
  content.resize(Math.max(content.length, offset + bytes.length))
  if (tear === undefined) {
    bytes.copy(content.bytes, offset)
    return
  }
  for (let at = 0; at < bytes.length;) {
    const next = Math.min(bytes.length, at + SECTOR_BYTES - ((offset + at) % SECTOR_BYTES))
    if (tear() < 0.5) bytes.copy(content.bytes, offset + at, at, next)
    at = next
  }
}

/** What a file holds. It grows by doubling, for it grows with every write. */
class Content {
  length = 0
  #room = Buffer.alloc(0)

  get bytes(): Buffer {
    return this.#room.subarray(0, this.length)
  }

  resize(length: number): void {
    if (length > this.#room.length) {
      const room = Buffer.alloc(Math.max(length, 2 * this.#room.length))
      this.bytes.copy(room)
      this.#room = room
    }
    // What is cut off is zeros when the file grows again.
    this.#room.fill(0, Math.min(length, this.length), this.length)
    this.length = length
  }
}
