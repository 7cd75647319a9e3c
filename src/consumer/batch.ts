/**
 * One batch: records of one partition and route that their handler gets together. Where it fails and does not say which
 * records it failed for, the batch is halved, and the halves are called in order, until a record that fails stands alone. What
 * becomes of that one is its route's policy, as of any record. Failing in company counts as no attempt.
 *
 * Of a half that failed some records may have been handled already: they are called again.
 */
import { BatchError } from '../handler-errors.ts'
import type { ConsumerRecord } from '../record.ts'
import { Attempt } from './attempt.ts'
import type { AttemptResult, AttemptScope, AttemptWork } from './attempt.ts'
import { asSeen, runCauseOf } from './cause.ts'
import type { Outcome, Work } from './handling.ts'
import type { Entry } from './lane.ts'
import { handlerAfter, valueOf, withValue } from './typed-value.ts'

/** A record of a batch. */
export interface BatchItem {
  readonly entry: Entry
  readonly work: Work
  /** Its schema refuses it. */
  refused: { readonly error: unknown } | undefined
  /** Its schema has not answered yet. Never rejects. */
  checking: Promise<void> | undefined
}

/** What a batch needs of the handling of single records. */
export interface BatchScope extends AttemptScope {
  /** Makes an attempt of one record alone. */
  readonly one: (work: Work, number: number, now: number) => Outcome | Promise<Outcome>
  /** What becomes of a record after an attempt. */
  readonly after: (work: Work, number: number, result: AttemptResult) => Outcome | Promise<Outcome>
  /** Makes a record a dead letter whose value its schema refuses. */
  readonly refuse: (work: Work, error: unknown) => Promise<Outcome>
}

/** Who hands a batch over. */
export interface BatchHost {
  /** Whether another call may begin. */
  readonly mayGoOn: () => boolean
  /** Takes what became of a record. After a `retry`, those that have to wait for it are not active any more. */
  readonly tell: (entry: Entry, outcome: Outcome, number: number) => void
}

const handled: Outcome = { kind: 'handled' }
const unfinished: Outcome = { kind: 'unfinished' }

/** The handling of one batch. */
export class Batch {
  readonly #scope: BatchScope
  readonly #host: BatchHost
  readonly #items: readonly BatchItem[]
  /** Monotonic: from then on each record is called alone. */
  readonly #splitUntil: number
  /** What is still to be called, in order; each part together. */
  #parts: (readonly BatchItem[])[] = []

  /** `items` has at least one, and all are of one lane and batch route. */
  constructor(scope: BatchScope, host: BatchHost, items: readonly BatchItem[], now: number) {
    this.#scope = scope
    this.#host = host
    this.#items = items
    this.#splitUntil = now + (items[0]?.work.plan.batch?.splitMs ?? 0)
  }

  /** Handles the batch. Every record that is active afterwards was told of. */
  async run(): Promise<void> {
    const isChecked = await this.#check()
    this.#parts = isChecked ? partsOf(this.#items) : [this.#items]
    let goesOn = isChecked
    while (goesOn) {
      const part = this.#parts.shift()
      if (part === undefined) return
      goesOn = this.#host.mayGoOn() && (await this.#handle(part))
      if (!goesOn) this.#parts.unshift(part)
    }
    for (const { entry } of this.#parts.flat()) if (entry.isActive) this.#host.tell(entry, unfinished, 0)
  }

  /** Waits for schemas that answer later, for as long as one attempt may take. Says whether the batch goes on. */
  async #check(): Promise<boolean> {
    const checking = this.#items.flatMap((item) => item.checking ?? [])
    if (checking.length === 0) return true
    const result = await this.#attempt(this.#items, () => Promise.all(checking))
    return result.kind !== 'given-up'
  }

