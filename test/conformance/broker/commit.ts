/** Storing a group's progress, and reading it back. */
import { expect } from 'vitest'
import { MAX_OFFSET, MAX_OFFSET_METADATA_BYTES } from '../../../src/broker.ts'
import { series, valuesOf } from '../../support/records.ts'
import type { AddCase } from './harness.ts'
import { instanceOf, newGroup, refusal, unusedName } from './harness.ts'

export function commit(it: AddCase): void {
  it('stores an offset exactly as given, durably, and needs no member', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()

    await t.broker.commit(group, [{ topic, partition: 1, offset: 3 }])
    await t.reopen()

    expect(await t.broker.committed(group.groupId, [{ topic, partition: 1 }])).toEqual([
      { topic, partition: 1, offset: 3, metadata: null },
    ])
  })

  it('checks an offset neither against the log end nor against the assignment', async (t) => {
    const topic = await t.topic(2)
    const member = newGroup()
    const other = instanceOf(member.groupId, 'other')
    await t.pollNow({ group: member, topics: [topic] })

    await t.broker.commit(other, [
      { topic, partition: 0, offset: MAX_OFFSET },
      { topic, partition: 1, offset: 0 },
    ])

    expect(await t.committed(member.groupId, topic, 0)).toBe(MAX_OFFSET)
    expect(await t.committed(member.groupId, topic, 1)).toBe(0)
  })

  it('takes the last of several entries for a partition', async (t) => {
    const topic = await t.topic()
    const group = newGroup()

    await t.broker.commit(
      group,
      [5, 9, 7].map((offset) => ({ topic, partition: 0, offset })),
    )

    expect(await t.committed(group.groupId, topic)).toBe(7)
  })

  it('may go back', async (t) => {
    const topic = await t.topic()
    const group = newGroup()

    for (const offset of [9, 2]) await t.broker.commit(group, [{ topic, partition: 0, offset }])

    expect(await t.committed(group.groupId, topic)).toBe(2)
  })

  it('stores nothing for an empty list', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 2))
    await t.poll({ group, topics: [topic] })

    await t.broker.commit(group, [])

    expect(await t.broker.committed(group.groupId)).toEqual([])
  })

  it("stores with 'polled' the positions after the member's newest answer", async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    await t.produce(...series(topic, 0, 3), ...series(topic, 1, 1))

    const { records } = await t.poll({ group, topics: [topic] })
    await t.broker.commit(group, 'polled')
    await t.produce(...series(topic, 0, 1, 'later'))
    await t.reopen()

    expect(records).toHaveLength(4)
    expect(await t.committed(group.groupId, topic, 0)).toBe(3)
    expect(await t.committed(group.groupId, topic, 1)).toBe(1)
  })

  it("refuses 'polled' for an instance that is not a member with UNKNOWN_MEMBER_ID", async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await refusal(t.broker.commit(group, 'polled'), 'UNKNOWN_MEMBER_ID')

    await t.pollNow({ group, topics: [topic] })
    await refusal(t.broker.commit(instanceOf(group.groupId, 'other'), 'polled'), 'UNKNOWN_MEMBER_ID')
  })

  it('does not move the position of a live member', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 6))

    await t.poll({ group, topics: [topic], maxRecords: 2 })
    await t.broker.commit(group, [{ topic, partition: 0, offset: 5 }])
    const next = await t.poll({ group, topics: [topic], maxRecords: 2 })

    expect(valuesOf(next.records)).toEqual(['v2', 'v3'])
  })

  it('keeps metadata beside the offset, and null after a commit without', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const metadata = 'read by ü \u{1F980} "quoted"'
    const entry = { topic, partition: 0, offset: 1 }
    if (!t.features.offsetMetadata) {
      await refusal(t.broker.commit(group, [{ ...entry, metadata }]), 'UNSUPPORTED')
      expect(await t.committed(group.groupId, topic)).toBe(-1)
      return
    }

    await t.broker.commit(group, [{ ...entry, metadata }])
    await t.reopen()
    const kept = await t.broker.committed(group.groupId)
    await t.broker.commit(group, [entry])

    expect(kept).toEqual([{ ...entry, metadata }])
    expect(await t.broker.committed(group.groupId)).toEqual([{ ...entry, metadata: null }])
  })

  it('tells empty metadata from none', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const entry = { topic, partition: 0, offset: 1, metadata: '' }
    if (!t.features.offsetMetadata) {
      await refusal(t.broker.commit(group, [entry]), 'UNSUPPORTED')
      return
    }

    await t.broker.commit(group, [entry])

    expect(await t.broker.committed(group.groupId)).toEqual([entry])
  })

  it('takes 4,096 bytes of metadata and refuses more with OFFSET_METADATA_TOO_LARGE', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const entry = { topic, partition: 0, offset: 1 }
    if (!t.features.offsetMetadata) {
      await refusal(t.broker.commit(group, [{ ...entry, metadata: '' }]), 'UNSUPPORTED')
      return
    }
    const largest = 'ü'.repeat(MAX_OFFSET_METADATA_BYTES / 2)

    await t.broker.commit(group, [{ ...entry, metadata: largest }])
    await refusal(
      t.broker.commit(group, [{ ...entry, offset: 2, metadata: `${largest}x` }]),
      'OFFSET_METADATA_TOO_LARGE',
    )

    expect(await t.broker.committed(group.groupId)).toEqual([{ ...entry, metadata: largest }])
  })

  it('refuses unknown topics and partitions, and negative or unsafe offsets', async (t) => {
    const topic = await t.topic()
    const group = newGroup()

    await refusal(
      t.broker.commit(group, [{ topic: unusedName('topic'), partition: 0, offset: 1 }]),
      'UNKNOWN_TOPIC_OR_PARTITION',
    )
    await refusal(t.broker.commit(group, [{ topic, partition: 1, offset: 1 }]), 'UNKNOWN_TOPIC_OR_PARTITION')
    for (const offset of [-1, 0.5, 2 ** 53, Number.NaN]) {
      await refusal(t.broker.commit(group, [{ topic, partition: 0, offset }]), 'INVALID_REQUEST')
    }
    expect(await t.broker.committed(group.groupId)).toEqual([])
  })

  it('stores nothing of a commit in which one entry is refused', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const good = { topic, partition: 0, offset: 1 }

    await refusal(
      t.broker.commit(group, [good, { topic: unusedName('topic'), partition: 0, offset: 1 }]),
      'UNKNOWN_TOPIC_OR_PARTITION',
    )
    await refusal(t.broker.commit(group, [good, { topic, partition: 1, offset: -5 }]), 'INVALID_REQUEST')

    expect(await t.broker.committed(group.groupId)).toEqual([])
  })

  it('gives committed offsets for each partition asked for, in that order, -1 where there is none', async (t) => {
    const one = await t.topic(2)
    const two = await t.topic(1)
    await t.broker.commit(instanceOf('g'), [
      { topic: one, partition: 1, offset: 11 },
      { topic: two, partition: 0, offset: 0 },
    ])
    const asked = [
      { topic: two, partition: 0 },
      { topic: one, partition: 0 },
      { topic: one, partition: 1 },
      { topic: two, partition: 0 },
    ]

    const committed = await t.broker.committed('g', asked)

    expect(committed).toEqual(
      asked.map((partition, n) => ({ ...partition, offset: [0, -1, 11, 0][n], metadata: null })),
    )
    expect(await t.broker.committed('g', [])).toEqual([])
    expect(await t.committed('another', one)).toBe(-1)
  })

  it('gives all committed offsets of a group, ordered by topic and partition', async (t) => {
    const topics = [await t.topic(11), await t.topic(11)].toSorted()
    const [one = '', two = ''] = topics
    await t.broker.commit(
      instanceOf('g'),
      [10, 2, 0].flatMap((partition) => topics.toReversed().map((topic) => ({ topic, partition, offset: partition }))),
    )
    await t.broker.commit(instanceOf('other'), [{ topic: one, partition: 5, offset: 5 }])
    await t.reopen()

    const committed = await t.broker.committed('g')

    expect(committed.map(({ topic, partition }) => [topic, partition])).toEqual([
      [one, 0],
      [one, 2],
      [one, 10],
      [two, 0],
      [two, 2],
      [two, 10],
    ])
    expect(await t.broker.committed('nobody')).toEqual([])
  })

  it('takes a commit of the current generation for partitions that the member holds', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const { generationId } = await t.pollNow({ group, topics: [topic] })

    await t.broker.commit(group, [{ topic, partition: 0, offset: 1 }], { generationId })

    expect(await t.committed(group.groupId, topic)).toBe(1)
  })

  it('takes a commit of an older generation for a partition held since then', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const { generationId } = await t.pollNow({ group, topics: [topic] })
    await t.pollNow({ group: instanceOf(group.groupId, 'other'), topics: [topic] })
    const { assignment, generationId: newer } = await t.pollNow({ group, topics: [topic] })
    await t.reopen()

    const kept = assignment.map((partition) => ({ ...partition, offset: 1 }))
    await t.broker.commit(group, kept, { generationId })

    expect(newer).toBeGreaterThan(generationId)
    expect(kept).toHaveLength(1)
    expect(await t.committed(group.groupId, topic, kept[0]?.partition)).toBe(1)
  })

  it('refuses a commit of an old generation for a partition that moved, and stores nothing of it', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const first = await t.pollNow({ group, topics: [topic] })
    await t.pollNow({ group: instanceOf(group.groupId, 'other'), topics: [topic] })
    await t.reopen()

    const both = first.assignment.map((partition) => ({ ...partition, offset: 1 }))
    const error = await refusal(
      t.broker.commit(group, both, { generationId: first.generationId }),
      'ILLEGAL_GENERATION',
    )

    expect(error.retriable).toBe(false)
    expect(await t.broker.committed(group.groupId)).toEqual([])
  })

  it('refuses a generation for a partition that came back after it had moved', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const other = instanceOf(group.groupId, 'other')
    const first = await t.pollNow({ group, topics: [topic] })
    await t.pollNow({ group: other, topics: [topic] })
    await t.broker.leave(other)
    const last = await t.pollNow({ group, topics: [topic] })
    const both = last.assignment.map((partition) => ({ ...partition, offset: 1 }))

    await refusal(t.broker.commit(group, both, { generationId: first.generationId }), 'ILLEGAL_GENERATION')
    await t.broker.commit(group, both, { generationId: last.generationId })

    expect(await t.broker.committed(group.groupId)).toHaveLength(2)
  })

  it('refuses a generation of an instance that is not a member, or that never was', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const { generationId } = await t.pollNow({ group, topics: [topic] })
    const entry = [{ topic, partition: 0, offset: 1 }]

    await refusal(t.broker.commit(group, entry, { generationId: generationId + 1 }), 'ILLEGAL_GENERATION')
    await refusal(
      t.broker.commit(instanceOf(group.groupId, 'other'), entry, { generationId }),
      'ILLEGAL_GENERATION',
      'UNKNOWN_MEMBER_ID',
    )

    expect(await t.committed(group.groupId, topic)).toBe(-1)
  })
}
