/**
 * Commits what lanes have behind them, one commit at a time. An offset is committed only when everything before it is
 * handled or durable as a dead letter; a refusal tells which partitions are not the run's any more.
 */
import type { App } from '../app.ts'
import { backoffMs } from '../backoff.ts'
import type { Backoff } from '../backoff.ts'
import type { Broker, GroupInstance } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { KedgeError } from '../errors.ts'
import type { Random } from '../random.ts'
import type { Calls } from './calls.ts'
import type { Careful } from './careful.ts'
import { isClaimLost } from './claim.ts'
import type { Lane } from './lane.ts'
import type { Lanes } from './lanes.ts'
import { encodeProgress } from './progress.ts'

/** What the committer needs of its run. */
export interface CommitScope {
  readonly app: App
  readonly broker: Broker
  readonly group: GroupInstance
  readonly runId: string
  readonly clock: Clock
  readonly random: Random
  readonly calls: Calls
  readonly lanes: Lanes
  /** Commits carry what is settled and put off behind their offsets. */
  readonly keepsProgress: boolean
  readonly careful: Pick<Careful, 'isOn'>
  /** Progress is committed when so many records were handled since the last commit ... */
  readonly everyRecords: number
  /** ... or so much time has passed, milliseconds. */
  readonly everyMs: number
  readonly backoff: Backoff
  /** The broker has heard nothing of the run for a good part of its session. */
  readonly isSilent: () => boolean
  /** The claim was renewed by a call that began at this monotonic time. */
  readonly onContact: (startedAt: number) => void
  /** Another run has the claim. */
  readonly onClaimLost: (error: KedgeError) => void
  /** A partition's progress can never be committed by this run. */
  readonly onRefused: (lane: Lane, error: unknown) => void
}

/** The commits of one run. */
export class Committer {
  readonly #scope: CommitScope
  #sinceCommit = 0
  #failures = 0
  #running: Promise<void> | undefined
  #cancelTimer: (() => void) | undefined
  #lastError: unknown
  #isClosed = false
  /** What metadata may say, as far as the broker has room for it. */
  #telling: 'all' | 'names' | 'nothing' = 'all'

  constructor(scope: CommitScope) {
    this.#scope = scope
  }

  /** Why the newest commit failed, or undefined where it did not. */
  get lastError(): unknown {
    return this.#lastError
  }

