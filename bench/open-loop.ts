/** Load at a fixed rate, sent when it is due and not when the answer before it came: a slow answer hides no other. */

export interface Latencies {
  /** Milliseconds from when a request was due to its answer. */
  readonly p50: number
  readonly p99: number
  readonly requests: number
}

/** Starts `send` so often in a second until the time is over, and waits for what is on its way. */
export async function openLoop(perSecond: number, runMs: number, send: () => Promise<void>): Promise<Latencies> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const requests = Math.floor((runMs / 1000) * perSecond)
  const times: number[] = []
  const start = performance.now() + 5
  let sent = 0
  const answered = async (dueAt: number): Promise<void> => {
    try {
      await send()
      times.push(performance.now() - dueAt)
      if (times.length === requests) resolve()
    } catch (error) {
      reject(error)
    }
  }
  const sendDue = (): void => {
    const now = performance.now()
    for (; sent < requests; sent += 1) {
      const dueAt = start + (sent * 1000) / perSecond
      if (dueAt > now) break
      void answered(dueAt)
    }
    if (sent < requests) setTimeout(sendDue, 1)
  }
  sendDue()
  await promise
  times.sort((a, b) => a - b)
  const at = (share: number): number => times[Math.floor(times.length * share)] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99), requests }
}
