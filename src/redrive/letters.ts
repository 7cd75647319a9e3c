/** The letters that a redrive is about, oldest first, whatever the order in which their store lists them. */
import type { DeadLetter, DeadLetterId, DeadLetterStore } from '../dead-letter.ts'
import { DeadLetterStoreError } from '../errors.ts'
import type { RedriveFilter } from '../redrive.ts'
import type { RedriveCalls } from './calls.ts'

/** Where letters come from. */
export interface LetterSource {
  readonly store: DeadLetterStore
  readonly groupId: string
  readonly calls: RedriveCalls
}

/** All matching letters, in the order of the store. At most `pageSize` of them are read ahead. */
export async function* lettersOf(
  { store, groupId, calls }: LetterSource,
  filter: RedriveFilter,
  pageSize: number,
): AsyncGenerator<DeadLetter, void, undefined> {
  let cursor: string | undefined
  do {
    const query = { ...filter, groupId, limit: pageSize, ...(cursor === undefined ? {} : { cursor }) }
    const page = await calls.make((call) => store.list(query, call))
    yield* page.items
    cursor = page.cursor
  } while (cursor !== undefined)
}

/**
 * Matching letters, oldest first: in the order of their puts where the store lists them so; else by the time of their
 * failure, for which all of them are listed first and the `most` oldest of those that are wanted are then got one by one.
 * Who goes on behind these has all of them listed again. Each letter is given once.
 */
export async function* oldestFirst(
  source: LetterSource,
  filter: RedriveFilter,
  {
    pageSize,
    most,
    isWanted,
  }: {
    readonly pageSize: number
    readonly most: number
    /** Also told whether the letters are listed for the first time. */
    readonly isWanted: (letter: DeadLetter, isFirstLook: boolean) => Promise<boolean>
  },
): AsyncGenerator<DeadLetter, void, undefined> {
  const { store, calls } = source
  if (store.features.listOrder === 'put') {
    for await (const letter of lettersOf(source, filter, pageSize)) if (await isWanted(letter, true)) yield letter
    return
  }
  const given = new Set<DeadLetterId>()
  for (let isFirstLook = true, hasMore = true; hasMore; isFirstLook = false) {
    const isNew = async (letter: DeadLetter): Promise<boolean> =>
      !given.has(letter.id) && (await isWanted(letter, isFirstLook))
    const places = await oldestPlaces(lettersOf(source, filter, MAX_PAGE), most, isNew)
    hasMore = places.hasMore
    for (const { id } of places.oldest) {
      given.add(id)
      const letter = await calls.make((call) => store.get(id, call))
      // Somebody else may have deleted it meanwhile.
      if (letter !== undefined) yield letter
    }
  }
}

/** Where the `most` oldest of the wanted letters are, and whether there are more. Holds twice as many at most. */
async function oldestPlaces(
  letters: AsyncIterable<DeadLetter>,
  most: number,
  isWanted: (letter: DeadLetter) => Promise<boolean>,
): Promise<{ readonly oldest: readonly Place[]; readonly hasMore: boolean }> {
  const places: Place[] = []
  let wanted = 0
  for await (const letter of letters) {
    if (!(await isWanted(letter))) continue
    wanted += 1
    const { topic, partition, offset } = letter.record
    places.push({ id: letter.id, failedAtMs: letter.failedAtMs, topic, partition, offset })
    if (places.length >= 2 * most) places.sort(byAge).splice(most)
  }
  return { oldest: places.sort(byAge).slice(0, most), hasMore: wanted > most }
}

/**
 * Deletes a letter that was handed back.
 * @throws {DeadLetterStoreError} UNSUPPORTED where it stays, as in a chain of which one store cannot delete: each run would hand it
 * back again · as the store does
 */
export async function deleteLetter(store: DeadLetterStore, calls: RedriveCalls, id: DeadLetterId): Promise<void> {
  const wasThere = await calls.make((call) => store.delete(id, call))
  if (wasThere || !store.features.get || (await calls.make((call) => store.get(id, call))) === undefined) return
  throw new DeadLetterStoreError(
    'UNSUPPORTED',
    `Cannot delete dead letter ${id}, which was handed back: its store does not delete, and each run would hand it back again. Keep letters in stores that do.`,
  )
}

/** Letters in one answer where nothing else bounds them. */
export const MAX_PAGE = 100

interface Place {
  readonly id: DeadLetterId
  readonly failedAtMs: number
  readonly topic: string
  readonly partition: number
  readonly offset: number
}

function byAge(a: Place, b: Place): number {
  if (a.failedAtMs !== b.failedAtMs) return a.failedAtMs - b.failedAtMs
  if (a.topic !== b.topic) return a.topic < b.topic ? -1 : 1
  return a.partition - b.partition || a.offset - b.offset
}
