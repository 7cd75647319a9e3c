/**
 * Finds the record whose handler ends its process. A run whose predecessor on the instance never gave its claim back is
 * careful: it handles one record at a time, and makes durable which one before it calls the handler. So the run after one
 * that dies finds the record named. Runs after one that ended in order know nothing of all this, and it costs them nothing.
 *
 * A death counts as a strike against the record that was named, or, where none was, against each record that a careful run
 * names next. Who has as many strikes as the app allows is not called, but made a dead letter. Who is called and lives is
 * acquitted.
 */
import { backoffMs } from '../backoff.ts'
import type { Backoff } from '../backoff.ts'
import type { Broker, PollResult } from '../broker.ts'
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { HandlerError } from '../errors.ts'
import type { Log } from '../logger.ts'
import type { Random } from '../random.ts'
import { partitionKey } from '../record.ts'
import type { Offset, TopicPartition } from '../record.ts'
import type { Budget } from './budget.ts'
import type { Calls } from './calls.ts'
import type { Committer } from './committer.ts'
import type { Outcome } from './handling.ts'
import type { Entry, Lane } from './lane.ts'
import type { Progress, SuspectRecord } from './progress.ts'
import type { SetAside } from './set-aside.ts'

/** What being careful needs of its run. */
export interface CarefulScope {
  /** Strikes at which a record is set aside. */
  readonly maxCrashes: number
  readonly broker: Broker
  readonly log: Log | undefined
  readonly clock: Clock
  readonly random: Random
  readonly budget: Budget
  readonly calls: Calls
  readonly backoff: Backoff
  /** Aborted when nothing may wait any longer. */
  readonly ending: AbortSignal
}

const unfinished: Outcome = { kind: 'unfinished' }
/** For the commit that names a record, and the dead letter that may become of it. */
const CALLS_PER_RECORD = 2
/** Tries to name one record. */
const MAX_NAMINGS = 3

/** What one run knows of records that end processes. */
export class Careful {
  readonly #scope: CarefulScope
  #isOn = false
  /** What the former run named is known. */
  #isInformed = false
  /** The former run's death is one that some record was named for, or is set aside for. */
  #isExplained = false
  /** Records that are to be set aside and are not yet. */
  readonly #owed = new Set<string>()

  constructor(scope: CarefulScope) {
    this.#scope = scope
  }

  /** Whether one record is handled at a time, each named before it is called. */
  get isOn(): boolean {
    return this.#isOn
  }

  /** Whether a record of which this run knows is still to be set aside, which the next run has to know too. */
  get isOwing(): boolean {
    return this.#owed.size > 0
  }

  /** Whether there are calls for one more record. */
  get mayBegin(): boolean {
    return !this.#isOn || this.#scope.calls.mayMakeSo(CALLS_PER_RECORD)
  }

  /**
   * Partitions whose commits the run has to look at before it takes an answer: those that it holds, the first time that it
   * hears of a former run that lapsed. Whom that one named decides who else is suspected. Undefined where it need not.
   */
  asks(answer: PollResult): readonly TopicPartition[] | undefined {
    const { broker, log } = this.#scope
    if (answer.formerRunLapsed === true && !this.#isOn && broker.features.offsetMetadata) {
      this.#isOn = true
      const message =
        'The former run never gave its claim back. Records are handled one at a time, so that one that ends its process is found.'
      log?.({ level: 'warn', event: 'careful', message })
    }
    return this.#isOn && !this.#isInformed && answer.records.length > 0 ? answer.assignment : undefined
  }

  /** All that was asked for is recalled. */
  informed(): void {
    this.#isInformed = this.#isOn
  }

  /** What a commit says of a partition, as this run has to see it. */
  recall(place: TopicPartition, progress: Progress): Progress {
    const suspects = (progress.suspects ?? []).flatMap((suspect) => this.#judge(place, suspect))
    return { ...progress, suspects }
  }

  #judge(place: TopicPartition, { offset, strikes: before, isCalled }: SuspectRecord): SuspectRecord[] {
    const { maxCrashes } = this.#scope
    // Of a run that ended in order the handler came back, or was given up: what made it careful was another's doing.
    const strikes = isCalled ? before + (this.#isOn ? 1 : -1) : before
    if (strikes >= maxCrashes) this.#owed.add(keyOf(place, offset))
    if (isCalled || strikes >= maxCrashes) this.#isExplained = true
    return strikes <= 0 ? [] : [{ offset, strikes, isCalled: false }]
  }

  /** Strikes against a record, that of the former run included. */
  strikesOf(lane: Lane, offset: Offset): number {
    return lane.strikesOf(offset) + (this.#isOn && !this.#isExplained ? 1 : 0)
  }

  /** Whether a record may not be called any more. */
  isCondemned({ lane, record }: Entry): boolean {
    return this.strikesOf(lane, record.offset) >= this.#scope.maxCrashes
  }

  /** Sets a record aside that ended its process too often. */
  async setAside({ lane, record, found, attempts }: Entry, setAside: SetAside): Promise<Outcome> {
    const { plan, returned, origin = record } = found
    const strikes = this.strikesOf(lane, record.offset)
    const subject = { record: origin, returned, route: plan.route }
    const outcome = await setAside.deadLetter(subject, 'crashed', crashed(plan.route, strikes), attempts + strikes)
    if (outcome.kind === 'dead-lettered') this.#owed.delete(keyOf(lane, record.offset))
    return outcome
  }

  /** Calls a record's handler once it is durable that it is called. Where that cannot be made durable it is not. */
  async call(entry: Entry, committer: Committer, handle: () => Outcome | Promise<Outcome>): Promise<Outcome> {
    const { lane, record } = entry
    if (!(await this.#name(entry, committer))) {
      lane.unname()
      return unfinished
    }
    const outcome = await handle()
    lane.unname()
    if (outcome.kind !== 'unfinished') lane.acquit(record.offset)
    committer.note()
    return outcome
  }

  async #name({ lane, record }: Entry, committer: Committer): Promise<boolean> {
    const { clock, random, budget, calls, backoff, ending } = this.#scope
    lane.name(record.offset, this.strikesOf(lane, record.offset))
    const { version } = lane
    const isOver = (): boolean => ending.aborted || !lane.isOpen || clock.monotonic() >= budget.takeUntil
    for (let tries = 1; ; tries++) {
      await committer.flush(lane)
      if (isOver()) return false
      if (lane.committedVersion >= version) return true
      if (tries >= MAX_NAMINGS || lane.isRefused || !calls.mayMakeSo(CALLS_PER_RECORD)) return false
      await sleep(clock, backoffMs(backoff, tries, random), ending).catch(() => undefined)
    }
  }
}

function crashed(route: string, strikes: number): HandlerError {
  const message = `A handler did not come to an end: on route ${route}: its process died ${strikes} times with the record in hand: look in it for memory, an endless loop or an exit, then redrive.`
  return new HandlerError('HANDLER_FAILED', message)
}

function keyOf(place: TopicPartition, offset: Offset): string {
  return `${partitionKey(place)} ${offset}`
}
