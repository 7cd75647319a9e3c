import { globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { violations, type Violation } from './support/architecture.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const folders = '{src,functions,scripts,test,bench,prove,examples}/**/*.ts'
const project = new Map(
  globSync(folders, { cwd: root }).map((file) => [file, readFileSync(`${root}/${file}`, 'utf8')] as const),
)

/** What the checker says of a project that has, beside a few good files, this one. */
function broken(file: string, text: string): Violation['rule'][] {
  const good: [string, string][] = [
    ['src/record.ts', 'export interface ConsumerRecord {}\n'],
    ['src/broker.ts', "import type { ConsumerRecord } from './record.ts'\nexport interface Broker {}\n"],
    ['src/brokers/memory.ts', 'export function memoryBroker(\n  options = {},\n): Broker {\n}\n'],
    ['src/dead-letters/memory.ts', 'export function memoryDeadLetters(): DeadLetterStore {\n}\n'],
    ['src/dead-letters/codec.ts', 'export function decode(text: string): string {\n  return text\n}\n'],
  ]
  return violations(new Map([...good, [file, text]])).map(({ rule }) => rule)
}

describe('the project', () => {
  it('breaks no rule', () => {
    expect(violations(project)).toEqual([])
  })

  it('was seen whole', () => {
    const sources = [...project.keys()].filter((file) => file.startsWith('src/'))

    expect(sources.length).toBeGreaterThan(70)
    expect(sources).toContain('src/gateway/routes/produce.ts')
  })
})

describe('an import that is allowed', () => {
  it.each([
    ['a lower rank', 'src/producer.ts', "import type { Broker } from './broker.ts'"],
    ['a file of the same area', 'src/gateway/routes/x.ts', "import { limits } from '../limits.ts'"],
    ['a driver, in a runtime', 'src/runtimes/node.ts', "import { memoryBroker } from '../brokers/memory.ts'"],
    ['what two drivers share', 'src/dead-letters/sqs.ts', "import { decode } from './codec.ts'"],
    ['the port beside the log', 'src/log/engine.ts', "import type { Broker } from '../broker.ts'"],
    ['hono in the gateway', 'src/gateway/app.ts', "import { Hono } from 'hono'"],
    ['the AWS SDK in its driver', 'src/dead-letters/sqs.ts', "import { SQSClient } from '@aws-sdk/client-sqs'"],
    ['node:sqlite in its file', 'src/log/node-sqlite.ts', "import { DatabaseSync } from 'node:sqlite'"],
    ['behaviour, in a call of operators', 'src/operator/x.ts', "import { createProducer } from '../producer.ts'"],
    ['the gateway, in a call of operators', 'src/operator/x.ts', "import { limits } from '../gateway/limits.ts'"],
    ['node in a runtime', 'src/runtimes/node.ts', "import { createServer } from 'node:http'"],
    ['one named in a comment', 'src/record.ts', "/**\n * import { x } from './gateway/app.ts'\n */\nexport {}"],
  ])('%s', (_name, file, text) => {
    expect(broken(file, text)).toEqual([])
  })
})

describe('a rule is noticed when it is broken', () => {
  it.each([
    ['a higher rank', 'src/broker.ts', "import { createProducer } from './producer.ts'"],
    ['a higher rank, type only', 'src/broker.ts', "import type { Producer } from './producer.ts'"],
    ['a higher rank over several lines', 'src/broker.ts', "import {\n  createProducer,\n} from './producer.ts'"],
    ['a higher rank, imported when it is needed', 'src/broker.ts', "const x = () => import('./producer.ts')"],
    ['a higher rank, named in a type', 'src/broker.ts', "export type X = import('./producer.ts').Producer"],
    ['a higher rank, for its effect', 'src/broker.ts', "import './producer.ts'"],
    ['a higher rank, exported again', 'src/index.ts', "export { app } from '../functions/app.ts'"],
    ['another area of the same rank', 'src/brokers/rest.ts', "import { limits } from '../gateway/limits.ts'"],
    ['behaviour, from a driver', 'src/dead-letters/topic.ts', "import { createProducer } from '../producer.ts'"],
    ['behaviour, from the gateway', 'src/gateway/app.ts', "import { createProducer } from '../producer.ts'"],
    ['a call of operators, from the gateway', 'src/gateway/routes.ts', "import { x } from '../operator/routes.ts'"],
    ['the log engine, from a port', 'src/broker.ts', "import { open } from './log/engine.ts'"],
    ['the public API, from inside', 'src/runtimes/node.ts', "import { createProducer } from '../index.ts'"],
    ['a test', 'src/producer.ts', "import { record } from '../test/support/records.ts'"],
  ])('direction: %s', (_name, file, text) => {
    expect(broken(file, text)).toContain('direction')
  })

  it.each([
    ['another driver', 'src/dead-letters/topic.ts', "import { memoryDeadLetters } from './memory.ts'"],
    ['a driver, in a call of operators', 'src/operator/x.ts', "import { memoryBroker } from '../brokers/memory.ts'"],
    ['a driver, from the gateway', 'src/gateway/app.ts', "import { memoryBroker } from '../brokers/memory.ts'"],
  ])('driver: %s', (_name, file, text) => {
    expect(broken(file, text)).toContain('driver')
  })

  it.each([
    ['hono in a driver', 'src/brokers/rest.ts', "import { Hono } from 'hono'"],
    ['a part of hono in behaviour', 'src/producer.ts', "import { stream } from 'hono/streaming'"],
    ['the AWS SDK in a runtime', 'src/runtimes/cloudflare.ts', "import { SQSClient } from '@aws-sdk/client-sqs'"],
    ['a Node module in behaviour', 'src/producer.ts', "import { Buffer } from 'node:buffer'"],
    ['a Node module in the log engine', 'src/log/engine.ts', "import { readFileSync } from 'node:fs'"],
    ['zod in behaviour', 'src/router.ts', "import { z } from 'zod'"],
    ['a package nobody decided on', 'src/runtimes/node.ts', "import express from 'express'"],
    ['a Node module by its old name', 'src/runtimes/node.ts', "import net from 'net'"],
  ])('package: %s', (_name, file, text) => {
    expect(broken(file, text)).toEqual(['package'])
  })

  it.each([
    ['the environment', 'src/producer.ts', "const url = process.env['URL']"],
    ['the wall clock', 'src/producer.ts', 'const now = Date.now()'],
    ['the wall clock as a date', 'src/producer.ts', 'const now = new Date()'],
    ['a timer', 'src/consumer.ts', 'setTimeout(() => {}, 5)'],
    ['a timer in a signal', 'src/consumer.ts', 'const signal = AbortSignal.timeout(5)'],
    ['chance', 'src/backoff.ts', 'const x = Math.random()'],
    ['a random id', 'src/gateway/app.ts', 'const id = crypto.randomUUID()'],
    ['the network', 'src/producer.ts', "await fetch('http://127.0.0.1')"],
    ['the network by its full name', 'src/producer.ts', 'const options = { fetch: globalThis.fetch }'],
    ['the global object', 'src/producer.ts', "const f = globalThis['fetch']"],
    ['the console', 'src/producer.ts', "console.log('x')"],
  ])('global: %s', (_name, file, text) => {
    expect(broken(file, text)).toEqual(['global'])
  })

  it.each([
    ['at rank 4', 'src/runtimes/node.ts', "const url = process.env['URL'] ?? String(Date.now())"],
    ['in the clock', 'src/clock.ts', 'export const clock = { now: () => Date.now() }'],
    ['where it is a parameter', 'src/producer.ts', 'function f(fetch: () => void) { fetch() }'],
    ['where it is a property', 'src/producer.ts', 'options.fetch(); options.process.env'],
    ['in a text or comment', 'src/producer.ts', "const x = 'Date.now()' // Date.now()"],
    ['a date of a given time', 'src/producer.ts', 'const x = new Date(0)'],
  ])('a global is allowed %s', (_name, file, text) => {
    expect(broken(file, text)).toEqual([])
  })

  it.each(['src/utils.ts', 'src/gateway/types.ts', 'test/support/helpers.ts', 'src/lib/x.ts', 'bench/common.ts'])(
    'file name: %s',
    (file) => {
      expect(broken(file, 'export {}')).toContain('file name')
    },
  )

  it.each(["export * from './record.ts'", "export { x } from './record.ts'", "export type { X } from './record.ts'"])(
    'barrel: %s',
    (text) => {
      expect(broken('src/producer.ts', text)).toEqual(['barrel'])
      expect(broken('src/index.ts', text)).toEqual([])
    },
  )

  it.each(['export default {}', 'const x = 1\nexport { x as default }'])('default export: %s', (text) => {
    expect(broken('src/producer.ts', text)).toEqual(['default export'])
    expect(broken('functions/worker.ts', text)).toEqual([])
  })

  it('area: a file without a rank', () => {
    expect(broken('src/somewhere/x.ts', 'export {}')).toEqual(['area'])
  })

  it('length: a long file that does not say why it is one', () => {
    const long = 'export {}\n'.repeat(450)

    expect(broken('src/producer.ts', long)).toEqual(['length'])
    expect(broken('src/producer.ts', `/** One thing, because of this and that. */\n${long}`)).toEqual([])
  })
})
