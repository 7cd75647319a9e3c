import { afterAll, describe, expect, it } from 'vitest'
import { type Bundle, bundleLambda, bundleWorker, type Entry } from './support/bundle.ts'

const KIB = 1024
const sizes: [name: string, bundle: Bundle][] = []

async function measured(name: string, bundled: Promise<Bundle>): Promise<Bundle> {
  const bundle = await bundled
  sizes.push([name, bundle])
  return bundle
}

/** What a Worker may not hold: no Node module and no socket can be there when it runs, and the AWS SDK is too large. */
function intruders({ packages, imports }: Bundle): string[] {
  return [...packages.filter((name) => /^@aws-sdk\/|^@smithy\/|kafkajs|^@platformatic\/kafka$/.test(name)), ...imports]
}

const client: Entry = {
  text: `
    export { restBroker } from './src/brokers/rest.ts'
    export { createProducer } from './src/producer.ts'
    export { defineTopic } from './src/topic.ts'
  `,
}

afterAll(() => {
  const kib = (bytes: number): string => `${(bytes / KIB).toFixed(1)} KiB`.padStart(11)
  const rows = sizes.map(
    ([name, { rawBytes, minBytes, gzipBytes, startGzipBytes }]) =>
      `${name.padEnd(24)}${kib(rawBytes)}${kib(minBytes)}${kib(gzipBytes)}${kib(startGzipBytes)}`,
  )
  console.log(
    [
      `${''.padEnd(24)}${'raw'.padStart(11)}${'minified'.padStart(11)}${'gzip'.padStart(11)}${'at start'.padStart(11)}`,
      ...rows,
    ].join('\n'),
  )
})

describe('the Worker', () => {
  it('holds nothing that only Node or AWS has', async () => {
    const worker = await measured('Worker', bundleWorker({ file: 'functions/worker.ts' }))

    expect(intruders(worker)).toEqual([])
    expect(worker.files).toContain('src/runtimes/cloudflare.ts')
    expect(worker.files.filter((file) => /\/(log|sqs|kafka)[./]/.test(file))).toEqual([])
  })

  it('is small', async () => {
    const worker = await bundleWorker({ file: 'functions/worker.ts' })

    // What a function may weigh, compressed. Where it is far more, zod came in whole: import it as `* as z`, so that what
    // nobody uses stays out.
    expect(worker.gzipBytes).toBeLessThan(120 * KIB)
  })
})

describe('the check', () => {
  it.each([
    ['a TCP socket', "import { connect } from 'node:net'\nconsole.log(connect)", 'node:net'],
    ['a Node module by its old name', "import { readFileSync } from 'fs'\nconsole.log(readFileSync)", 'fs'],
    [
      'a TCP socket of the platform',
      "import { connect } from 'cloudflare:sockets'\nconsole.log(connect)",
      'cloudflare:sockets',
    ],
    ['the AWS SDK', "import { SQSClient } from '@aws-sdk/client-sqs'\nconsole.log(SQSClient)", '@aws-sdk/client-sqs'],
    [
      'the AWS SDK behind a driver',
      "import { sqsDeadLetters } from './src/dead-letters/sqs.ts'\nconsole.log(sqsDeadLetters)",
      '@aws-sdk/client-sqs',
    ],
    ['the AWS SDK, loaded when it is needed', "await import('./src/dead-letters/sqs.ts')", '@aws-sdk/client-sqs'],
    ['the Kafka driver, loaded when it is needed', "await import('./src/brokers/kafka.ts')", '@platformatic/kafka'],
    ['the drivers of Node', "import './src/runtimes/broker-drivers.ts'", 'node:fs/promises'],
    ['another Kafka client', "import { Kafka } from 'kafkajs'\nconsole.log(Kafka)", 'kafkajs'],
  ])('finds %s', async (_name, text, intruder) => {
    expect(intruders(await bundleWorker({ text }))).toContain(intruder)
  })
})

describe('the public API', () => {
  it('runs on every platform', async () => {
    const whole = await measured('public API, all of it', bundleWorker({ text: "export * from './src/index.ts'" }))

    expect(intruders(whole)).toEqual([])
  })
})

describe('the client alone', () => {
  it('is a few kilobytes and runs anywhere', async () => {
    const bundle = await measured('client (rest, producer)', bundleWorker(client))

    expect(intruders(bundle)).toEqual([])
    expect(bundle.packages).toEqual(['@upstash/kafka'])
    expect(bundle.gzipBytes).toBeLessThan(14 * KIB)
  })
})

describe('the Lambda functions', () => {
  it.each([
    ['produce', 80],
    ['consume', 240],
    ['redrive', 240],
  ])(
    '%s reads little at its start, and holds the Kafka client for when a cluster is configured',
    async (name, limitKib) => {
      const bundle = await measured(`Lambda ${name}`, bundleLambda({ file: `functions/${name}.ts` }))

      expect(bundle.startGzipBytes).toBeLessThan(limitKib * KIB)
      expect(bundle.startPackages).not.toContain('@platformatic/kafka')
      expect(bundle.packages).toContain('@platformatic/kafka')
    },
  )

  it('take no more of the Kafka client along than they use', async () => {
    const bundle = await bundleLambda({ text: "await import('./src/brokers/kafka.ts')" })

    // Schema registries come with these, and its own producer and consumer with more.
    expect(bundle.packages.filter((name) => /^(avsc|protobufjs|mnemonist)$/.test(name))).toEqual([])
    expect(bundle.gzipBytes).toBeLessThan(160 * KIB)
  })
})
