/**
 * How late the machine itself is: on two cores, with a cluster, gateways and their clients on them, a timer fires long after its
 * time, and so does whatever needs the processor. What a call lost to that is not its own lateness. It is seen by a timer in this
 * process, and by asking each gateway what it can answer without a cluster.
 */
import { setTimeout as sleep } from 'node:timers/promises'

const TICK_MS = 20
const PING_MS = 100
/** So long the answer may take. */
const PROMPT_MS = 10
/** Stalls that ended longer ago are forgotten. */
const KEPT_MS = 120_000

interface Stall {
  readonly endedAt: number
  readonly ms: number
}

/** One thing that should be quick, and when it was not. */
class Source {
  #stalls: Stall[] = []
  longestMs = 0

  note(ms: number): void {
    const endedAt = performance.now()
    this.longestMs = Math.max(this.longestMs, ms)
    this.#stalls.push({ endedAt, ms })
    this.#stalls = this.#stalls.filter((stall) => endedAt - stall.endedAt < KEPT_MS)
  }

  since(startedAt: number): number {
    return this.#stalls.reduce((sum, { endedAt, ms }) => sum + Math.max(0, Math.min(ms, endedAt - startedAt)), 0)
  }
}

/** Watches this process and gateways. */
export class Pace implements Disposable {
  readonly #timer: NodeJS.Timeout
  readonly #self = new Source()
  readonly #sources: Source[] = [this.#self]
  readonly #ended = new AbortController()
  #tickedAt = performance.now()

  constructor(gateways: readonly string[]) {
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
    for (const url of gateways) void this.#ping(url)
  }

  /** The longest stall, milliseconds. */
  get longestMs(): number {
    return Math.max(...this.#sources.map(({ longestMs }) => longestMs))
  }

  /** How much of the time since then the slowest of them stood still, milliseconds. */
  stalledSince(startedAt: number): number {
    this.#tick()
    return Math.max(...this.#sources.map((source) => source.since(startedAt)))
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#ended.abort()
  }

  #tick(): void {
    const now = performance.now()
    const ms = now - this.#tickedAt - TICK_MS
    this.#tickedAt = now
    if (ms >= TICK_MS) this.#self.note(ms)
  }

  async #ping(url: string): Promise<void> {
    const source = new Source()
    this.#sources.push(source)
    while (!this.#ended.signal.aborted) {
      const startedAt = performance.now()
      // A gateway that is not there answers nothing.
      const isThere = await fetch(`${url}/healthz`, { signal: this.#ended.signal }).then(
        (response) => response.ok,
        () => false,
      )
      const ms = performance.now() - startedAt - PROMPT_MS
      if (isThere && ms > 0) source.note(ms)
      await sleep(PING_MS)
    }
  }
}