  /** A record was settled. Cheap: called for every record. */
  note(): void {
    this.#sinceCommit += 1
    if (this.#sinceCommit >= this.#scope.everyRecords) this.#startInPassing()
    else this.#arm(this.#scope.everyMs)
  }

  /** Nothing waits to be handled: commits what there is. */
  idle(): void {
    if (this.#sinceCommit > 0 && this.#failures === 0) this.#startInPassing()
  }

  /** Commits what a lane has now. Resolves when that is durable, or cannot be made so for now. */
  async flush(lane: Lane): Promise<void> {
    // One that is under way may have begun before.
    await this.#running
    for (const version = lane.version; lane.committedVersion < version;) {
      if (this.#running === undefined && (this.#isClosed || !this.#scope.calls.mayMake || !lane.isCommittable)) return
      this.#start()
      await this.#running
      if (this.#lastError !== undefined) return
    }
  }

  /** Commits everything that is left, trying again until `until` (monotonic) or the calls are spent. Never rejects. */
  async finish(until: number): Promise<void> {
    this.#cancelTimer?.()
    await this.#running
    const { clock, random, calls, lanes, backoff } = this.#scope
    for (let tries = 1; lanes.all.some((lane) => lane.isCommittable) && calls.left > 1; tries++) {
      if (this.#isClosed || clock.monotonic() >= until) return
      await this.#commit()
      if (this.#lastError === undefined) continue
      const waitMs = backoffMs(backoff, tries, random)
      if (clock.monotonic() + waitMs >= until) return
      await new Promise<void>((resolve) => void clock.after(waitMs, resolve))
    }
  }

  /** Commits nothing any more. */
  close(): void {
    this.#isClosed = true
    this.#cancelTimer?.()
  }

  #onTimer(): void {
    this.#cancelTimer = undefined
    this.#startInPassing()
  }

  /** A commit that the last one of the run makes up for where there is no call to spare, unless the session is over by then. */
  #startInPassing(): void {
    if (this.#scope.calls.maySpare || this.#scope.isSilent()) this.#start()
  }

  #start(): void {
    if (this.#running !== undefined || this.#isClosed || !this.#scope.calls.mayMake) return
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    const { backoff, random } = this.#scope
    this.#running = this.#commit().finally(() => {
      this.#running = undefined
      if (this.#isClosed) return
      if (this.#failures > 0) this.#arm(backoffMs(backoff, this.#failures, random))
      else if (this.#sinceCommit > 0) this.#arm(this.#scope.everyMs)
    })
  }

  /** Sees to a commit after so long at the latest. */
  #arm(delayMs: number): void {
    this.#cancelTimer ??= this.#scope.clock.after(delayMs, () => this.#onTimer())
  }

  /** One round over all lanes: one call, or one for each generation in which they began. */
  async #commit(): Promise<void> {
    this.#sinceCommit = 0
    this.#lastError = undefined
    const pending = this.#scope.lanes.all.filter((lane) => lane.isCommittable)
    for (const [generationId, lanes] of Map.groupBy(pending, (lane) => lane.generationId)) {
      // One call is for giving the claim back.
      if (this.#scope.calls.left <= 1 || !(await this.#commitLanes(lanes, generationId))) break
    }
    this.#failures = this.#lastError === undefined ? 0 : this.#failures + 1
  }

  /** The metadata of a lane's commit, and how far it reaches. */
  #tell(lane: Lane): ReturnType<typeof encodeProgress> {
    const { keepsProgress, careful } = this.#scope
    const { next } = lane
    const isTelling = (keepsProgress || careful.isOn) && this.#telling !== 'nothing'
    if (!isTelling) return { metadata: null, reach: next }
    const { progress } = lane
    if (keepsProgress && this.#telling === 'all') return encodeProgress(next, progress)
    const { suspects = [] } = progress
    const named = this.#telling === 'all' ? suspects : suspects.filter(({ isCalled }) => isCalled)
    return encodeProgress(next, { settledTo: next, open: [], suspects: named })
  }

  /** Commits lanes of one generation. Says whether going on with others makes sense. */
  async #commitLanes(lanes: readonly Lane[], generationId: number): Promise<boolean> {
    const { broker, group, runId, clock, calls, onContact, onClaimLost, onRefused } = this.#scope
    const marks = lanes.map((lane) => ({ next: lane.next, version: lane.version, ...this.#tell(lane) }))
    const offsets = lanes.map(({ topic, partition }, index) => {
      const { next: offset = 0, metadata = null } = marks[index] ?? {}
      return metadata === null ? { topic, partition, offset } : { topic, partition, offset, metadata }
    })
    const startedAt = clock.monotonic()
    const known = this.#scope.lanes.generationId ?? generationId
    try {
      await calls.make((call) => broker.commit(group, offsets, { runId, generationId }, call))
    } catch (error) {
      if (isClaimLost(error)) {
        this.close()
        onClaimLost(error)
        return false
      }
      if (isMetadataRefused(error) && this.#telling !== 'nothing') {
        // A cluster may take less than Kafka does by default. What is not remembered comes again.
        this.#telling = this.#telling === 'all' && this.#scope.careful.isOn ? 'names' : 'nothing'
        return await this.#commitLanes(lanes, generationId)
      }
      if (mayCureItself(error)) {
        this.#lastError = error
        return false
      }
      const [only, ...others] = lanes
      if (only !== undefined && others.length === 0) {
        only.isRefused = true
        onRefused(only, error)
        return true
      }
      // One refused entry refuses all: find out which by asking for each alone.
      for (const lane of lanes) {
        if (calls.left <= 1 || !(await this.#commitLanes([lane], generationId))) return false
      }
      return true
    }
    onContact(startedAt)
    for (const [index, lane] of lanes.entries()) {
      const mark = marks[index]
      if (mark === undefined) continue
      lane.hasCommitted ||= mark.next > lane.committedTo
      lane.committedTo = mark.next
      lane.rememberedTo = mark.reach
      lane.committedVersion = mark.version
      // Held without a break from then until now, and so also since every generation in between.
      lane.generationId = Math.max(generationId, known)
    }
    return true
  }
}

function isMetadataRefused(error: unknown): boolean {
  return error instanceof KedgeError && error.code === 'OFFSET_METADATA_TOO_LARGE'
}

/** Kafka calls an unknown topic retriable, for it may be new; one from which records came was deleted. */
function mayCureItself(error: unknown): boolean {
  return error instanceof KedgeError && error.retriable && error.code !== 'UNKNOWN_TOPIC_OR_PARTITION'
}
