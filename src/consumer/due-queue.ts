/**
 * What is due later, the earliest first, with one timer for all of it: a heap, so that a hundred thousand waits cost no
 * more than their logarithm each.
 */
import type { Clock } from '../clock.ts'

/** Something that waits. */
export interface Due {
  /** Monotonic. Not changed while it waits. */
  readonly dueAt: number
}

/** Waits of one run. */
export class DueQueue<T extends Due> {
  readonly #clock: Clock
  readonly #onDue: (one: T) => void
  readonly #heap: T[] = []
  #armedFor = Number.POSITIVE_INFINITY
  #cancel: (() => void) | undefined

  /** Calls `onDue` for each when its time has come, in that order. */
  constructor(clock: Clock, onDue: (one: T) => void) {
    this.#clock = clock
    this.#onDue = onDue
  }

  /** When the next one is due (monotonic); undefined where none waits. */
  get nextDueAt(): number | undefined {
    return this.#heap[0]?.dueAt
  }

  add(one: T): void {
    const heap = this.#heap
    let at = heap.push(one) - 1
    while (at > 0) {
      const above = (at - 1) >> 1
      const parent = heap[above]
      if (parent === undefined || parent.dueAt <= one.dueAt) break
      heap[at] = parent
      heap[above] = one
      at = above
    }
    if (one.dueAt < this.#armedFor) this.#arm(one.dueAt)
  }

  /** Ends all waits. */
  close(): void {
    this.#cancel?.()
    this.#cancel = undefined
    this.#heap.length = 0
  }

  #arm(dueAt: number): void {
    this.#cancel?.()
    this.#armedFor = dueAt
    this.#cancel = this.#clock.after(Math.max(0, dueAt - this.#clock.monotonic()), () => this.#fire())
  }

  #fire(): void {
    this.#armedFor = Number.POSITIVE_INFINITY
    this.#cancel = undefined
    const now = this.#clock.monotonic()
    for (let next = this.#heap[0]; next !== undefined && next.dueAt <= now; next = this.#heap[0]) {
      this.#removeFirst()
      this.#onDue(next)
    }
    const next = this.nextDueAt
    if (next !== undefined && next < this.#armedFor) this.#arm(next)
  }

  #removeFirst(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      const left = 2 * at + 1
      const right = left + 1
      const leftOne = heap[left]
      if (leftOne === undefined) break
      const rightOne = heap[right]
      const isRight = rightOne !== undefined && rightOne.dueAt < leftOne.dueAt
      const child = isRight ? rightOne : leftOne
      if (child.dueAt >= last.dueAt) break
      heap[at] = child
      at = isRight ? right : left
    }
    heap[at] = last
  }
}
