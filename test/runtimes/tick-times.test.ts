/** A tick says when it was to come. Platforms deliver it late, twice and out of order, so a run may not look. */
import type { Context } from 'aws-lambda'
import { expect, test, vi } from 'vitest'
import { defineApp } from '../../src/app.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { worker } from '../../src/runtimes/cloudflare.ts'
import { lambdaConsume } from '../../src/runtimes/lambda.ts'
import { startGateway } from '../support/gateway.ts'

const RUN_MS = '1000'

/** What a platform hands in. Whoever looks at it fails. */
const tick = new Proxy(
  {},
  {
    get: (_, name) => {
      throw new Error(`A run looked at ${String(name)} of its tick.`)
    },
    has: () => {
      throw new Error('A run looked at what its tick has.')
    },
    ownKeys: () => {
      throw new Error('A run looked at what its tick has.')
    },
  },
)

test.each(['worker', 'lambda'] as const)(
  'a run of a %s does not look at the time that its tick is for',
  async (platform) => {
    await using broker = memoryBroker()
    await broker.createTopic({ topic: 'orders' })
    await broker.produce([{ topic: 'orders', key: null, value: bytesOf('a') }])
    const gateway = await startGateway(broker)
    const offsets: number[] = []
    const router = createRouter().on({ topic: 'orders' }, ({ offset }) => void offsets.push(offset))
    const app = defineApp({ groupId: 'shop', router })

    if (platform === 'worker') {
      await worker(app).scheduled(tick, { UPSTASH_KAFKA_REST_URL: gateway.url, KEDGE_RUN_MS: RUN_MS })
    } else {
      vi.stubEnv('UPSTASH_KAFKA_REST_URL', gateway.url)
      vi.stubEnv('KEDGE_RUN_MS', RUN_MS)
      await lambdaConsume(app)(tick, { awsRequestId: 'a', getRemainingTimeInMillis: () => 3_000 } as Context)
    }
    await gateway.close()

    expect(offsets).toEqual([0])
  },
)
