import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { Kafka } from '@upstash/kafka'
import { memoryBroker } from '../src/brokers/memory.ts'
import type { GatewayServer } from '../src/runtimes/node-gateway.ts'
import { startGateway } from './support/gateway.ts'
import { failOnLeaks } from './support/leaks.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const run = promisify(execFile)

/** The lines of README's shell examples that speak to the gateway, in order. */
const curls = [...readme.matchAll(/^```sh\n([^]*?)^```/gm)]
  .flatMap(([, block = '']) => block.split('\n'))
  .filter((line) => line.startsWith('curl http://127.0.0.1:8790/'))

describe('what README tells a newcomer to paste', () => {
  failOnLeaks()

  async function open(): Promise<GatewayServer> {
    const broker = memoryBroker()
    await broker.createTopic({ topic: 'orders' })
    return await startGateway(broker)
  }

  it('works with curl, line by line', async () => {
    await using gateway = await open()
    const answers: unknown[] = []
    for (const line of curls) {
      const command = line.replace('http://127.0.0.1:8790', gateway.url)
      const { stdout } = await run('sh', ['-c', `${command} --fail --silent`])
      answers.push(JSON.parse(stdout))
    }

    const noOrder = { topic: 'orders', partition: 0, offset: 0, value: 'no order' }
    const order = { offset: 1, key: 'eu', value: '{"id":"a2","total":12}' }
    expect(answers).toMatchObject([
      [{ topic: 'orders', partition: 0, offset: 0 }],
      [{ topic: 'orders', partition: 0, offset: 1 }],
      [noOrder, order],
      [noOrder, order],
    ])
  })

  it('works with the SDK of Upstash, credentials and all', async () => {
    await using gateway = await open()
    const kafka = new Kafka({ url: gateway.url, username: 'shop', password: 'secret' })

    const stored = await kafka.producer().produce('orders', { id: 'a4', total: 3 }, { key: 'eu' })

    expect(stored).toMatchObject({ topic: 'orders', partition: 0, offset: 0 })
    expect(readme).toContain("new Kafka({ url: 'http://127.0.0.1:8790', username: 'shop', password: 'secret' })")
    expect(readme).toContain("kafka.producer().produce('orders', { id: 'a4', total: 3 }, { key: 'eu' })")
  })
})
