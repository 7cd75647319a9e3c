/** The embedded log: in memory, and on disk with the file closed and opened again between the steps of a case. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { logBroker } from '../../src/brokers/log.ts'
import { describeBroker } from '../conformance/broker/index.ts'
import { FakeClock } from '../support/clock.ts'

describeBroker('log in memory', {
  async open() {
    const clock = new FakeClock()
    const broker = logBroker({ memory: true, clock })
    return { broker, clock, close: () => broker.close() }
  },
})

describeBroker('log on disk, reopened between steps', {
  async open() {
    const clock = new FakeClock()
    const dir = await mkdtemp(join(tmpdir(), 'kedge-log-'))
    let broker = logBroker({ dir, clock })
    return {
      broker,
      clock,
      async reopen() {
        await broker.close()
        broker = logBroker({ dir, clock })
        return broker
      },
      async close() {
        await broker.close()
        await rm(dir, { recursive: true })
      },
    }
  },
})
