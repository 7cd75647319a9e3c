/** A gateway in a process of its own, and what the benches ask of it beside the load. */
import { rmSync } from 'node:fs'

import { type Child, startChild } from './child.ts'
import { SUBJECT_CORE, scratchFolder } from './machine.ts'
import type { GatewayStart } from './workers/gateway-server.ts'

export interface BenchGateway extends AsyncDisposable {
  readonly port: number
  readonly url: string
  readonly child: Child
  createTopic(topic: string, partitions: number): Promise<void>
  deleteTopic(topic: string): Promise<void>
  /** How many records the topic holds: log ends less log starts, as the broker tells them. */
  count(topic: string): Promise<number>
}

/** What a gateway serves: a broker in memory (D0), the embedded log (D2: flushed before the answer), a Kafka cluster (D1). */
export type Behind = 'memory' | 'log' | { readonly bootstrapServers: string }

/** Starts a gateway. */
export async function startGateway(behind: Behind): Promise<BenchGateway> {
  const dir = behind === 'log' ? scratchFolder() : undefined
  const child = await startChild('gateway-server', SUBJECT_CORE)
  const settings = typeof behind === 'object' ? behind : dir === undefined ? {} : { dir }
  const port = await child.call<number>('start', settings satisfies GatewayStart)
  const url = `http://127.0.0.1:${port}`
  return {
    port,
    url,
    child,
    async createTopic(topic, partitions) {
      await ask(`${url}/topics/${topic}`, 'PUT', { partitions })
    },
    async deleteTopic(topic) {
      await ask(`${url}/topics/${topic}`, 'DELETE')
    },
    async count(topic) {
      const { offsets } = (await ask(`${url}/topics/${topic}`, 'GET')) as {
        readonly offsets: readonly { readonly logStartOffset: number; readonly logEndOffset: number }[]
      }
      return offsets.reduce((sum, { logStartOffset, logEndOffset }) => sum + logEndOffset - logStartOffset, 0)
    },
    async [Symbol.asyncDispose]() {
      await child.close()
      if (dir !== undefined) rmSync(dir, { recursive: true })
    },
  }
}

/** One call that must succeed, with its JSON answer. */
export async function ask(url: string, method: string, body?: unknown): Promise<unknown> {
  const response = await fetch(url, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`)
  return text === '' ? undefined : (JSON.parse(text) as unknown)
}
