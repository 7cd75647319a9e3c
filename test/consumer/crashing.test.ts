/** Real processes that one record ends, over a gateway and a log on disk. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, test, vi } from 'vitest'
import { logBroker } from '../../src/brokers/log.ts'
import { expectSetAside } from '../support/crashing.ts'
import { startGateway } from '../support/gateway.ts'

// Nodes start slowly on a busy machine, and claims of the dead have to lapse.
vi.setConfig({ testTimeout: 150_000 })

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kedge-crashing-'))
})
afterAll(() => rm(dir, { recursive: true }))

test.concurrent.each(['signal', 'memory', 'exit', 'loop'])(
  'a record that ends its process by %s is set aside by the third, and the others are handled',
  async (how) => {
    await using broker = logBroker({ dir: join(dir, how) })
    await using gateway = await startGateway(broker)
    await expectSetAside({ broker, url: gateway.url, how })
  },
)
