/** Reading as a member of a group: joining, positions, auto-commit, leaving. */
import { expect } from 'vitest'
import type { PollRequest } from '../../../src/broker.ts'
import { record, series, sortedValuesOf, valuesOf } from '../../support/records.ts'
import type { AddCase } from './harness.ts'
import { instanceOf, newGroup, partitionsOf, peek, refusal, unusedName } from './harness.ts'

export function groups(it: AddCase): void {
  it('gives a member that joins the whole topic, from the log start with earliest', async (t) => {
    const topic = await t.topic(3)
    await t.produce(...series(topic, 0, 2, 'a'), ...series(topic, 2, 2, 'b'))
    await t.reopen()

    const { records, assignment, generationId } = await t.poll({ group: newGroup(), topics: [topic] })

    expect(sortedValuesOf(records)).toEqual(['a0', 'a1', 'b0', 'b1'])
    expect(assignment).toEqual(partitionsOf(topic, 3))
    expect(generationId).toBeGreaterThanOrEqual(0)
  })

  it('starts at the log end with latest, which is the default', async (t) => {
    const topic = await t.topic()
    await t.produce(record(topic, 'before'))
    const explicit = newGroup()
    const byDefault = newGroup()
    const limits = { maxWaitMs: 0, maxRecords: 10, maxBytes: 1_000 }

    const joined = await t.pollNow({ group: explicit, topics: [topic], autoOffsetReset: 'latest' })
    const joinedByDefault = await t.broker.poll({ group: byDefault, topics: [topic], ...limits })
    await t.produce(record(topic, 'after'))

    expect(joined.records).toEqual([])
    expect(joinedByDefault.records).toEqual([])
    expect(valuesOf((await t.poll({ group: explicit, topics: [topic] })).records)).toEqual(['after'])
    expect(valuesOf((await t.broker.poll({ group: byDefault, topics: [topic], ...limits })).records)).toEqual(['after'])
  })

  it('rejects with NO_COMMITTED_OFFSET with none, unless there is one', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 3))

    await refusal(t.poll({ group, topics: [topic], autoOffsetReset: 'none' }), 'NO_COMMITTED_OFFSET')
    await t.broker.commit(group, [{ topic, partition: 0, offset: 1 }])
    await t.reopen()

    const { records } = await t.poll({ group, topics: [topic], autoOffsetReset: 'none' })
    expect(valuesOf(records)).toEqual(['v1', 'v2'])
  })

  it('starts at the committed offset where there is one, whatever the reset', async (t) => {
    const topic = await t.topic()
    await t.produce(...series(topic, 0, 4))

    for (const autoOffsetReset of ['earliest', 'latest', 'none'] as const) {
      const group = newGroup()
      await t.broker.commit(group, [{ topic, partition: 0, offset: 2 }])
      const { records } = await t.poll({ group, topics: [topic], autoOffsetReset })
      expect(valuesOf(records), autoOffsetReset).toEqual(['v2', 'v3'])
    }
  })

  it('continues after what it returned, and never commits it', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 5))

    const first = await t.poll({ group, topics: [topic], maxRecords: 2 })
    const second = await t.poll({ group, topics: [topic], maxRecords: 2 })
    const third = await t.poll({ group, topics: [topic], maxRecords: 2 })
    const fourth = await t.pollNow({ group, topics: [topic] })

    expect([first, second, third, fourth].map(({ records }) => valuesOf(records))).toEqual([
      ['v0', 'v1'],
      ['v2', 'v3'],
      ['v4'],
      [],
    ])
    expect(await t.committed(group.groupId, topic)).toBe(-1)
  })

  it('gives what was not committed again to a member that left and joins', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 4))

    await t.poll({ group, topics: [topic] })
    await t.broker.commit(group, [{ topic, partition: 0, offset: 1 }])
    await t.broker.leave(group)
    const again = await t.poll({ group, topics: [topic] })

    expect(valuesOf(again.records)).toEqual(['v1', 'v2', 'v3'])
  })

  it('resumes at the committed offset after a restart', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 4))

    await t.poll({ group, topics: [topic], maxRecords: 3 })
    await t.broker.commit(group, 'polled')
    await t.reopen()
    const { records } = await t.poll({ group, topics: [topic] })

    expect(valuesOf(records)).toEqual(['v3'])
  })

  it('gives every group every record', async (t) => {
    const topic = await t.topic(2)
    await t.produce(...series(topic, 0, 2, 'a'), ...series(topic, 1, 2, 'b'))

    for (const group of [newGroup(), newGroup()]) {
      const { records } = await t.poll({ group, topics: [topic] })
      expect(sortedValuesOf(records)).toEqual(['a0', 'a1', 'b0', 'b1'])
    }
  })

  it('keeps each partition in order and its records with their coordinates', async (t) => {
    const topic = await t.topic(3)
    await t.produce(...[0, 1, 2].flatMap((partition) => series(topic, partition, 20, `p${partition}-`)))

    const { records } = await t.poll({ group: newGroup(), topics: [topic] })

    for (const partition of [0, 1, 2]) {
      const own = records.filter((read) => read.partition === partition)
      expect(own.map(({ offset }) => offset)).toEqual(Array.from({ length: 20 }, (_, n) => n))
      expect(valuesOf(own)).toEqual(Array.from({ length: 20 }, (_, n) => `p${partition}-${n}`))
    }
  })

  it('resolves as soon as one record is there, and empty after maxWaitMs', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const woken = t.poll({ group, topics: [topic], maxWaitMs: 4_321 })
    await t.untilWaiting(4_321)
    await t.produce(record(topic, 'woken', { partition: 1 }))
    expect(valuesOf((await woken).records)).toEqual(['woken'])

    const waiting = t.poll({ group, topics: [topic], maxWaitMs: 1_234 })
    await t.untilWaiting(1_234)
    await t.pass(1_000)
    const early = await peek(waiting)
    await t.pass(234)

    expect(early).toBeUndefined()
    expect((await waiting).records).toEqual([])
  })

  it('honours maxRecords and maxBytes, but returns the first record whatever its size', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const large = 'x'.repeat(1_000)
    await t.produce(record(topic, large), record(topic, large), ...series(topic, 0, 3))

    const sizes = []
    for (const limits of [{ maxBytes: 1 }, { maxBytes: 1_001 }, { maxRecords: 2 }, {}]) {
      sizes.push((await t.poll({ group, topics: [topic], ...limits })).records.length)
    }

    expect(sizes).toEqual([1, 1, 2, 1])
  })

  it('serves concurrent polls of one instance one after the other', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 10))

    const polls = await Promise.all(Array.from({ length: 5 }, () => t.poll({ group, topics: [topic], maxRecords: 2 })))

    expect(polls.flatMap(({ records }) => valuesOf(records)).sort()).toEqual(
      Array.from({ length: 10 }, (_, n) => `v${n}`),
    )
  })

  it('refuses a poll without topics, and of an unknown topic', async (t) => {
    const topic = await t.topic()

    await refusal(t.pollNow({ group: newGroup(), topics: [] }), 'INVALID_REQUEST')
    await refusal(t.pollNow({ group: newGroup(), topics: [topic, unusedName('topic')] }), 'UNKNOWN_TOPIC_OR_PARTITION')
  })

  it('refuses an empty group id with INVALID_GROUP_ID', async (t) => {
    const topic = await t.topic()

    await refusal(t.pollNow({ group: instanceOf(''), topics: [topic] }), 'INVALID_GROUP_ID')
    await refusal(t.broker.commit(instanceOf(''), [{ topic, partition: 0, offset: 0 }]), 'INVALID_GROUP_ID')
  })

  it('tells group and instance ids of any characters apart', async (t) => {
    const topic = await t.topic()
    const ids = ['a/b', 'a', 'b', 'a b', 'a+b', 'ü', 'a%2Fb', 'a?b=c#d', '__proto__', 'a;b,c', "quote'", '日本']
    const group = (n: number) => instanceOf(ids[n] ?? '', ids[ids.length - 1 - n] ?? '')

    for (const n of ids.keys()) await t.pollNow({ group: group(n), topics: [topic] })
    for (const n of ids.keys()) await t.broker.commit(group(n), [{ topic, partition: 0, offset: n }])
    await t.reopen()

    for (const [n, id] of ids.entries()) expect(await t.committed(id, topic), id).toBe(n)
    const described = await t.broker.groups()
    expect(described.map(({ groupId }) => groupId)).toEqual(ids.toSorted())
    for (const [n, id] of ids.entries()) {
      const members = described.find(({ groupId }) => groupId === id)?.members
      expect(members?.map(({ groupInstanceId }) => groupInstanceId)).toEqual([group(n).groupInstanceId])
    }
  })

  it('serves or refuses the ids that a URL would swallow, and never mixes them up', async (t) => {
    const topic = await t.topic()
    await t.produce(record(topic, 'v'))

    for (const id of ['.', '..']) {
      const outcome = await t.poll({ group: instanceOf(id, 'i'), topics: [topic] }).then(
        ({ records }) => valuesOf(records),
        (error: unknown) => refusal(Promise.reject(error), 'INVALID_GROUP_ID').then(({ code }) => code),
      )
      expect(['v', 'INVALID_GROUP_ID']).toContain(String(outcome))
    }
  })

  it('refuses a session timeout out of range with INVALID_SESSION_TIMEOUT', async (t) => {
    const topic = await t.topic()

    for (const sessionTimeoutMs of [999, 1_800_001, 0]) {
      await refusal(t.pollNow({ group: newGroup(), topics: [topic], sessionTimeoutMs }), 'INVALID_SESSION_TIMEOUT')
    }
  })

  it('describes groups with members or committed offsets, ordered', async (t) => {
    const topic = await t.topic(2)
    await t.pollNow({ group: instanceOf('b', 'two'), topics: [topic] })
    await t.pollNow({ group: instanceOf('b', 'one'), topics: [topic] })
    await t.pollNow({ group: instanceOf('b', 'two'), topics: [topic] })
    await t.broker.commit(instanceOf('a'), [{ topic, partition: 0, offset: 1 }])
    await t.pollNow({ group: instanceOf('gone'), topics: [topic] })
    await t.broker.leave(instanceOf('gone'))
    await t.reopen()

    const described = await t.broker.groups()

    expect(described.map(({ groupId }) => groupId)).toEqual(['a', 'b'])
    expect(described[0]?.members).toEqual([])
    const members = described[1]?.members ?? []
    expect(members.map(({ groupInstanceId, runId }) => [groupInstanceId, runId])).toEqual([
      ['one', null],
      ['two', null],
    ])
    expect(members.flatMap(({ assignment }) => assignment)).toHaveLength(2)
  })

  it('refuses to remove an instance that is not a member', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await refusal(t.broker.leave(group), 'UNKNOWN_MEMBER_ID')

    await t.pollNow({ group, topics: [topic] })
    await refusal(t.broker.leave(instanceOf(group.groupId, 'other')), 'UNKNOWN_MEMBER_ID')
    await t.reopen()
    await t.broker.leave(group)
    await refusal(t.broker.leave(group), 'UNKNOWN_MEMBER_ID')
  })

  it('keeps committed offsets when the last member leaves', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.pollNow({ group, topics: [topic] })
    await t.broker.commit(group, [{ topic, partition: 0, offset: 7 }])

    await t.broker.leave(group)
    await t.reopen()

    expect(await t.committed(group.groupId, topic)).toBe(7)
  })

  it('ends a poll that waits when its instance leaves', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const waiting = t.poll({ group, topics: [topic], maxWaitMs: 4_321 })
    await t.untilWaiting(4_321)

    await t.broker.leave(group)

    expect((await waiting).records).toEqual([])
  })

  it('never says that two instances hold a partition in one generation, when one leaves while its poll waits', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const other = instanceOf(group.groupId, 'other')
    const waiting = t.poll({ group, topics: [topic], maxWaitMs: 4_321 })
    await t.untilWaiting(4_321)
    const staying = t.poll({ group: other, topics: [topic], maxWaitMs: 1_234 })
    await t.untilWaiting(1_234)

    await t.broker.leave(group)
    const left = await waiting
    await t.produce(record(topic, 'a'))

    const stayed = await staying
    expect(stayed.assignment).toEqual(partitionsOf(topic, 1))
    if (left.generationId === stayed.generationId) expect(left.assignment).toEqual([])
  })

  it('commits what auto-commit owes from earlier answers, once the interval has passed', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const request = { group, topics: [topic], maxRecords: 2, enableAutoCommit: true, autoCommitIntervalMs: 1_000 }
    await t.produce(...series(topic, 0, 6))
    if (!t.features.autoCommit) {
      await refusal(t.poll(request), 'UNSUPPORTED')
      return
    }

    await t.poll(request)
    const early = await t.committed(group.groupId, topic)
    await t.pass(1_001)
    await t.poll(request)
    const due = await t.committed(group.groupId, topic)
    await t.reopen()

    expect(early).toBe(-1)
    expect(due).toBe(2)
    expect(await t.committed(group.groupId, topic)).toBe(2)
  })

  it('commits what auto-commit owes when the member leaves', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const request: PollRequest = {
      group,
      topics: [topic],
      enableAutoCommit: true,
      autoOffsetReset: 'earliest',
      maxWaitMs: 5_000,
      maxRecords: 3,
      maxBytes: 1_000,
    }
    await t.produce(...series(topic, 0, 5))
    if (!t.features.autoCommit) {
      await refusal(t.broker.poll(request), 'UNSUPPORTED')
      return
    }

    await t.broker.poll(request)
    await t.broker.leave(group)

    expect(await t.committed(group.groupId, topic)).toBe(3)
    expect(valuesOf((await t.broker.poll(request)).records)).toEqual(['v3', 'v4'])
  })

  it('commits by itself nothing of a partition that another member had since', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const other = instanceOf(group.groupId, 'other')
    const request = { group, topics: [topic], enableAutoCommit: true, autoCommitIntervalMs: 1_000 }
    await t.produce(...[0, 1].flatMap((partition) => series(topic, partition, 5)))
    if (!t.features.autoCommit) {
      await refusal(t.poll(request), 'UNSUPPORTED')
      return
    }

    let read = 0
    while (read < 10) read += (await t.poll(request)).records.length
    const { assignment } = await t.pollNow({ group: other, topics: [topic] })
    const moved = assignment[0]?.partition ?? -1
    await t.broker.commit(other, [{ topic, partition: moved, offset: 9 }])
    await t.broker.leave(other)
    await t.pass(1_001)
    await t.pollNow(request)

    expect(await t.committed(group.groupId, topic, moved)).toBe(9)
  })

  it('reads settings when the member joins, and not later', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 4))
    if (!t.features.autoCommit) {
      await refusal(t.pollNow({ group, topics: [topic], enableAutoCommit: true }), 'UNSUPPORTED')
      return
    }

    await t.poll({ group, topics: [topic], maxRecords: 2, enableAutoCommit: false })
    await t.pass(t.clock === undefined ? 100 : 60_000)
    await t.poll({ group, topics: [topic], maxRecords: 2, enableAutoCommit: true, autoCommitIntervalMs: 1 })
    await t.broker.leave(group)

    expect(await t.committed(group.groupId, topic)).toBe(-1)
  })
}
