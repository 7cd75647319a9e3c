import { expect, test, vi } from 'vitest'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { type KafkaConfig, readConfig } from '../../src/config.ts'
import { defineApp } from '../../src/app.ts'
import { worker } from '../../src/runtimes/cloudflare.ts'
import { openBroker } from '../../src/runtimes/open-broker.ts'
import { defineTopic } from '../../src/topic.ts'
import { json, startServer } from '../support/http-server.ts'

const { broker: cluster } = readConfig('functions', { KEDGE_BROKER: 'kafka://10.0.0.1:9092' })

test('a gateway needs no driver of the runtime, and gets the credentials', async () => {
  await using server = await startServer((response) => json(response, 200, []))
  const { broker: config } = readConfig('functions', {
    UPSTASH_KAFKA_REST_URL: server.url,
    UPSTASH_KAFKA_REST_USERNAME: 'u',
    UPSTASH_KAFKA_REST_PASSWORD: 'p',
  })

  await using broker = await openBroker(config, {})
  await broker.topics()

  expect(server.requests[0]?.headers.authorization).toBe(`Basic ${btoa('u:p')}`)
})

test('a Kafka cluster is opened by the driver of the runtime, with all its settings', async () => {
  await using broker = memoryBroker()
  const seen: KafkaConfig[] = []
  const kafka = async (config: KafkaConfig): Promise<typeof broker> => {
    seen.push(config)
    return broker
  }

  expect(await openBroker(cluster, { kafka })).toBe(broker)
  expect(seen).toEqual([cluster])
})

test('a Kafka cluster is refused by name where the runtime cannot reach one', async () => {
  await expect(openBroker(cluster, {})).rejects.toMatchObject({
    code: 'INVALID_CONFIG',
    message: expect.stringMatching(/KEDGE_BROKER names a Kafka cluster.*UPSTASH_KAFKA_REST_URL/) as string,
  })
})

test('a Worker is told so at its first call, and its runs fail with the same words', async () => {
  const printed = vi.spyOn(console, 'error').mockReturnValue()
  const app = worker(defineApp({ groupId: 'g', topics: [defineTopic('t', 'text')] }))
  const env = { KEDGE_BROKER: 'kafka://10.0.0.1:9092' }

  const response = await app.fetch(new Request('http://worker.example/produce/t', { method: 'POST' }), env)
  const problem: unknown = await response.json()

  expect(response.status).toBe(500)
  expect(problem).toMatchObject({ code: 'INVALID_CONFIG', detail: expect.stringContaining('no driver') as string })
  await expect(app.scheduled({}, env)).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
  expect(printed).toHaveBeenCalledTimes(2)
  printed.mockRestore()
})
