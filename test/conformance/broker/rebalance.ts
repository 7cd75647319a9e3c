/** Who holds what: joining, leaving, expiring, changing a subscription, and generations. */
import { expect } from 'vitest'
import type { GroupInstance, PollResult } from '../../../src/broker.ts'
import type { TopicPartition } from '../../../src/record.ts'
import { record, series, sortedValuesOf } from '../../support/records.ts'
import type { AddCase, BrokerCase } from './harness.ts'
import { instanceOf, newGroup, newRun, partitionsOf, unusedName } from './harness.ts'

export function rebalance(it: AddCase): void {
  it('never gives one partition to two members of a generation', async (t) => {
    const topic = await t.topic(5)
    const members = membersOf(3)

    const held = await settled(t, members, topic)

    expect(new Set(held.map(({ generationId }) => generationId)).size).toBe(1)
    expect(spread(held)).toEqual(partitionsOf(topic, 5))
    expect(held.map(({ assignment }) => assignment.length).sort((a, b) => a - b)).toEqual([1, 2, 2])
  })

  it('gives members beyond the number of partitions nothing, and empty answers', async (t) => {
    const topic = await t.topic(2)
    await t.produce(record(topic, 'a', { partition: 0 }), record(topic, 'b', { partition: 1 }))
    const members = membersOf(4)

    const held = await settled(t, members, topic)

    expect(spread(held)).toEqual(partitionsOf(topic, 2))
    for (const { assignment, records } of held.filter(({ assignment }) => assignment.length === 0)) {
      expect({ assignment, records }).toEqual({ assignment: [], records: [] })
    }
  })

  it('says the same of the assignment in polls and in the description', async (t) => {
    const topic = await t.topic(5)
    const members = membersOf(2)
    const held = await settled(t, members, topic)

    const [described] = await t.broker.groups()

    expect(described?.members.map(({ assignment }) => assignment)).toEqual(held.map(({ assignment }) => assignment))
    expect(described?.generationId).toBe(held[0]?.generationId)
  })

  it('orders an assignment by topic and partition', async (t) => {
    const topics = [await t.topic(2), await t.topic(12)]
    const { assignment } = await t.pollNow({ group: newGroup(), topics: topics.toSorted().toReversed() })

    const expected = topics.flatMap((topic, n) => partitionsOf(topic, [2, 12][n] ?? 0))
    expect(assignment).toEqual(expected.toSorted(byTopicAndPartition))
  })

  it('leaves partitions where they are as far as balance allows', async (t) => {
    const topic = await t.topic(6)
    const [a, b, c] = membersOf(3) as [GroupInstance, GroupInstance, GroupInstance]
    const two = await settled(t, [a, b], topic)

    const three = await settled(t, [a, b, c], topic)
    await t.broker.leave(c)
    const twoAgain = await settled(t, [a, b], topic)

    for (const [n, { assignment }] of three.slice(0, 2).entries()) {
      expect(assignment).toHaveLength(2)
      for (const kept of assignment) expect(two[n]?.assignment).toContainEqual(kept)
      for (const kept of assignment) expect(twoAgain[n]?.assignment).toContainEqual(kept)
    }
    expect(spread(twoAgain)).toEqual(partitionsOf(topic, 6))
  })

  it('gives the partitions of a member that leaves to the others at once', async (t) => {
    const topic = await t.topic(4)
    const [a, b] = membersOf(2) as [GroupInstance, GroupInstance]
    await settled(t, [a, b], topic)
    await t.produce(...[0, 1, 2, 3].map((partition) => record(topic, `p${partition}`, { partition })))

    await t.broker.leave(b)
    const values: string[] = []
    while (values.length < 4) values.push(...sortedValuesOf((await t.poll({ group: a, topics: [topic] })).records))

    expect(values.sort()).toEqual(['p0', 'p1', 'p2', 'p3'])
  })

  it('removes a member that has not called for its session timeout', async (t) => {
    const topic = await t.topic(4)
    const [a, b] = membersOf(2) as [GroupInstance, GroupInstance]
    await t.pollNow({ group: a, topics: [topic], sessionTimeoutMs: 1_000 })
    await t.pollNow({ group: b, topics: [topic], sessionTimeoutMs: 1_000 })
    await t.pollNow({ group: a, topics: [topic] })

    await t.pass(600)
    await t.pollNow({ group: a, topics: [topic] })
    const before = await t.broker.groups()
    await t.pass(600)
    const alone = await t.pollNow({ group: a, topics: [topic] })
    const [described] = await t.broker.groups()

    expect(before[0]?.members).toHaveLength(2)
    expect(alone.assignment).toEqual(partitionsOf(topic, 4))
    expect(described?.members.map(({ groupInstanceId }) => groupInstanceId)).toEqual([a.groupInstanceId])
  })

  it('counts commits, and claims of its run, as calls of a member', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const entry = [{ topic, partition: 0, offset: 0 }]
    await t.pollNow({ group, topics: [topic], sessionTimeoutMs: 1_000 })

    await t.pass(700)
    await t.broker.commit(group, entry)
    await t.pass(700)
    if (t.features.claims) await t.broker.claim(group, newRun())
    else await t.broker.commit(group, entry)
    await t.pass(700)

    const [described] = await t.broker.groups()
    expect(described?.members.map(({ groupInstanceId }) => groupInstanceId)).toEqual([group.groupInstanceId])
  })

  it('keeps a member for 120 seconds by default', async (t) => {
    // Too long to wait for where the clock is not the test's.
    if (t.clock === undefined) return
    const topic = await t.topic()
    const group = newGroup()
    await t.pollNow({ group, topics: [topic] })
    const members = async (): Promise<number> => (await t.broker.groups())[0]?.members.length ?? 0

    await t.pass(119_000)
    const within = await members()
    await t.pass(2_000)

    expect(within).toBe(1)
    expect(await members()).toBe(0)
  })

  it('keeps a member that waits in a poll, however long', async (t) => {
    const topic = await t.topic(1)
    const group = newGroup()
    const waiting = t.poll({ group, topics: [topic], sessionTimeoutMs: 1_000, maxWaitMs: 3_456 })
    await t.untilWaiting(3_456)

    await t.pass(3_000)
    await t.produce(record(topic, 'late'))

    expect(sortedValuesOf((await waiting).records)).toEqual(['late'])
  })

  it('rebalances when a member asks for other topics, and keeps committed offsets', async (t) => {
    const one = await t.topic(1)
    const two = await t.topic(1)
    const group = newGroup()
    await t.produce(...series(one, 0, 3, 'one'), ...series(two, 0, 1, 'two'))

    const first = await t.poll({ group, topics: [one], maxRecords: 2 })
    await t.broker.commit(group, 'polled')
    const second = await t.poll({ group, topics: [two] })
    const third = await t.poll({ group, topics: [one] })

    expect(first.assignment).toEqual(partitionsOf(one, 1))
    expect(second.assignment).toEqual(partitionsOf(two, 1))
    expect(second.generationId).toBeGreaterThan(first.generationId)
    expect(sortedValuesOf(second.records)).toEqual(['two0'])
    expect(sortedValuesOf(third.records)).toEqual(['one2'])
  })

  it('does not rebalance for the same topics in another order', async (t) => {
    const topics = [await t.topic(2), await t.topic(2)]
    const group = newGroup()

    const first = await t.pollNow({ group, topics })
    const second = await t.pollNow({ group, topics: topics.toReversed() })

    expect(second.generationId).toBe(first.generationId)
  })

  it('serves members with different subscriptions', async (t) => {
    const one = await t.topic(3)
    const two = await t.topic(3)
    const [a, b] = membersOf(2) as [GroupInstance, GroupInstance]
    await t.pollNow({ group: a, topics: [one] })
    await t.pollNow({ group: b, topics: [one, two] })

    const heldByA = (await t.pollNow({ group: a, topics: [one] })).assignment
    const heldByB = (await t.pollNow({ group: b, topics: [one, two] })).assignment

    expect(heldByA.every(({ topic }) => topic === one)).toBe(true)
    expect([...heldByA, ...heldByB].toSorted(byTopicAndPartition)).toEqual(
      [...partitionsOf(one, 3), ...partitionsOf(two, 3)].toSorted(byTopicAndPartition),
    )
  })

  it('never lets the generation fall, restarts included', async (t) => {
    const topic = await t.topic(2)
    const groupId = unusedName('group')
    const generations: number[] = []
    const note = ({ generationId }: PollResult): number => generations.push(generationId)

    note(await t.pollNow({ group: instanceOf(groupId, 'a'), topics: [topic] }))
    note(await t.pollNow({ group: instanceOf(groupId, 'b'), topics: [topic] }))
    await t.reopen()
    note(await t.pollNow({ group: instanceOf(groupId, 'a'), topics: [topic] }))
    await t.broker.leave(instanceOf(groupId, 'b'))
    await t.reopen()
    note(await t.pollNow({ group: instanceOf(groupId, 'a'), topics: [topic] }))
    await t.broker.leave(instanceOf(groupId, 'a'))
    await t.reopen()
    note(await t.pollNow({ group: instanceOf(groupId, 'a'), topics: [topic] }))

    expect(generations).toEqual(generations.toSorted((a, b) => a - b))
    expect(generations[1]).toBeGreaterThan(generations[0] ?? 0)
    expect(generations[3]).toBeGreaterThan(generations[2] ?? 0)
    expect(generations[4]).toBeGreaterThan(generations[3] ?? 0)
  })

  it('wakes a member that waits when it is given a partition with records', async (t) => {
    const topic = await t.topic(2)
    const [a, b] = membersOf(2) as [GroupInstance, GroupInstance]
    const held = await settled(t, [a, b], topic)
    const ofB = held[1]?.assignment[0]?.partition ?? 0
    const waiting = t.poll({ group: a, topics: [topic], maxWaitMs: 4_321 })
    await t.untilWaiting(4_321)

    await t.produce(record(topic, 'for b', { partition: ofB }))
    await t.broker.leave(b)

    expect(sortedValuesOf((await waiting).records)).toEqual(['for b'])
  })
}

/** Instances of one new group, ordered by id. */
function membersOf(count: number): GroupInstance[] {
  const groupId = unusedName('group')
  return Array.from({ length: count }, (_, n) => instanceOf(groupId, `i${n}`))
}

/** Lets all members poll until they agree on a generation, and gives what each holds in it. */
async function settled(t: BrokerCase, members: readonly GroupInstance[], topic: string): Promise<PollResult[]> {
  for (const group of members) await t.pollNow({ group, topics: [topic] })
  const results: PollResult[] = []
  for (const group of members) results.push(await t.pollNow({ group, topics: [topic] }))
  return results
}

/** Everything that is held, in order: equal to a topic's partitions when each is held once. */
function spread(held: readonly PollResult[]): TopicPartition[] {
  return held.flatMap(({ assignment }) => assignment).toSorted(byTopicAndPartition)
}

function byTopicAndPartition(a: TopicPartition, b: TopicPartition): number {
  if (a.topic !== b.topic) return a.topic < b.topic ? -1 : 1
  return a.partition - b.partition
}
