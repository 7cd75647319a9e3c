/**
 * Dead letters that a queue hands over: back to their group through its redrive topic, by a redrive like any other. A queue
 * can be neither listed nor searched, but it can be consumed: who wants its letters back lets it hand them over.
 */
import type { App } from '../app.ts'
import type { Broker } from '../broker.ts'
import { sleep, systemClock } from '../clock.ts'
import type { Clock } from '../clock.ts'
import type { DeadLetter, DeadLetterStore } from '../dead-letter.ts'
import { isClaimReference } from '../dead-letters/claim-check.ts'
import { decodeDeadLetter } from '../dead-letters/codec.ts'
import { memoryDeadLetters } from '../dead-letters/memory.ts'
import { KedgeError } from '../errors.ts'
import type { Log } from '../logger.ts'
import { createRedrive } from '../redrive.ts'
import type { Redrive } from '../redrive.ts'

/** What a queue hands over. */
export interface HandedLetters {
  readonly broker: Broker
  /** The messages' bodies, as the dead-letter stores over queues make them. */
  readonly bodies: readonly string[]
  /** For the audit. */
  readonly actor: string
  /** Letters that are not back when so much time is over come again, milliseconds. */
  readonly timeMs: number
  readonly log: Log
  readonly clock?: Clock
}

/** Between two tries to be the one redrive of a group. */
const LOCK_RETRY_MS = 500

/**
 * Hands letters back and says of each message whether that is done: its record is durable in the redrive topic. Not done, and
 * named in a line, is what is no letter, of another group, quarantined, refused, or a reference to a letter elsewhere. Waits
 * for another redrive of the group to end.
 * @throws {BrokerError} CLAIM_HELD where it did not in time · {ConfigError} as `createRedrive` does · as the broker does
 */
export async function redriveHanded(app: App, handed: HandedLetters): Promise<readonly boolean[]> {
  const { broker, bodies, actor, timeMs, log, clock = systemClock } = handed
  const time = new AbortController()
  const cancel = clock.after(timeMs, () => time.abort(new Error('The time for these letters is over.')))
  try {
    await using store = memoryDeadLetters()
    const letters: (DeadLetter | undefined)[] = []
    for (const body of bodies) {
      const letter = letterIn(body, app, log)
      letters.push(letter !== undefined && (await takes(store, letter, log)) ? letter : undefined)
    }
    const redrive = createRedrive({ broker, store, groupId: app.groupId, app, log, clock })
    await runWhenFree(redrive, actor, time.signal, clock)
    return await Promise.all(
      letters.map(async (letter) => letter !== undefined && (await store.get(letter.id)) === undefined),
    )
  } finally {
    cancel()
  }
}

/** The letter in a message, where it is one that can go back. */
function letterIn(body: string, { groupId }: App, log: Log): DeadLetter | undefined {
  const left = (cause: string, letterId?: string): undefined => {
    log({ level: 'warn', event: 'dead letter left in its queue', group: groupId, letterId, cause })
    return undefined
  }
  try {
    const letter = decodeDeadLetter(body)
    if (letter.groupId !== groupId) return left(`It is one of group ${letter.groupId}.`, letter.id)
    if (isClaimReference(letter)) return left('It is a reference to a letter in another store.', letter.id)
    return letter
  } catch (error) {
    if (!(error instanceof KedgeError)) throw error
    return left(error.message)
  }
}

/** Whether the batch has no letter of another record with the same id before this one, which then waits for its turn. */
async function takes(store: DeadLetterStore, letter: DeadLetter, log: Log): Promise<boolean> {
  try {
    await store.put(letter)
    return true
  } catch (error) {
    if (!(error instanceof KedgeError) || error.code !== 'DEAD_LETTER_ID_TAKEN') throw error
    const { groupId: group, id: letterId } = letter
    log({ level: 'warn', event: 'dead letter left in its queue', group, letterId, cause: error.message })
    return false
  }
}

/** Batches come side by side, and one redrive of a group is active at a time. */
async function runWhenFree(redrive: Redrive, actor: string, signal: AbortSignal, clock: Clock): Promise<void> {
  for (;;) {
    try {
      await redrive.run({ actor, signal })
      return
    } catch (error) {
      if (!(error instanceof KedgeError) || error.code !== 'CLAIM_HELD' || signal.aborted) throw error
      // Where the time is over meanwhile, the next try says so by its own error.
      await sleep(clock, LOCK_RETRY_MS, signal).catch(() => undefined)
    }
  }
}
