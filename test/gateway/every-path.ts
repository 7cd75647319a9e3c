/**
 * Every test of the contract runs over each way into the gateway: the fast lane (which only a kept connection takes), bare
 * `node:http`, and Hono.
 */
import { afterEach, beforeEach, describe } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { defineApp } from '../../src/app.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { systemClock } from '../../src/clock.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { operatorRoutes } from '../../src/operator/routes.ts'
import { systemRandom } from '../../src/random.ts'
import { redriveTopicName } from '../../src/return-topic.ts'
import { createRouter } from '../../src/router.ts'
import type { GatewayServer, ServeGatewayOptions } from '../../src/runtimes/node-gateway.ts'
import { startGateway } from '../support/gateway.ts'
import { call, type HttpAnswer, type HttpCall } from '../support/http.ts'

export interface Harness {
  readonly broker: Broker
  /** Of the calls of operators; in the broker. */
  readonly letters: DeadLetterStore
  readonly server: GatewayServer
  readonly url: string
  /** Calls `POST /produce/blue` and the like. */
  call(line: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<HttpAnswer>
  /** The same with everything a call can have. */
  send(line: string, options: HttpCall): Promise<HttpAnswer>
}

export type HarnessOptions = Omit<ServeGatewayOptions, 'broker' | 'hotPath'>

/** Describes behaviour once for each path, with topics `blue` (one partition) and `red` (two) in a fresh memory broker. */
export function describeEveryPath(
  name: string,
  tests: (harness: () => Harness) => void,
  options: HarnessOptions = {},
): void {
  describe.each([
    { path: 'fast lane', hotPath: true, keepAlive: true },
    { path: 'node:http', hotPath: true, keepAlive: false },
    { path: 'hono', hotPath: false, keepAlive: false },
  ])(`${name} ($path)`, ({ hotPath, keepAlive }) => {
    let harness: Harness | undefined
    beforeEach(async () => {
      harness = await openHarness({ ...options, hotPath }, { keepAlive })
    })
    afterEach(async () => {
      await harness?.server.close()
      await harness?.broker.close()
    })
    tests(() => {
      if (harness === undefined) throw new Error('The harness opens before each test.')
      return harness
    })
  })
}

/**
 * A gateway over a fresh memory broker with the topics `blue:1` and `red:2`, with the calls of operators over a dead-letter
 * store in the broker. It has an app for every group that topics can be called after.
 */
export async function openHarness(
  options: Omit<ServeGatewayOptions, 'broker'> = {},
  defaults: Pick<HttpCall, 'keepAlive'> = {},
): Promise<Harness> {
  const broker = memoryBroker()
  await broker.createTopic({ topic: 'blue', partitions: 1 })
  await broker.createTopic({ topic: 'red', partitions: 2 })
  const letters = topicDeadLetters({ broker })
  const router = createRouter().on({ topic: 'blue' }, () => undefined)
  const routes = operatorRoutes({
    openDeadLetters: async () => letters,
    appOf: async (groupId) =>
      redriveTopicName('t', groupId) === undefined ? undefined : defineApp({ groupId, router, redrive: true }),
    clock: systemClock,
    random: systemRandom,
    log: () => undefined,
  })
  const server = await startGateway(broker, { operatorRoutes: routes, ...options })
  return {
    broker,
    letters,
    server,
    url: server.url,
    call: (line, body, headers = {}) => call(server.url, line, { ...defaults, body, headers }),
    send: (line, given) => call(server.url, line, { ...defaults, ...given }),
  }
}
