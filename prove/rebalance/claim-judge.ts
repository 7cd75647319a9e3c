/**
 * Judges by the clock what the checker of histories cannot know, which has no time: that of two runs of one instance one works
 * while its claim lives, and that the other is refused at once.
 */
import type { EventOf } from '../history/history.ts'
import type { Entry } from './journal.ts'

/** What the claims of a journal were like. */
export interface ClaimsFound {
  readonly violations: readonly string[]
  /** Polls that were refused because another run has the claim. */
  readonly refusals: number
  /** Half of the refusals took no longer, milliseconds. */
  readonly medianRefusalMs: number
  readonly longestRefusalMs: number
  /** Times that another run than before was granted the claim. */
  readonly handovers: number
  /** Of these, the ones in which the run before had not given it back. */
  readonly lapses: number
  /** Commits that were refused after another run had taken over. */
  readonly fencedCommits: number
}

interface Asking {
  readonly atMs: number
  readonly instance: string
  readonly run: string
}

/** Newest run that was granted the claim of an instance. */
interface Holding {
  readonly run: string
  /** When it began to ask for what was granted newest: the claim was renewed then or later. */
  askedAtMs: number
  /** When it was told that it has the claim. */
  readonly grantedAtMs: number
  hasReleased: boolean
}

/** How far the clocks of client and gateway may differ over the life of a claim, milliseconds. */
const SLACK_MS = 50
/** Half of the refusals are to come within this, or within what half of the commits take where the machine is slow. */
const AT_ONCE_MS = 100
/** Part of the refusals that may be late, on a machine that has much else to do. */
const MAY_BE_SLOW = 0.1

/** Judges all claims of so long a life, where a poll that is not refused would wait for so long. */
export function judgeClaims(entries: readonly Entry[], claimTtlMs: number, pollWaitMs: number): ClaimsFound {
  const judge = new ClaimJudge(claimTtlMs)
  for (const entry of entries) judge.see(entry)
  const { violations, handovers, lapses, fencedCommits } = judge
  const sorted = judge.refusalsMs.toSorted((a, b) => a - b)
  const medianRefusalMs = Math.round(medianOf(judge.refusalsMs))
  const longestRefusalMs = Math.round(sorted.at(-1) ?? 0)
  if (medianRefusalMs > Math.max(AT_ONCE_MS, medianOf(judge.commitsMs)))
    violations.push(`half of the refusals took ${medianRefusalMs} ms or more`)
  const waited = sorted.filter((ms) => ms >= pollWaitMs).length
  if (waited > sorted.length * MAY_BE_SLOW) {
    violations.push(`${waited} of ${sorted.length} refusals came as late as an empty answer`)
  }
  return { violations, refusals: sorted.length, medianRefusalMs, longestRefusalMs, handovers, lapses, fencedCommits }
}

class ClaimJudge {
  readonly violations: string[] = []
  readonly refusalsMs: number[] = []
  readonly commitsMs: number[] = []
  handovers = 0
  lapses = 0
  fencedCommits = 0
  readonly #claimTtlMs: number
  /** Polls, claims and commits that are on their way, by process and call. */
  readonly #calls = new Map<string, Asking>()
  readonly #holdings = new Map<string, Holding>()

  constructor(claimTtlMs: number) {
    this.#claimTtlMs = claimTtlMs
  }

  see({ by, atMs, event }: Entry): void {
    if (event.type === 'releasing') {
      const holding = this.#holdings.get(event.instance)
      if (holding?.run === event.run) holding.hasReleased = true
      return
    }
    if (!('call' in event)) return
    const name = `${by} ${event.call}`
    if ((event.type === 'asked' || event.type === 'committing') && 'instance' in event) {
      const { instance, run } = event
      if (instance !== undefined && run !== undefined) this.#calls.set(name, { atMs, instance, run })
      return
    }
    const call = this.#calls.get(name)
    this.#calls.delete(name)
    if (call === undefined) return
    if (event.type === 'polled' || event.type === 'claimed') this.#grant(call, atMs)
    else if (event.type === 'committed') this.#accept(call, atMs)
    else if (event.type === 'failed') this.#refuse(call, event, atMs)
  }

  /** A commit was stored, all of which happened while another run surely had the claim. */
  #accept({ atMs: begunAtMs, instance, run }: Asking, storedAtMs: number): void {
    this.commitsMs.push(storedAtMs - begunAtMs)
    const holding = this.#holdings.get(instance)
    if (holding === undefined || holding.run === run || holding.hasReleased) return
    if (begunAtMs < holding.grantedAtMs || storedAtMs > holding.askedAtMs + this.#claimTtlMs - SLACK_MS) return
    this.violations.push(`a commit of ${run} was taken while ${holding.run} had the claim on ${instance}`)
  }

  #grant({ atMs: askedAtMs, instance, run }: Asking, grantedAtMs: number): void {
    const before = this.#holdings.get(instance)
    if (before?.run === run) {
      before.askedAtMs = Math.max(before.askedAtMs, askedAtMs)
      return
    }
    // It may be the answer to a process that stood still since, from before the other run was granted the claim.
    if (before !== undefined && askedAtMs < before.grantedAtMs) return
    this.#holdings.set(instance, { run, askedAtMs, grantedAtMs, hasReleased: false })
    if (before === undefined) return
    this.handovers += 1
    if (before.hasReleased) return
    this.lapses += 1
    const earlyMs = Math.round(before.askedAtMs + this.#claimTtlMs - grantedAtMs)
    if (earlyMs <= SLACK_MS) return
    this.violations.push(
      `${run} was granted the claim on ${instance} ${earlyMs} ms before that of ${before.run} could lapse`,
    )
  }

  #refuse({ atMs: askedAtMs, instance, run }: Asking, { kind, code }: EventOf<'failed'>, atMs: number): void {
    if (kind === 'poll' && code === 'CLAIM_HELD') this.refusalsMs.push(atMs - askedAtMs)
    const isOvertaken = this.#holdings.get(instance)?.run !== run
    if (kind === 'commit' && code === 'CLAIM_LOST' && isOvertaken) this.fencedCommits += 1
  }
}

function medianOf(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0
}
