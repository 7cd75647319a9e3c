/**
 * Group commit without a timer: every write that is asked for in one turn of the event loop, or while a transaction is
 * being made durable, goes into the next single transaction. A caller that is alone pays one sync; sixty-four share one.
 *
 * It fails closed: after a transaction that could not be made durable nobody knows what is on disk, so nothing more is
 * written until the log was opened again; reads go on.
 */
import { BrokerError } from '../errors.ts'
import type { LogStore } from './store.ts'

/** A write that waits for the next transaction. */
export interface Write {
  /** Writes to the store, inside the transaction. */
  write(store: LogStore): void
  /** Takes over into memory what is durable now, and answers the caller. */
  done(): void
  fail(error: BrokerError): void
}

/** Calls back once, after what is already waiting in the event loop has had its turn. */
export type Defer = (run: () => void) => void

/** Gathers writes and makes them durable together. */
export class Writer {
  readonly #store: LogStore
  readonly #defer: Defer
  #waiting: Write[] = []
  #failure: BrokerError | undefined

  constructor(store: LogStore, defer: Defer) {
    this.#store = store
    this.#defer = defer
  }

  /** Queues a write for the next transaction. Writes of one transaction happen in the order in which they were queued. */
  add(write: Write): void {
    if (this.#failure !== undefined) {
      write.fail(this.#failure)
      return
    }
    this.#waiting.push(write)
    if (this.#waiting.length === 1) this.#defer(() => this.flush())
  }

  /** Writes something small and resolves when it is durable; `done` takes it over into memory first. */
  run(write: (store: LogStore) => void, done: () => void = () => {}): Promise<void> {
    return new Promise((resolve, reject) => {
      this.add({
        write,
        done() {
          done()
          resolve()
        },
        fail: reject,
      })
    })
  }

  /** Makes everything that waits durable now, in one transaction. */
  flush(): void {
    const writes = this.#waiting
    if (writes.length === 0) return
    this.#waiting = []
    try {
      this.#store.transaction(() => {
        for (const write of writes) write.write(this.#store)
      })
    } catch (cause) {
      this.#failure = new BrokerError(
        'KAFKA_STORAGE_ERROR',
        `Cannot write to the log: ${cause instanceof Error ? cause.message : String(cause)}. Nothing was acknowledged; mend the disk and open the log again.`,
        { cause },
      )
      for (const write of writes) write.fail(this.#failure)
      return
    }
    for (const write of writes) write.done()
  }
}
