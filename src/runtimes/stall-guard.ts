/**
 * Ends this process when its event loop stands still, as in a handler that never gets out of a loop: no deadline and no
 * signal reaches such code, so a thread beside it watches. What was handled and committed stays; the record comes again.
 */
import { Worker } from 'node:worker_threads'

/** What the thread is started with. */
export interface StallWatch {
  /** Its first element counts the turns that the event loop was seen to make. */
  readonly turns: Int32Array
  readonly stallMs: number
}

/** The event loop is seen more often than the thread looks. */
const BEATS = 20

/** Watches until it is disposed of. `stallMs` is how long the event loop may stand still, milliseconds. */
export function guardStalls(stallMs: number): Disposable {
  const turns = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  const workerData = { turns, stallMs } satisfies StallWatch
  const thread = new Worker(new URL('./stall-thread.ts', import.meta.url), { workerData })
  thread.unref()
  const beats = setInterval(() => Atomics.add(turns, 0, 1), stallMs / BEATS)
  beats.unref()
  return {
    [Symbol.dispose]() {
      clearInterval(beats)
      void thread.terminate()
    },
  }
}
