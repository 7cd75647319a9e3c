/** Making, describing and deleting topics. */
import { expect } from 'vitest'
import type { NewTopic } from '../../../src/broker.ts'
import { DEFAULT_MAX_RECORD_BYTES, DEFAULT_RETENTION_MS } from '../../../src/broker.ts'
import type { ErrorCode } from '../../../src/errors.ts'
import { record, valuesOf } from '../../support/records.ts'
import type { AddCase, BrokerCase } from './harness.ts'
import { instanceOf, refusal, unusedName } from './harness.ts'

export function topics(add: AddCase): void {
  /** Adds a case that, without the feature, asserts only the refusal. */
  const it: AddCase = (title, run) =>
    add(title, async (t) => {
      if (t.features.topicAdmin) await run(t)
      else await refusesAdmin(t)
    })

  add('lists topics by name', async (t) => {
    const names = [await t.topic(2), await t.topic(1), await t.topic(3)]
    await t.reopen()

    const listed = await t.broker.topics()

    expect(listed.map(({ topic }) => topic)).toEqual(names.toSorted())
    expect(listed.find(({ topic }) => topic === names[2])?.partitions).toBe(3)
  })

  it('describes a new topic with its defaults, and lists it so', async (t) => {
    const topic = unusedName('topic')

    const created = await t.broker.createTopic({ topic })
    await t.reopen()

    expect(created).toEqual({
      topic,
      partitions: 1,
      retentionMs: DEFAULT_RETENTION_MS,
      retentionBytes: null,
      maxRecordBytes: DEFAULT_MAX_RECORD_BYTES,
    })
    expect(await t.broker.topics()).toEqual([created])
  })

  it('keeps the configuration it is given, null included', async (t) => {
    const asked = {
      topic: unusedName('topic'),
      partitions: 7,
      retentionMs: null,
      retentionBytes: 1e9,
      maxRecordBytes: 99,
    }

    if (!t.features.retention) {
      await refusal(t.broker.createTopic(asked), 'UNSUPPORTED')
      return
    }
    const created = await t.broker.createTopic(asked)
    await t.reopen()

    expect(created).toEqual(asked)
    expect(await t.broker.topics()).toEqual([asked])
  })

  it("takes the names that Kafka's rule allows", async (t) => {
    const names = ['a', 'A', 'a.b_c-d', '...', '-', '0', 'x'.repeat(249), 'constructor', 'toString']

    for (const topic of names) await t.broker.createTopic({ topic })
    for (const topic of names) await t.produce(record(topic, `in ${topic}`))
    await t.reopen()

    for (const topic of names) expect(valuesOf(await t.read(topic))).toEqual([`in ${topic}`])
    expect((await t.broker.topics()).map(({ topic }) => topic)).toEqual(names.toSorted())
  })

  it('refuses every other name with INVALID_TOPIC_EXCEPTION', async (t) => {
    const names = ['', '.', '..', 'a/b', 'a b', 'ü', 'a\u0000', 'a\r\nb', 'x'.repeat(250), '\ud800', 'a%2Fb']

    for (const topic of names) await refusal(t.broker.createTopic({ topic }), 'INVALID_TOPIC_EXCEPTION')
    expect(await t.broker.topics()).toEqual([])
  })

  it('refuses a name that is taken with TOPIC_ALREADY_EXISTS', async (t) => {
    const topic = await t.topic(2)
    await t.reopen()

    await refusal(t.broker.createTopic({ topic, partitions: 3 }), 'TOPIC_ALREADY_EXISTS')

    expect((await t.broker.topics()).map(({ partitions }) => partitions)).toEqual([2])
  })

  it('takes 1 to 1000 partitions', async (t) => {
    const topic = await t.topic(1_000)
    const [metadata] = await t.produce(record(topic, 'v', { partition: 999 }))
    expect(metadata?.partition).toBe(999)

    for (const partitions of [0, -1, 1_001]) {
      await refusal(t.broker.createTopic({ topic: unusedName('topic'), partitions }), 'INVALID_PARTITIONS')
    }
    const fraction = { topic: unusedName('topic'), partitions: 1.5 }
    await refusal(t.broker.createTopic(fraction), 'INVALID_PARTITIONS', 'INVALID_REQUEST')
  })

  it('refuses a configuration out of range with INVALID_CONFIG_VALUE', async (t) => {
    const configs: Omit<NewTopic, 'topic'>[] = [
      { retentionMs: -1 },
      { retentionBytes: -1 },
      { maxRecordBytes: 0 },
      { maxRecordBytes: -1 },
    ]
    const noIntegers: Omit<NewTopic, 'topic'>[] = [{ retentionMs: 1.5 }, { maxRecordBytes: 2 ** 53 }]

    for (const config of configs) {
      await refusal(t.broker.createTopic({ topic: unusedName('topic'), ...config }), 'INVALID_CONFIG_VALUE')
    }
    for (const config of noIntegers) {
      const created = t.broker.createTopic({ topic: unusedName('topic'), ...config })
      await refusal(created, 'INVALID_CONFIG_VALUE', 'INVALID_REQUEST')
    }
    expect(await t.broker.topics()).toEqual([])
  })

  it('deletes a topic with its records and committed offsets', async (t) => {
    const topic = await t.topic(2)
    const other = await t.topic(1)
    await t.produce(record(topic, 'gone', { partition: 1 }), record(other, 'kept'))
    await t.broker.commit(instanceOf('g'), [
      { topic, partition: 1, offset: 1 },
      { topic: other, partition: 0, offset: 1 },
    ])

    await t.broker.deleteTopic(topic)
    await t.reopen()

    await refusal(t.fetch([{ topic, partition: 1, offset: 0 }]), 'UNKNOWN_TOPIC_OR_PARTITION')
    expect((await t.broker.topics()).map(({ topic }) => topic)).toEqual([other])
    expect(await t.broker.committed('g')).toEqual([{ topic: other, partition: 0, offset: 1, metadata: null }])

    await t.broker.createTopic({ topic, partitions: 2 })
    expect(await t.ends(topic, 2)).toEqual([0, 0])
    expect(await t.committed('g', topic, 1)).toBe(-1)
  })

  it('refuses to delete an unknown topic', async (t) => {
    await refusal(t.broker.deleteTopic(unusedName('topic')), 'UNKNOWN_TOPIC_OR_PARTITION')
  })

  it('ends the fetches and polls that wait on a topic that is deleted', async (t) => {
    const topic = await t.topic()
    const fetchEnded = emptyOr(
      t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 3_001 }),
      'UNKNOWN_TOPIC_OR_PARTITION',
    )
    const polling = t.poll({ group: instanceOf('g'), topics: [topic], maxWaitMs: 3_002 })
    await t.untilWaiting(3_001)
    await t.untilWaiting(3_002)

    await t.broker.deleteTopic(topic)

    expect((await polling).records).toEqual([])
    await fetchEnded
  })
}

/**
 * A fetch has no text that says how it ends with its topic; both ways are an end. Called before that end, so that a fetch
 * which is refused while the test waits for something else has who listens.
 */
async function emptyOr(fetching: Promise<unknown[]>, code: ErrorCode): Promise<void> {
  const outcome = await Promise.allSettled([fetching])
  if (outcome[0].status === 'rejected') await refusal(fetching, code)
  else expect(outcome[0].value).toEqual([])
}

async function refusesAdmin(t: BrokerCase): Promise<void> {
  const topic = await t.topic()
  await refusal(t.broker.createTopic({ topic: unusedName('topic') }), 'UNSUPPORTED')
  await refusal(t.broker.deleteTopic(topic), 'UNSUPPORTED')
  expect((await t.broker.topics()).map(({ topic }) => topic)).toContain(topic)
}
