/** One run of a redrive: letter after letter, each durable in its topic before it is deleted from its store. */
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { runCauseOf } from '../consumer/cause.ts'
import type { RunCause } from '../consumer/report.ts'
import type { DeadLetter } from '../dead-letter.ts'
import { KedgeError } from '../errors.ts'
import { isLockLost } from '../group-lock.ts'
import { partitionKey } from '../record.ts'
import type { RedriveCounts, RedriveEnd, RedriveFilter, RedriveReport, RedriveSettings } from '../redrive.ts'
import type { AuditedWork } from './audit.ts'
import { deleteLetter, MAX_PAGE, oldestFirst } from './letters.ts'
import { Pace } from './pace.ts'

/** What a run was asked for. */
export interface RunBounds {
  readonly filter: RedriveFilter
  readonly maxLetters: number
  readonly perSecond: number
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((counts: RedriveCounts) => void) | undefined
}

/** So many seconds' worth of letters are read ahead: who deletes a letter meanwhile may find it redriven. */
const READ_AHEAD_S = 10
/** What a broker says of a record that it will never take. Another letter may well be taken. */
const recordFailures: readonly string[] = ['MESSAGE_TOO_LARGE', 'INVALID_RECORD', 'INVALID_TIMESTAMP', 'LIMIT_EXCEEDED']

/** Hands letters back. Failures are in the report. */
export async function redriveLetters(
  { store, groupId, clock, log }: RedriveSettings,
  work: AuditedWork,
  { filter, maxLetters, perSecond, signal, onProgress }: RunBounds,
): Promise<RedriveReport> {
  const { calls, topics, lock, runId, startedAtMs } = work
  const startedAt = clock.monotonic()
  const pace = new Pace(clock, perSecond)
  const counts = { redriven: 0, quarantined: 0, unread: 0, refused: 0 }
  /** Records that were redriven or refused: one that fails again meanwhile is another letter of the same store. */
  const done = new Set<string>()
  let ended: RedriveEnd = 'done'
  let cause: RunCause | undefined

  async function isWanted(letter: DeadLetter, isFirstLook: boolean): Promise<boolean> {
    if (done.has(placeOf(letter))) return false
    const verdict = await topics.verdictOf(letter)
    if (verdict === 'redrivable') return true
    if (!isFirstLook) return false
    counts[verdict] += 1
    onProgress?.({ ...counts })
    return false
  }

  async function redrive(letter: DeadLetter): Promise<void> {
    const { topic, partition, offset } = letter.record
    const place = { topic, partition, offset, redriveCount: letter.redriveCount + 1, runId }
    try {
      await topics.append(letter)
    } catch (error) {
      if (!(error instanceof KedgeError) || !recordFailures.includes(error.code)) throw error
      counts.refused += 1
      cause ??= runCauseOf(error)
      log?.({ level: 'error', event: 'redrive refused', ...place, code: error.code, cause: error.message })
      return
    }
    await deleteLetter(store, calls, letter.id)
    counts.redriven += 1
    log?.({ level: 'debug', event: 'redriven', ...place })
  }

  try {
    const pageSize = Math.min(MAX_PAGE, Math.max(1, Math.ceil(perSecond * READ_AHEAD_S)))
    // One more than may go, to know whether there are more.
    const letters = oldestFirst({ store, groupId, calls }, filter, { pageSize, most: maxLetters + 1, isWanted })
    for await (const letter of letters) {
      // A letter that is refused stays, and must not be what keeps the others from their turn in every run.
      if (counts.redriven >= maxLetters) {
        ended = 'max-letters'
        break
      }
      await waited(pace, clock, signal, lock)
      if (signal?.aborted === true) {
        ended = 'aborted'
        break
      }
      pace.spend()
      done.add(placeOf(letter))
      await redrive(letter)
      onProgress?.({ ...counts })
    }
  } catch (error) {
    ended = isLockLost(error) ? 'lock-lost' : 'failed'
    cause = runCauseOf(error)
  }
  const durationMs = clock.monotonic() - startedAt
  return { groupId, runId, ended, ...counts, ...(cause === undefined ? {} : { cause }), startedAtMs, durationMs }
}

function placeOf({ record }: DeadLetter): string {
  return `${partitionKey(record)}/${record.offset}`
}

/** Waits until the next letter may go, keeping the lock meanwhile; ends early where the signal is aborted. */
async function waited(
  pace: Pace,
  clock: Clock,
  signal: AbortSignal | undefined,
  lock: { readonly renewEveryMs: number; keep(): Promise<void> },
): Promise<void> {
  while (pace.waitMs > 0) {
    try {
      await sleep(clock, Math.min(pace.waitMs, lock.renewEveryMs), signal)
    } catch {
      // The signal was aborted, which the caller sees by itself.
      return
    }
    await lock.keep()
  }
}
