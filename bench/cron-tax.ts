/**
 * G11: from the invocation of a scheduled function to its first record, in a group that has been there before. Through the
 * gateway, against a bare round trip that answers a record, and against a consumer of kafkajs that connects and joins in each
 * invocation; on a broker that waits for more members before a first assignment (3 s, its default), and on one that does not.
 */
import { startChild } from './child.ts'
import { type BenchGateway, ask, startGateway } from './gateway.ts'
import { goalResult } from './goals.ts'
import { startBroker } from './kafka.ts'
import { LOAD_CORE, SUBJECT_CORE } from './machine.ts'
import { jsonValue } from './payload.ts'
import { type BenchOptions, type BenchResult, printTable, ratio } from './report.ts'
import { type Spread, inRounds, spread } from './rounds.ts'
import type { KafkajsInvocation, RunInvocation } from './workers/first-record.ts'

/** Invocations in a round: so many milliseconds of its time for each. */
const MS_PER_INVOCATION = 50
const WARM_UP_INVOCATIONS = 40
const PARTITIONS = 4

/** The median of a contender's invocations, by round. */
type Medians = ReadonlyMap<string, readonly { readonly ms: number }[]>

export async function cronTax(options: BenchOptions): Promise<BenchResult> {
  const invocations = Math.ceil(options.runMs / MS_PER_INVOCATION)
  // It waits 3 s each time, which no further try makes more exact.
  const waiting = await measure('3000', options, { bare: invocations, run: invocations, kafkajs: 1 })
  const prompt = await measure('0', options, { bare: invocations, run: invocations, kafkajs: invocations })

  console.log('From invocation to the first record of 1 KiB, milliseconds, medians of each round:\n')
  printTable(
    ['', 'rebalance delay 3 s, the default', 'no rebalance delay'],
    [
      ['bare', 'bare node:http round trip'],
      ['run', 'consumer run over the gateway'],
      ['kafkajs', 'kafkajs, connect and join'],
    ].map(([name = '', title = '']) => [title, ratio(figureOf(waiting, name)), ratio(figureOf(prompt, name))]),
  )
  return {
    goals: {
      G11: goalResult('G11', ratioOf(prompt, 'run', 'bare')),
      'G11-kafkajs': goalResult('G11-kafkajs', ratioOf(waiting, 'kafkajs', 'run')),
      'G11-kafkajs-delay-0': goalResult('G11-kafkajs-delay-0', ratioOf(prompt, 'kafkajs', 'run')),
    },
  }
}

type Name = 'bare' | 'run' | 'kafkajs'

async function measure(delayMs: string, { rounds }: BenchOptions, counts: Record<Name, number>): Promise<Medians> {
  await using broker = await startBroker({ 'group.initial.rebalance.delay.ms': delayMs })
  const { bootstrapServers } = broker
  await using gateway = await startGateway({ bootstrapServers })
  await using bare = await startChild('bare-server', SUBJECT_CORE)
  await using caller = await startChild('first-record', LOAD_CORE)
  for (const topic of ['run', 'kafkajs']) await gateway.createTopic(topic, PARTITIONS)
  const bareUrl = `http://127.0.0.1:${await bare.call<number>('start', await answerOf(gateway))}`
  let runs = 0
  const invoke: Record<Name, () => Promise<number>> = {
    bare: () => caller.call<number>('bare', bareUrl),
    async run() {
      await produceOne(gateway, 'run')
      runs += 1
      const invocation = { url: gateway.url, topic: 'run', group: 'run', runId: `run-${runs}` } satisfies RunInvocation
      return caller.call<number>('run', invocation)
    },
    async kafkajs() {
      await produceOne(gateway, 'kafkajs')
      return caller.call<number>('kafkajs', {
        bootstrapServers,
        topic: 'kafkajs',
        group: 'kafkajs',
      } satisfies KafkajsInvocation)
    },
  }
  const medians = (name: Name, count: number) => async (): Promise<{ ms: number }> => {
    const times: number[] = []
    for (let at = 0; at < count; at += 1) times.push(await invoke[name]())
    return { ms: spread(times).median }
  }
  const each = (most: number): Record<Name, () => Promise<{ ms: number }>> => ({
    bare: medians('bare', Math.min(most, counts.bare)),
    run: medians('run', Math.min(most, counts.run)),
    kafkajs: medians('kafkajs', Math.min(most, counts.kafkajs)),
  })
  const { kafkajs, ...warmUp } = each(WARM_UP_INVOCATIONS)
  await inRounds(counts.kafkajs === 1 ? warmUp : { ...warmUp, kafkajs }, 1)
  return await inRounds(each(Number.POSITIVE_INFINITY), rounds)
}

async function produceOne(gateway: BenchGateway, topic: string): Promise<void> {
  await ask(`${gateway.url}/produce/${topic}`, 'POST', { value: jsonValue(1024) })
}

/** What the gateway answers to a poll with one record, for the bare server to answer as much. */
async function answerOf(gateway: BenchGateway): Promise<string> {
  await gateway.createTopic('answer', 1)
  await produceOne(gateway, 'answer')
  const from = { topic: 'answer', partition: 0, offset: 0 }
  return JSON.stringify(await ask(`${gateway.url}/fetch`, 'POST', { ...from, timeout: 1000 }))
}

function figureOf(medians: Medians, name: string): Spread {
  return spread((medians.get(name) ?? []).map(({ ms }) => ms))
}

/** The median of the rounds' ratios. */
function ratioOf(medians: Medians, of: Name, to: Name): number {
  const theirs = medians.get(to) ?? []
  return spread((medians.get(of) ?? []).map(({ ms }, round) => ms / (theirs[round]?.ms ?? Number.NaN))).median
}
