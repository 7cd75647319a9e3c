/** The rest driver over a gateway whose broker does less than the embedded log, as a Kafka cluster does. */
import { expect, test } from 'vitest'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { withCalls } from '../support/consumer.ts'
import { startGateway } from '../support/gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'

failOnLeaks()

test('a poll whose join still waits says when to come again, and nothing of the group', async () => {
  await using memory = memoryBroker()
  const joining = { records: [], generationId: 7, assignment: [{ topic: 't', partition: 0 }], retryAfterMs: 800 }
  await using server = await startGateway(withCalls(memory, { poll: async () => joining }))
  await using broker = restBroker({ url: server.url })

  const group = { groupId: 'g', groupInstanceId: 'i' }
  const result = await broker.poll({ group, topics: ['t'], maxWaitMs: 0, maxRecords: 1, maxBytes: 1 })

  expect(result).toEqual({ records: [], generationId: 0, assignment: [], retryAfterMs: 800 })
})
