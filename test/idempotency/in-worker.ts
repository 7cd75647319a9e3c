/** The parts of a worker that runs inside workerd: the Durable Object with a clock that tests can move, and a handler. */
import { type Clock, systemClock } from '../../src/clock.ts'
import { EffectivelyOnce } from '../../src/consumer/effectively-once.ts'
import { KedgeError } from '../../src/errors.ts'
import { KedgeIdempotency } from '../../src/idempotency/durable-object.ts'
import { openIdempotency } from '../../src/runtimes/open-idempotency.ts'
import { workerIdempotencyDrivers } from '../../src/runtimes/worker-idempotency-drivers.ts'

let offsetMs = 0
let effects = 0

/** The object as users export it, but for its clock. */
export class ClockedIdempotency extends KedgeIdempotency {
  protected override readonly clock: Clock = { ...systemClock, now: () => systemClock.now() + offsetMs }
}

/** What `/handle` is asked. */
export interface HandleQuestion {
  readonly address: string
  readonly offset: number
  readonly allowNonLinearizable?: boolean
}

/** `/advance` moves the objects' clock; `/handle` makes one attempt at a record, whose effect takes a while. */
export async function serve(request: Request, env: Readonly<Record<string, unknown>>): Promise<Response> {
  const question: unknown = await request.json()
  if (new URL(request.url).pathname === '/advance') {
    offsetMs += Number(question)
    return Response.json(offsetMs)
  }
  // What the test beside this file sends.
  const { address, offset, allowNonLinearizable = false } = question as HandleQuestion
  try {
    await using store = await openIdempotency(address, workerIdempotencyDrivers(env))
    const once = new EffectivelyOnce({ store, allowNonLinearizable })
    const outcome = await once.run({
      groupId: 'shop',
      record: { topic: address, partition: 0, offset, timestampMs: 0, key: null, value: null, headers: [] },
      timeoutMs: 10_000,
      signal: request.signal,
      async call() {
        await new Promise<void>((resolve) => {
          systemClock.after(300, resolve)
        })
        effects += 1
      },
    })
    return Response.json({ kind: outcome.kind, effects })
  } catch (error) {
    if (error instanceof KedgeError) return Response.json({ code: error.code, message: error.message }, { status: 500 })
    throw error
  }
}
