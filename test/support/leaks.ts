/** Fails a test that leaves sockets, servers or child processes open. */
import { afterEach, beforeEach, expect } from 'vitest'
import { until } from './until.ts'

/** What counts, by Node's names. Timers do not: the test runner has its own. */
const watched = new Set(['TCPServerWrap', 'TCPSocketWrap', 'PipeWrap', 'ProcessWrap', 'FSEventWrap'])

function openHandles(): string[] {
  return process
    .getActiveResourcesInfo()
    .filter((name) => watched.has(name))
    .sort()
}

/**
 * Call once at the top of a test file. What is open before a test may be open after it; anything more must be gone
 * within two seconds, which is time enough for sockets whose other end has closed.
 */
export function failOnLeaks(): void {
  let before: string[] = []

  beforeEach(() => {
    before = openHandles()
  })

  afterEach(async () => {
    const settled = (): boolean => openHandles().length <= before.length
    await until(settled, { timeoutMs: 2_000 }).catch(() => {
      expect(openHandles(), 'handles left open by the test').toEqual(before)
    })
  })
}
