/**
 * Judges a history: what happened to records and offsets, and whether it may have happened. Everything is seen from outside, by
 * the clients. Every proof uses this one checker; `npm run prove -- checker` shows that it finds what it is for.
 *
 * The rules are at the top of `records-judge.ts` and `group-judge.ts`. Beside them: nobody is told that an instance is unknown,
 * and polls are answered in time.
 *
 * The method follows jepsen.redpanda's queue workload: definite and unknown outcomes are told apart.
 */
import { GroupJudge } from './group-judge.ts'
import type { EventOf, Expectations, HistoryEvent, Remains, Violation, ViolationKind } from './history.ts'
import { byPlace, RecordsJudge } from './records-judge.ts'

/** How much happened. */
export interface Figures {
  readonly acknowledged: number
  /** Records that were handled or became dead letters. */
  readonly handled: number
  /** Records that were handled again, because they had not been committed. */
  readonly handledAgain: number
  /** Records that are in the log again, because the outcome of sending them was unknown. */
  readonly writtenAgain: number
  readonly polls: number
  /** How often somebody saw offsets as they were before a commit. */
  readonly lookedBack: number
  /** The newest generation that was seen. */
  readonly generation: number
  /** Longest time that a poll took beyond its wait, milliseconds. */
  readonly maxOverMs: number
  /** Polls that took more than 250 ms beyond their wait. */
  readonly latePolls: number
  /** Calls that failed, by kind and code. */
  readonly failures: Readonly<Record<string, number>>
}

/** What the checker says. */
export interface Verdict {
  readonly violations: readonly Violation[]
  readonly figures: Figures
}

/** A poll is to be answered within its wait and so long. */
const GRACE_MS = 250

/** Judges a history by what is there in the end. */
export function check(events: readonly HistoryEvent[], remains: Remains, expectations: Expectations): Verdict {
  const judge = new Judge(remains, expectations)
  for (const event of events) judge.see(event)
  return judge.verdict()
}

class Judge {
  readonly #remains: Remains
  readonly #expectations: Expectations
  readonly #violations: Violation[] = []
  readonly #records: RecordsJudge
  readonly #group: GroupJudge
  readonly #failures: Record<string, number> = {}
  #polls = 0
  #maxOverMs = 0
  #latePolls = 0

  constructor(remains: Remains, expectations: Expectations) {
    this.#remains = remains
    this.#expectations = expectations
    const say = (kind: ViolationKind, detail: string): void => void this.#violations.push({ kind, detail })
    this.#records = new RecordsJudge(remains, say)
    this.#group = new GroupJudge(expectations, say)
  }

  see(event: HistoryEvent): void {
    switch (event.type) {
      case 'sent':
        return this.#records.sent(event)
      case 'acknowledged':
        return this.#records.acknowledge(event)
      case 'refused':
        return this.#records.refuse(event)
      case 'read':
        return this.#records.stretch(event.records, event.from)
      case 'asked':
        return this.#group.ask(event)
      case 'polled':
        return this.#seePoll(event)
      case 'claimed':
        return this.#group.claim(event)
      case 'handled':
        return this.#group.handle(event)
      case 'dead-lettered':
        return this.#group.deadLetter(event)
      case 'committing':
        return this.#group.beginCommit(event)
      case 'committed':
        return this.#group.commit(event)
      case 'reset':
        return this.#group.reset(event)
      case 'observed':
        return this.#group.observe(event)
      case 'failed':
        return this.#seeFailure(event)
      default: {
        event satisfies never
      }
    }
  }

  verdict(): Verdict {
    const { isConsumed = true } = this.#expectations
    this.#records.close(isConsumed ? this.#group.isSettled : () => true)
    this.#group.close(this.#remains, (at) => {
      const stored = this.#records.stored(at)
      return stored === 'gone' ? undefined : stored?.content
    })
    return {
      violations: this.#violations,
      figures: {
        acknowledged: this.#records.acknowledged.length,
        handled: this.#group.settledCount,
        handledAgain: this.#group.handledAgain,
        writtenAgain: this.#records.writtenAgain(),
        polls: this.#polls,
        lookedBack: this.#group.lookedBack,
        generation: this.#group.generation,
        maxOverMs: Math.round(this.#maxOverMs),
        latePolls: this.#latePolls,
        failures: this.#failures,
      },
    }
  }

  #seePoll(event: EventOf<'polled'>): void {
    this.#polls += 1
    this.#seeTime(event.overMs)
    this.#group.poll(event)
    for (const records of byPlace(event.records).values()) this.#records.stretch(records)
  }

  #seeFailure(event: EventOf<'failed'>): void {
    const { kind, code, overMs } = event
    const name = `${kind} ${code}`
    this.#failures[name] = (this.#failures[name] ?? 0) + 1
    this.#group.fail(event)
    if (code === 'UNKNOWN_MEMBER_ID') {
      this.#violations.push({ kind: 'unknown instance', detail: `a ${kind} was answered so` })
    }
    if (overMs !== undefined) this.#seeTime(overMs)
  }

  #seeTime(overMs: number): void {
    this.#maxOverMs = Math.max(this.#maxOverMs, overMs)
    if (overMs > GRACE_MS) this.#latePolls += 1
    if (overMs <= this.#expectations.mostOverMs) return
    this.#violations.push({ kind: 'late', detail: `a poll took ${Math.round(overMs)} ms beyond its wait` })
  }
}
