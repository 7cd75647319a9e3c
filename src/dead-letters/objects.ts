/**
 * Dead letters as objects of a bucket, one for each letter: `<prefix>/<group>/<topic>/<partition>/<offset>.json`, and
 * `<offset>.r<redrives>.json` for a record that failed again after a redrive. The
 * store over a narrow interface that every object storage offers; `s3.ts` and `r2.ts` are two of them.
 *
 * The name says which record it is, so a letter that is put twice is one object, and the first is kept: objects are only
 * ever created. Bucket lists go by name, so letters are listed by record and not by time. What a name does not say is
 * read out of the objects, a page at a time.
 */
import type { Call } from '../broker.ts'
import type { Clock } from '../clock.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterQuery, DeadLetterStore, Page } from '../dead-letter.ts'
import type { TopicPartitionOffset } from '../record.ts'
import { attempt, checkCall, checkSameRecord, idParts, invalidCursor, listLimit, matches } from './call.ts'
import { decodeDeadLetter, encodeDeadLetter } from './codec.ts'
import { digestOf } from '../digest.ts'

/** What the store needs of a bucket. Calls may throw whatever the bucket throws. */
export interface LetterBucket {
  /** The store's name in messages. */
  readonly name: string
  /** Creates an object durably and says whether it did; one that is there already stays as it is. */
  create(key: string, text: string, signal: AbortSignal): Promise<boolean>
  read(key: string, signal: AbortSignal): Promise<string | undefined>
  /** Objects of a prefix in the order of their keys, the first after `after`. */
  list(from: ObjectsFrom, signal: AbortSignal): Promise<ObjectPage>
  /** Deletes an object and says whether there was one. */
  delete(key: string, signal: AbortSignal): Promise<boolean>
  /** Says what was thrown as an error of the port. */
  errorOf(failure: unknown, what: string): Error
  close(): void
}

/** Where a list of objects begins. */
export interface ObjectsFrom {
  readonly prefix: string
  readonly after: string | undefined
  readonly limit: number
}

/** Some objects of a bucket. */
export interface ObjectPage {
  readonly objects: readonly StoredObject[]
  readonly isTruncated: boolean
}

/** An object as a list names it. */
export interface StoredObject {
  readonly key: string
  readonly bytes: number
}

/** How the store over a bucket behaves. */
export interface ObjectDeadLettersSettings {
  /** Where the letters are in the bucket, without slashes at its ends; empty for the bucket itself. */
  readonly prefix: string
  /** Most objects read by one list, which then ends its page early. */
  readonly maxScanObjects: number
  readonly timeoutMs: number
  readonly clock: Clock
}

/** Most letters of a page together, as stored. A page ends early rather than hold more. */
const MAX_PAGE_BYTES = 8_388_608
/** Most objects that S3 and R2 list at once. */
const MAX_LIST_OBJECTS = 1000
/** Most lists of the bucket for one page: a page that finds nothing in 20,000 names ends with a cursor. */
const MAX_LISTS = 20
/** How much of a call's time is over when its page ends early: what is under way then needs the rest. */
const MAX_PAGE_SHARE = 0.5
/** Objects read at the same time: a Worker may have six connections. */
const MAX_READS = 6
/** S3 and R2 allow keys of 1,024 bytes; a group and a topic longer than this are cut and end in a digest. */
const MAX_SEGMENT_CHARS = 400
/** Digits of the largest safe integer: names sort as offsets do. */
const OFFSET_DIGITS = 16

const features: DeadLetterFeatures = Object.freeze({
  deduplicates: true,
  list: true,
  listOrder: 'record',
  get: true,
  delete: true,
  maxLetterBytes: null,
})

/** The store over a bucket. */
export class ObjectDeadLetters implements DeadLetterStore {
  readonly features: DeadLetterFeatures = features
  readonly #bucket: LetterBucket
  readonly #settings: ObjectDeadLettersSettings
  readonly #root: string
  #isClosed = false

  constructor(bucket: LetterBucket, settings: ObjectDeadLettersSettings) {
    this.#bucket = bucket
    this.#settings = settings
    const prefix = settings.prefix.replace(/^\/+|\/+$/g, '')
    this.#root = prefix === '' ? '' : `${prefix}/`
  }

