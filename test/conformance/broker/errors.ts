/** How a driver fails: with our class, the right code, and nothing that should not be shown. */
import { expect } from 'vitest'
import type { Broker } from '../../../src/broker.ts'
import { BrokerError } from '../../../src/errors.ts'
import { record } from '../../support/records.ts'
import type { AddCase, BrokerCase } from './harness.ts'
import { instanceOf, newGroup, refusal, unusedName } from './harness.ts'

export function errors(it: AddCase): void {
  it("carries Kafka's number, and whether the same call may succeed later", async (t) => {
    const error = await refusal(t.broker.produce([record(unusedName('topic'), 'v')]), 'UNKNOWN_TOPIC_OR_PARTITION')

    expect(error).toBeInstanceOf(BrokerError)
    expect(error.name).toBe('BrokerError')
    expect(error.errorCode).toBe(3)
    expect(typeof error.retriable).toBe('boolean')
    expect(error.message).not.toBe('')
  })

  it('names the topic that is missing, and shows no values', async (t) => {
    const topic = await t.topic(1, { maxRecordBytes: 10 })
    const missing = unusedName('missing')

    const unknown = await refusal(t.broker.produce([record(missing, 'v')]), 'UNKNOWN_TOPIC_OR_PARTITION')
    const large = await refusal(t.broker.produce([record(topic, 'secret value of many bytes')]), 'MESSAGE_TOO_LARGE')

    expect(unknown.message).toContain(missing)
    expect(large.message).toContain(topic)
    expect(large.message).not.toContain('secret')
  })

  it('refuses every use of a topic that does not exist, and goes on working', async (t) => {
    const topic = unusedName('topic')
    const partition = { topic, partition: 0 }
    const uses: Record<string, () => Promise<unknown>> = {
      produce: () => t.broker.produce([record(topic, 'v')]),
      fetch: () => t.fetch([{ ...partition, offset: 0 }]),
      poll: () => t.pollNow({ group: newGroup(), topics: [topic] }),
      offsets: () => t.broker.offsets([partition], 'latest'),
      commit: () => t.broker.commit(newGroup(), [{ ...partition, offset: 0 }]),
    }

    for (const use of Object.values(uses)) await refusal(use(), 'UNKNOWN_TOPIC_OR_PARTITION')

    const real = await t.topic()
    await t.produce(record(real, 'v'))
    expect(await t.ends(real)).toEqual([1])
  })

  it('makes no topic of a name that is used, hostile names included', async (t) => {
    for (const topic of [
      '..',
      '.',
      '',
      '__proto__',
      'constructor',
      'a/b',
      'x'.repeat(250),
      'a\u0000b',
      'a\r\nb',
      '\ud800',
    ]) {
      await refusal(t.broker.produce([record(topic, 'v')]), ...UNKNOWN)
      await refusal(t.broker.offsets([{ topic, partition: 0 }], 'latest'), ...UNKNOWN)
      await refusal(t.pollNow({ group: newGroup(), topics: [topic] }), ...UNKNOWN)
    }
    expect(await t.broker.topics()).toEqual([])
  })

  it('refuses limits that make no sense with INVALID_REQUEST', async (t) => {
    const topic = await t.topic()
    const from = [{ topic, partition: 0, offset: 0 }]

    for (const limits of [{ maxRecords: 0 }, { maxRecords: -1 }, { maxRecords: 1.5 }, { maxWaitMs: -1 }]) {
      await refusal(t.fetch(from, limits), 'INVALID_REQUEST')
      await refusal(t.poll({ group: newGroup(), topics: [topic], ...limits }), 'INVALID_REQUEST')
    }
  })

  it('refuses no call for another that failed beside it', async (t) => {
    const topic = await t.topic()
    const calls = [0, 1, 2].flatMap((n) => [
      t.produce(record(topic, `v${n}`)),
      t.broker.produce([record(unusedName('topic'), 'v')]),
    ])

    const outcomes = await Promise.allSettled(calls)

    expect(outcomes.map(({ status }) => status)).toEqual([0, 1, 2].flatMap(() => ['fulfilled', 'rejected']))
    expect(await t.ends(topic)).toEqual([3])
  })

  it('leaves a group as it was when a poll is refused', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const before = await t.pollNow({ group, topics: [topic] })

    await refusal(t.pollNow({ group, topics: [unusedName('topic')] }), 'UNKNOWN_TOPIC_OR_PARTITION')
    await refusal(
      t.pollNow({ group: instanceOf(group.groupId, 'other'), topics: [unusedName('topic')] }),
      'UNKNOWN_TOPIC_OR_PARTITION',
    )
    const after = await t.pollNow({ group, topics: [topic] })

    expect(after.assignment).toEqual(before.assignment)
    expect(after.generationId).toBe(before.generationId)
    expect(await describeMembers(t.broker)).toEqual([group.groupInstanceId])
  })

  it('opens beside features it lacks, and says so', async (t: BrokerCase) => {
    expect(Object.keys(t.features).toSorted()).toEqual([
      'atomicProduce',
      'autoCommit',
      'claims',
      'idempotencyKeys',
      'offsetMetadata',
      'retention',
      'topicAdmin',
    ])
    for (const feature of Object.values(t.features)) expect(typeof feature).toBe('boolean')
  })
}

/** A name that no topic can have may be refused for the name or for the topic. */
const UNKNOWN = ['UNKNOWN_TOPIC_OR_PARTITION', 'INVALID_TOPIC_EXCEPTION', 'INVALID_REQUEST'] as const

async function describeMembers(broker: Broker): Promise<string[]> {
  const [described] = await broker.groups()
  return described?.members.map(({ groupInstanceId }) => groupInstanceId) ?? []
}
