/**
 * What a commit remembers of the records behind its offset: those that are settled already, and how often and until when
 * those that are not have been put off. It goes along as the commit's metadata, which a broker takes up to 4,096 bytes of,
 * so that a run that dies does not make the next one handle again what was done beyond a gap, or begin anew to count.
 *
 * ```
 * metadata => "kedge1:" base64(settledTo, count, (gap, attempts, dueSeconds)*, (gap, strikes * 2 + isCalled)*)
 * ```
 *
 * All numbers are unsigned varints: `settledTo` less the commit's offset; of each open record its offset less the one before
 * it; how often it was tried; when it is due, in seconds since the epoch, 0 for at once. Everything from the commit's offset
 * to `settledTo` that is not listed is settled. Where it is too long, `settledTo` comes down: what is forgotten comes again.
 *
 * What is behind the open records says which of them are suspected of having ended a process, each by its offset less the
 * commit's, and which one is being called (`careful.ts`). Room is kept for that, whatever else is forgotten. Whoever does
 * not know of it stops reading before it.
 */
import { base64Of, bytesOfBase64 } from '../base64.ts'
import { MAX_OFFSET_METADATA_BYTES } from '../broker.ts'
import type { Offset, TimestampMs } from '../record.ts'

/** A record that is not settled yet. */
export interface OpenRecord {
  readonly offset: Offset
  /** How often its handler was called. */
  readonly attempts: number
  /** Not to be tried before, by the wall clock; 0: at once. */
  readonly dueAtMs: TimestampMs
}

/** A record whose handler may have ended its process. */
export interface SuspectRecord {
  readonly offset: Offset
  /** How often. */
  readonly strikes: number
  /** Its handler is called as soon as this is durable. Of all partitions of a run one record is. */
  readonly isCalled: boolean
}

/** What is known beyond a committed offset. */
export interface Progress {
  /** Everything before it that is not open is settled. */
  readonly settledTo: Offset
  /** In the order of their offsets. */
  readonly open: readonly OpenRecord[]
  /** Some of those that are open, up to `MAX_SUSPECTS`. @default none */
  readonly suspects?: readonly SuspectRecord[]
}

const MARK = 'kedge1:'
/** Four characters of base64 carry three bytes. */
const MAX_BYTES = Math.floor(((MAX_OFFSET_METADATA_BYTES - MARK.length) * 3) / 4)
/** The head: `settledTo` and the count, at their longest. */
const HEAD_BYTES = 16
/** Of one partition. There is one for each death at most, and each is settled before another is called. */
export const MAX_SUSPECTS = 32

/** Metadata for a commit of `offset`, null where the offset says everything; and how far it reaches. */
export function encodeProgress(
  offset: Offset,
  { settledTo, open, suspects = [] }: Progress,
): { readonly metadata: string | null; readonly reach: Offset } {
  const tail = suspects.length === 0 ? [] : suspectsAsBytes(offset, suspects)
  const body: number[] = []
  let before = offset
  let count = 0
  let reach = settledTo
  for (const one of open) {
    const entry: number[] = []
    putVarint(entry, one.offset - before)
    putVarint(entry, one.attempts)
    putVarint(entry, Math.ceil(one.dueAtMs / 1000))
    if (HEAD_BYTES + body.length + entry.length + tail.length > MAX_BYTES) {
      reach = one.offset
      break
    }
    body.push(...entry)
    before = one.offset
    count += 1
  }
  // One record that was never tried, and nothing behind it, is what an offset alone says too.
  const isPlain = open.every(({ attempts, dueAtMs }) => attempts === 0 && dueAtMs === 0) && reach - offset <= count
  if (isPlain && tail.length === 0) return { metadata: null, reach: offset }
  const head: number[] = []
  putVarint(head, reach - offset)
  putVarint(head, count)
  return { metadata: MARK + base64Of(Uint8Array.from([...head, ...body, ...tail])).replaceAll('=', ''), reach }
}

/** What a commit's metadata says; undefined where it says nothing, or was written by somebody else. */
export function decodeProgress(offset: Offset, metadata: string | null): Progress | undefined {
  if (metadata === null || !metadata.startsWith(MARK)) return undefined
  const text = metadata.slice(MARK.length)
  const bytes = bytesOfBase64(text + '='.repeat((4 - (text.length % 4)) % 4))
  if (bytes === undefined) return undefined
  const read = varintsOf(bytes)
  const reach = read()
  const count = read()
  if (reach === undefined || count === undefined) return undefined
  const open: OpenRecord[] = []
  let before = offset
  for (let left = count; left > 0; left -= 1) {
    const gap = read()
    const attempts = read()
    const dueSeconds = read()
    if (gap === undefined || attempts === undefined || dueSeconds === undefined) return undefined
    before += gap
    open.push({ offset: before, attempts, dueAtMs: dueSeconds * 1000 })
  }
  const suspects = suspectsFrom(offset, read)
  return { settledTo: offset + reach, open, ...(suspects.length === 0 ? {} : { suspects }) }
}

/** The one that is called comes first: it must not be what there is no room for. */
function suspectsAsBytes(offset: Offset, suspects: readonly SuspectRecord[]): number[] {
  const bytes: number[] = []
  for (const one of suspects.toSorted((a, b) => Number(b.isCalled) - Number(a.isCalled)).slice(0, MAX_SUSPECTS)) {
    putVarint(bytes, one.offset - offset)
    putVarint(bytes, one.strikes * 2 + Number(one.isCalled))
  }
  return bytes
}

function suspectsFrom(offset: Offset, read: () => number | undefined): SuspectRecord[] {
  const suspects: SuspectRecord[] = []
  while (suspects.length < MAX_SUSPECTS) {
    const gap = read()
    const what = read()
    if (gap === undefined || what === undefined) break
    suspects.push({ offset: offset + gap, strikes: Math.floor(what / 2), isCalled: what % 2 === 1 })
  }
  return suspects
}

function putVarint(bytes: number[], value: number): void {
  let left = value
  while (left >= 0x80) {
    bytes.push((left % 0x80) | 0x80)
    left = Math.floor(left / 0x80)
  }
  bytes.push(left)
}

/** Reads one number after the other; undefined at the end, and for what is no number of ours. */
function varintsOf(bytes: Uint8Array): () => number | undefined {
  let at = 0
  return () => {
    let value = 0
    for (let factor = 1; factor <= 2 ** 49; factor *= 0x80) {
      const byte = bytes[at++]
      if (byte === undefined) return undefined
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return Number.isSafeInteger(value) ? value : undefined
    }
    return undefined
  }
}
