/**
 * Tells whose claim on an instance came last, as far as clients can know. A call is served at some moment between its beginning
 * and its end; one whose end nobody saw may be served at any time later. So a commit is called stale only where another run was
 * granted the claim, surely after all that the committing run ever did to have it, and surely before the commit was sent.
 */
import type { EventOf, Say } from './history.ts'

interface Grant {
  readonly run: string
  readonly askedAt: number
  readonly grantedAt: number
}

interface Asking {
  readonly run: string
  readonly askedAt: number
}

/** Answers that say that the claim was not taken. */
const notTaken: ReadonlySet<string> = new Set(['CLAIM_HELD', 'CLAIM_LOST'])

/** The claims of a history. */
export class Claims {
  readonly #say: Say
  readonly #asking = new Map<number, Asking>()
  readonly #grants = new Map<string, Grant[]>()
  /** When the last call of a run that may have taken the claim ended. */
  readonly #lastContact = new Map<string, number>()
  readonly #committing = new Map<number, number>()
  /** Counts what happens. */
  #now = 0

  constructor(say: Say) {
    this.#say = say
  }

  ask({ call, run }: EventOf<'asked'>): void {
    this.#now += 1
    if (run === undefined) return
    this.#asking.set(call, { run, askedAt: this.#now })
    this.#lastContact.set(run, Number.POSITIVE_INFINITY)
  }

  grant(call: number, instance: string, run: string): void {
    this.#now += 1
    const asking = this.#asking.get(call)
    this.#end(call)
    if (asking === undefined) return
    const grants = this.#grants.get(instance) ?? []
    this.#grants.set(instance, grants)
    grants.push({ run, askedAt: asking.askedAt, grantedAt: this.#now })
  }

  /** A call failed. It may have taken the claim nevertheless, unless its answer says that it did not. */
  fail(call: number, code: string): void {
    this.#now += 1
    this.#committing.delete(call)
    if (notTaken.has(code)) this.#end(call)
  }

  beginCommit(call: number): void {
    this.#now += 1
    this.#committing.set(call, this.#now)
  }

  commit(call: number, instance: string, run: string): void {
    this.#now += 1
    const begunAt = this.#committing.get(call) ?? 0
    this.#committing.delete(call)
    const lastContact = this.#lastContact.get(run) ?? 0
    const other = this.#grants
      .get(instance)
      ?.findLast((grant) => grant.run !== run && grant.grantedAt < begunAt && grant.askedAt > lastContact)
    if (other === undefined) return
    this.#say('stale commit', `a commit of ${run} was accepted after ${other.run} had the claim on ${instance}`)
  }

  #end(call: number): void {
    const asking = this.#asking.get(call)
    if (asking === undefined) return
    this.#asking.delete(call)
    const { run } = asking
    const isAsking = this.#asking.values().some((other) => other.run === run)
    this.#lastContact.set(run, isAsking ? Number.POSITIVE_INFINITY : this.#now)
  }
}
