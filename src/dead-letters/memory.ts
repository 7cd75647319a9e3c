/**
 * Dead letters in the memory of this process: gone with it. For tests, trials and development.
 * A letter that is put again under an id that is stored changes nothing: the first is kept.
 */
import type { Call } from '../broker.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterQuery, DeadLetterStore, Page } from '../dead-letter.ts'
import { DeadLetterStoreError } from '../errors.ts'
import { checkCall, checkSameRecord, invalidCursor, listLimit, matches } from './call.ts'

/** Options of `memoryDeadLetters`. */
export interface MemoryDeadLettersOptions {
  /** Most letters kept. One more is refused, never exchanged for an old one. @default 100000, legal 1 and more */
  readonly maxLetters?: number
}

const memoryDeadLettersDefaults = { maxLetters: 100_000 } satisfies Required<MemoryDeadLettersOptions>

const features: DeadLetterFeatures = Object.freeze({
  deduplicates: true,
  list: true,
  listOrder: 'put',
  get: true,
  delete: true,
  maxLetterBytes: null,
})

/** Opens an empty store. */
export function memoryDeadLetters(options: MemoryDeadLettersOptions = {}): DeadLetterStore {
  const maxLetters = options.maxLetters ?? memoryDeadLettersDefaults.maxLetters
  /** In the order of their first put; `sequence` is what a cursor names, so that deletes do not move a page. */
  const letters = new Map<string, { readonly sequence: number; readonly letter: DeadLetter }>()
  let nextSequence = 0
  let isClosed = false

  async function put(letter: DeadLetter, call?: Call): Promise<void> {
    checkCall('memory', isClosed, call)
    const stored = letters.get(letter.id)
    if (stored !== undefined) {
      checkSameRecord(letter, stored.letter)
      return
    }
    if (letters.size >= maxLetters) {
      throw new DeadLetterStoreError(
        'DEAD_LETTER_STORE_UNAVAILABLE',
        `Cannot store dead letter ${letter.id}: the store holds ${maxLetters} already. Delete some or raise maxLetters.`,
        { limit: 'maxLetters' },
      )
    }
    letters.set(letter.id, { sequence: nextSequence, letter: copyOf(letter) })
    nextSequence += 1
  }

  async function list(query: DeadLetterQuery = {}, call?: Call): Promise<Page<DeadLetter>> {
    checkCall('memory', isClosed, call)
    const limit = listLimit(query)
    const after = sequenceOf(query.cursor)
    const items: DeadLetter[] = []
    let last = after
    for (const { sequence, letter } of letters.values()) {
      if (sequence <= after || !matches(letter, query)) continue
      if (items.length === limit) return { items, cursor: String(last) }
      items.push(copyOf(letter))
      last = sequence
    }
    return { items }
  }

  return {
    features,
    put,
    list,
    async get(id, call) {
      checkCall('memory', isClosed, call)
      const stored = letters.get(id)
      return stored === undefined ? undefined : copyOf(stored.letter)
    },
    async delete(id, call) {
      checkCall('memory', isClosed, call)
      return letters.delete(id)
    },
    async close() {
      isClosed = true
      letters.clear()
    },
    async [Symbol.asyncDispose]() {
      await this.close()
    },
  }
}

function sequenceOf(cursor: string | undefined): number {
  if (cursor === undefined) return -1
  if (!/^\d{1,15}$/.test(cursor)) throw invalidCursor()
  return Number(cursor)
}

/** The store keeps nothing that it was given and hands out nothing that it keeps. */
function copyOf(letter: DeadLetter): DeadLetter {
  const { record } = letter
  return {
    ...letter,
    cause: { ...letter.cause },
    record: {
      ...record,
      key: bytesCopy(record.key),
      value: bytesCopy(record.value),
      headers: record.headers.map(({ key, value }) => ({ key, value: bytesCopy(value) })),
    },
  }
}

function bytesCopy(bytes: Uint8Array | null): Uint8Array | null {
  return bytes === null ? null : Uint8Array.from(bytes)
}