  async put(letter: DeadLetter, call?: Call): Promise<void> {
    checkCall(this.#bucket.name, this.#isClosed, call)
    const text = encodeDeadLetter(letter)
    const key = await this.#keyOf(letter.groupId, { ...letter.record, redriveCount: letter.redriveCount })
    await this.#do(`store dead letter ${letter.id}`, call, async (signal) => {
      if (await this.#bucket.create(key, text, signal)) return
      const stored = await this.#bucket.read(key, signal)
      if (stored !== undefined) checkSameRecord(letter, decodeDeadLetter(stored))
      // What was in its way was deleted since.
      else await this.#bucket.create(key, text, signal)
    })
  }

  async list(query: DeadLetterQuery = {}, call?: Call): Promise<Page<DeadLetter>> {
    checkCall(this.#bucket.name, this.#isClosed, call)
    const limit = listLimit(query)
    const after = query.cursor === undefined ? undefined : this.#root + nameOfCursor(query.cursor)
    const names = await namesOf(query)
    const { clock, timeoutMs } = this.#settings
    const endAt = clock.monotonic() + (call?.timeoutMs ?? timeoutMs) * MAX_PAGE_SHARE
    const isOver = (): boolean => clock.monotonic() >= endAt
    return await this.#do('list dead letters', call, async (signal) => {
      const scan = new Scan({ bucket: this.#bucket, root: this.#root, names, after, isOver, signal })
      return await this.#page(query, limit, { scan, isOver, signal })
    })
  }

  async get(id: string, call?: Call): Promise<DeadLetter | undefined> {
    checkCall(this.#bucket.name, this.#isClosed, call)
    const parts = idParts(id)
    if (parts === undefined) return undefined
    const key = await this.#keyOf(parts.groupId, parts)
    const text = await this.#do(`read dead letter ${id}`, call, (signal) => this.#bucket.read(key, signal))
    return text === undefined ? undefined : decodeDeadLetter(text)
  }

  async delete(id: string, call?: Call): Promise<boolean> {
    checkCall(this.#bucket.name, this.#isClosed, call)
    const parts = idParts(id)
    if (parts === undefined) return false
    const key = await this.#keyOf(parts.groupId, parts)
    return await this.#do(`delete dead letter ${id}`, call, (signal) => this.#bucket.delete(key, signal))
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#bucket.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #keyOf(
    groupId: string,
    { topic, partition, offset, redriveCount }: TopicPartitionOffset & { readonly redriveCount: number },
  ): Promise<string> {
    const name = String(offset).padStart(OFFSET_DIGITS, '0') + (redriveCount === 0 ? '' : `.r${redriveCount}`)
    return `${this.#root}${await segmentOf(groupId)}/${await segmentOf(topic)}/${partition}/${name}.json`
  }

  async #page(query: DeadLetterQuery, limit: number, { scan, isOver, signal }: PageRun): Promise<Page<DeadLetter>> {
    const items: DeadLetter[] = []
    let bytes = 0
    for (let read = 0; ;) {
      // No more than what is missing: what was read is behind the cursor.
      const room = Math.min(MAX_READS, limit - items.length, this.#settings.maxScanObjects - read)
      if (room <= 0 || bytes >= MAX_PAGE_BYTES || (read > 0 && isOver())) break
      const objects = await scan.next(room)
      if (objects.length === 0) break
      const texts = await Promise.all(objects.map(({ key }) => this.#bucket.read(key, signal)))
      read += objects.length
      bytes += objects.reduce((sum, object) => sum + object.bytes, 0)
      // What is undefined was deleted since it was listed.
      const letters = texts.flatMap((text) => (text === undefined ? [] : [decodeDeadLetter(text)]))
      items.push(...letters.filter((letter) => matches(letter, query)))
    }
    const cursor = await scan.cursor()
    return cursor === undefined ? { items } : { items, cursor }
  }

  async #do<T>(what: string, call: Call | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, timeoutMs } = this.#settings
    const limits = { signal: call?.signal, timeoutMs: call?.timeoutMs ?? timeoutMs }
    return await attempt(`${what} in ${this.#bucket.name}`, limits, clock, async (signal) => {
      try {
        return await work(signal)
      } catch (failure) {
        throw this.#bucket.errorOf(failure, what)
      }
    })
  }
}

/** A letter's name behind the root. */
const LETTER_NAME = /^[^/]+\/([^/]+)\/\d{1,10}\/\d{16}(?:\.r\d{1,9})?\.json$/

/** A cursor names the last object that was looked at. */
function cursorOf(name: string): string {
  return `after:${encodeURIComponent(name)}`
}

function nameOfCursor(cursor: string): string {
  const encoded = /^after:([\w%.~!*'()-]{1,4000})$/.exec(cursor)?.[1]
  if (encoded === undefined) throw invalidCursor()
  try {
    return decodeURIComponent(encoded)
  } catch {
    throw invalidCursor()
  }
}

/** What of a query the names of objects say. */
interface Names {
  readonly group: string | undefined
  readonly topic: string | undefined
}

async function namesOf({ groupId, topic }: DeadLetterQuery): Promise<Names> {
  return {
    group: groupId === undefined ? undefined : await segmentOf(groupId),
    topic: topic === undefined ? undefined : await segmentOf(topic),
  }
}

/** What one page is made with. */
interface PageRun {
  readonly scan: Scan
  /** Whether the page has to end with what it has. */
  readonly isOver: () => boolean
  readonly signal: AbortSignal
}

/** Where a scan goes. */
interface ScanOptions {
  readonly bucket: LetterBucket
  readonly root: string
  readonly names: Names
  readonly after: string | undefined
  readonly isOver: () => boolean
  readonly signal: AbortSignal
}

/** Goes through a bucket's letters by their names, a list of the bucket at a time. */
class Scan {
  readonly #bucket: LetterBucket
  readonly #root: string
  readonly #prefix: string
  readonly #topic: string | undefined
  readonly #isOver: () => boolean
  readonly #signal: AbortSignal
  /** The last object that was listed, and the last one that was taken or passed over. */
  #listedTo: string | undefined
  #reached: string | undefined
  #waiting: StoredObject[] = []
  #lists = 0
  #isEnd = false

  constructor({ bucket, root, names, after, isOver, signal }: ScanOptions) {
    const narrowed = names.topic === undefined ? `${names.group}/` : `${names.group}/${names.topic}/`
    this.#bucket = bucket
    this.#root = root
    this.#prefix = names.group === undefined ? root : root + narrowed
    this.#topic = names.topic
    this.#isOver = isOver
    this.#signal = signal
    this.#listedTo = after
    this.#reached = after
  }

  /** The next objects that may be letters of the query; none at the end, or when enough was listed for one page. */
  async next(count: number): Promise<StoredObject[]> {
    await this.#fill()
    const taken = this.#waiting.splice(0, count)
    this.#reached = taken.at(-1)?.key ?? this.#reached
    return taken
  }

  /** Where to go on, or undefined where nothing is left. */
  async cursor(): Promise<string | undefined> {
    await this.#fill()
    if (this.#waiting.length === 0 && this.#isEnd) return undefined
    const reached = this.#waiting.length === 0 ? this.#listedTo : this.#reached
    // Without a place of its own the next page begins where this one did.
    return reached === undefined ? undefined : cursorOf(reached.slice(this.#root.length))
  }

  async #fill(): Promise<void> {
    while (this.#waiting.length === 0 && !this.#isEnd && this.#lists < MAX_LISTS) {
      if (this.#lists > 0 && this.#isOver()) return
      const from = { prefix: this.#prefix, after: this.#listedTo, limit: MAX_LIST_OBJECTS }
      const { objects, isTruncated } = await this.#bucket.list(from, this.#signal)
      this.#lists += 1
      this.#listedTo = objects.at(-1)?.key ?? this.#listedTo
      this.#isEnd = !isTruncated || objects.length === 0
      this.#waiting = objects.filter(({ key }) => this.#isAsked(key))
    }
  }

  #isAsked(key: string): boolean {
    const topic = LETTER_NAME.exec(key.slice(this.#root.length))?.[1]
    return topic !== undefined && (this.#topic === undefined || topic === this.#topic)
  }
}

/** A group or topic as one part of a key: never empty, never dots alone, never with a slash. */
async function segmentOf(text: string): Promise<string> {
  const encoded = encodeURIComponent(text)
  if (encoded.length > MAX_SEGMENT_CHARS) {
    const digest = await digestOf(text)
    return `${encoded.slice(0, MAX_SEGMENT_CHARS - digest.length - 1)}~${digest}`
  }
  if (encoded === '') return '%'
  // Dots alone are a way through folders to whatever takes a key for a path.
  return /^\.+$/.test(encoded) ? encoded.replaceAll('.', '%2E') : encoded
}