  /** Calls a part, and says whether the batch goes on. */
  async #handle(part: readonly BatchItem[]): Promise<boolean> {
    const [first] = part
    if (part.length === 1 && first !== undefined) return await this.#handleOne(first)
    if (this.#scope.clock.monotonic() >= this.#splitUntil) {
      this.#parts.unshift(...part.map((item) => [item]))
      return true
    }
    const handler = first?.work.plan.batch?.handler
    const result = await this.#attempt(part, handler)
    if (result.kind === 'given-up') return false
    if (result.kind === 'handled') {
      for (const item of part) this.#tell(item, handled)
      return true
    }
    const failures = failuresOf(
      result.error,
      part.map(({ work }) => work.typed),
    )
    if (failures !== undefined) return await this.#failNamed(part, failures)
    this.#logSplit(part, result.error)
    const half = Math.ceil(part.length / 2)
    this.#parts.unshift(part.slice(0, half), part.slice(half))
    return true
  }

  async #handleOne(item: BatchItem): Promise<boolean> {
    const { work, refused } = item
    const { clock, one, refuse } = this.#scope
    const outcome = await (refused === undefined
      ? one(work, numberOf(item), clock.monotonic())
      : refuse(work, refused.error))
    this.#tell(item, outcome)
    return !isEnd(outcome)
  }

  /**
   * The handler has said which records failed. Those that are to be tried again are told of last, so that none begins while
   * another of its key is on its way elsewhere. A breaker that opens meanwhile keeps the rest.
   */
  async #failNamed(part: readonly BatchItem[], failures: ReadonlyMap<number, unknown>): Promise<boolean> {
    const retries: [BatchItem, Outcome][] = []
    let goesOn = true
    for (const [index, item] of part.entries()) if (!failures.has(index)) this.#tell(item, handled)
    for (const [index, item] of part.entries()) {
      if (!failures.has(index)) continue
      goesOn = item.work.plan.breaker?.isOpen !== true
      if (!goesOn) break
      const result: AttemptResult = { kind: 'failed', error: failures.get(index) }
      const outcome = await this.#scope.after(item.work, numberOf(item), result)
      if (outcome.kind === 'retry') retries.push([item, outcome])
      else this.#tell(item, outcome)
      goesOn = !isEnd(outcome)
      if (!goesOn) break
    }
    for (const [item, outcome] of retries) this.#tell(item, outcome)
    return goesOn
  }

  /** One call for several records. */
  async #attempt(items: readonly BatchItem[], handler: AttemptWork['handler'] | undefined): Promise<AttemptResult> {
    const [first] = items
    if (first === undefined || handler === undefined) return { kind: 'handled' }
    const { lane, plan } = first.work
    const now = this.#scope.clock.monotonic()
    const timeoutMs = Math.max(1, Math.min(plan.timeoutMs, this.#splitUntil - now))
    const limits = { route: plan.route, timeoutMs, isCut: plan.isCut, retry: plan.retry }
    const typed = items.map(({ work }) => work.typed)
    const attempt = new Attempt(this.#scope, { typed, handler, plan: limits }, 1, now)
    lane.running.add(attempt)
    const result = await attempt.call()
    lane.running.delete(attempt)
    return result
  }

  #tell(item: BatchItem, outcome: Outcome): void {
    const { entry } = item
    this.#host.tell(entry, outcome, numberOf(item))
    if (outcome.kind !== 'retry' || entry.lane.chainOf(entry).length === 1) return
    // At once: before this batch has its next turn, those that wait may have been begun in another one.
    this.#parts = this.#parts.map((part) => part.filter((one) => one.entry.isActive))
    this.#parts = this.#parts.filter(({ length }) => length > 0)
  }

  #logSplit(part: readonly BatchItem[], error: unknown): void {
    const [first] = part
    if (first === undefined) return
    const { record, plan } = first.work
    const { topic, partition, offset } = record
    const { name: cause, code } = runCauseOf(error)
    const records = part.length
    const { route } = plan
    this.#scope.log?.({ level: 'warn', event: 'batch split', topic, partition, offset, records, route, cause, code })
  }
}

/** A record of a batch, with its value read, and checked as far as that needs no waiting. */
export function itemOf(entry: Entry, now: number): BatchItem {
  const { lane, record: read, found } = entry
  const { matched, plan, returned, origin: record = read } = found
  if (matched === undefined || matched === 'unreadable') throw new TypeError('No record without a route is in a batch.')
  const { handler, match } = matched.route
  const work: Work = { lane, record, typed: record, handler, plan, returned, startedAt: now }
  const item: BatchItem = { entry, work, refused: undefined, checking: undefined }
  if (typeof match.topic === 'string') return item
  try {
    const value = valueOf(match.topic, record, matched.json)
    if (value instanceof Promise) {
      work.handler = handlerAfter(value, handler)
      item.checking = value
        .then(
          (later) => void (work.typed = withValue(record, later)),
          (error: unknown) => void (item.refused = { error }),
        )
        .finally(() => void (item.checking = undefined))
    } else work.typed = withValue(record, value)
  } catch (error) {
    item.refused = { error }
  }
  return item
}

/** What a handler of this record alone would have thrown. */
export function ownErrorOf(error: unknown, typed: ConsumerRecord<unknown>): unknown {
  const failures = failuresOf(error, [typed])
  return failures === undefined ? error : failures.get(0)
}

/** Errors by index, where a handler has named the records that failed and nothing but records that it got. */
function failuresOf(
  error: unknown,
  records: readonly ConsumerRecord<unknown>[],
): ReadonlyMap<number, unknown> | undefined {
  if (!(error instanceof BatchError)) return undefined
  const indexes = new Map(records.map((record, index) => [placeOf(record), index]))
  const failures = new Map<number, unknown>()
  for (const { record, error: own } of error.failures) {
    const index = typeof record === 'number' ? record : (indexes.get(placeOf(record)) ?? -1)
    if (records[index] === undefined) return undefined
    if (!failures.has(index)) failures.set(index, asSeen(own))
  }
  return failures
}

/** A handler may have made a record of its own from the one that it got. */
function placeOf({ topic, partition, offset }: ConsumerRecord<unknown>): string {
  return `${topic}/${partition}/${offset}`
}

/** What is called together. A record that never reaches the handler, or may not yet, is a part of its own. */
function partsOf(items: readonly BatchItem[]): (readonly BatchItem[])[] {
  const isAlone = ({ refused, checking }: BatchItem): boolean => refused !== undefined || checking !== undefined
  if (items[0]?.work.plan.ordering === 'none') {
    const together = items.filter((item) => !isAlone(item))
    return [...(together.length > 0 ? [together] : []), ...items.filter(isAlone).map((item) => [item])]
  }
  const parts: BatchItem[][] = []
  let open: BatchItem[] | undefined
  for (const item of items) {
    if (isAlone(item)) parts.push([item])
    else if (open === undefined) parts.push((open = [item]))
    else open.push(item)
    if (isAlone(item)) open = undefined
  }
  return parts
}

function numberOf({ entry }: BatchItem): number {
  return entry.attempts + 1
}

/** Whether nothing more of the batch can be handled in this run. */
function isEnd({ kind }: Outcome): boolean {
  return kind === 'stopped' || kind === 'unfinished'
}
