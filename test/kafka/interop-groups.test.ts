/** Groups and committed offsets that are shared with Java's clients and tools, and with librdkafka (kcat). */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { instanceOf, unusedName } from '../conformance/broker/harness.ts'
import { series, valuesOf } from '../support/records.ts'
import { until } from '../support/until.ts'
import { bootstrapServers, type KafkaAdmin, kafkaAdmin } from './admin.ts'
import { runJava, startJava, startKcat } from './clients.ts'
import { type ForeignMember, SharedGroup } from './shared-group.ts'

const PLENTY = { maxWaitMs: 5_000, maxRecords: 100, maxBytes: 1_000_000 }
/** Members of other kinds learn of a rebalance by their heartbeat, and wait for no longer than this here. */
const QUICK = ['heartbeat.interval.ms=300', 'session.timeout.ms=6000']

let admin: KafkaAdmin
let broker: Broker
let other: Broker
let topic: string
let groupId: string

beforeEach(async () => {
  admin = await kafkaAdmin()
  await admin.wipe()
  broker = kafkaBroker({ bootstrapServers: bootstrapServers().split(',') })
  other = kafkaBroker({ bootstrapServers: bootstrapServers().split(',') })
  topic = unusedName('topic')
  groupId = unusedName('group')
})

afterEach(async () => {
  await Promise.all([broker.close(), other.close()])
  await admin[Symbol.asyncDispose]()
})

describe('committed offsets', () => {
  it('are shown by kafka-consumer-groups, with lag and who holds the partition', async () => {
    await broker.createTopic({ topic, partitions: 2 })
    await broker.produce([...series(topic, 0, 5), ...series(topic, 1, 3)])
    const group = instanceOf(groupId, 'instance-a')
    await poll(group.groupInstanceId)
    await broker.commit(group, [
      { topic, partition: 0, offset: 3 },
      { topic, partition: 1, offset: 3 },
    ])

    const rows = await describeGroup()
    const members = await describeGroup('--members')
    const state = await describeGroup('--state')

    expect(
      rows.map((row) => [row['TOPIC'], row['PARTITION'], row['CURRENT-OFFSET'], row['LOG-END-OFFSET'], row['LAG']]),
    ).toEqual([
      [topic, '0', '3', '5', '2'],
      [topic, '1', '3', '3', '0'],
    ])
    for (const row of rows) {
      expect(row['CONSUMER-ID']).toMatch(/^instance-a-/)
      expect(row['CLIENT-ID']).toMatch(/^kedge/)
    }
    expect(members).toMatchObject([{ '#PARTITIONS': '2' }])
    expect(state).toMatchObject([{ STATE: 'Stable', '#MEMBERS': '1' }])
  })

  it('are shown of a group without members, and can be reset there', async () => {
    await broker.createTopic({ topic })
    await broker.produce(series(topic, 0, 5))
    await broker.commit(instanceOf(groupId), [{ topic, partition: 0, offset: 5 }])

    const before = await describeGroup()
    await groupCommand('--group', groupId, '--topic', topic, '--reset-offsets', '--to-offset', '2', '--execute')
    const { records } = await poll('i')

    expect(before).toMatchObject([{ 'CURRENT-OFFSET': '5', LAG: '0', 'CONSUMER-ID': '-' }])
    expect(valuesOf(records)).toEqual(['v2', 'v3', 'v4'])
  })

  it('by Java are where Kedge goes on, and the other way round', async () => {
    await broker.createTopic({ topic })
    await broker.produce(series(topic, 0, 5, 'first'))
    const java = async (count: number): Promise<string[]> => {
      await using program = await startJava('Member.java', [bootstrapServers(), groupId, topic, ...QUICK])
      const records = (): string[] => program.printed().filter((line) => line.includes('"record"'))
      await until(() => records().length >= count, { what: `${count} records`, timeoutMs: 20_000 })
      await program.end()
      return records().map((line) => (JSON.parse(line) as { value: string }).value)
    }

    const first = await java(5)
    const committed = await broker.committed(groupId)
    await broker.produce(series(topic, 0, 2, 'second'))
    const { records } = await poll('i')
    await broker.commit(instanceOf(groupId), 'polled')
    await broker.leave(instanceOf(groupId))
    await broker.produce(series(topic, 0, 3, 'third'))
    const third = await java(3)

    expect(first).toEqual(['first0', 'first1', 'first2', 'first3', 'first4'])
    expect(committed).toMatchObject([{ topic, partition: 0, offset: 5 }])
    expect(valuesOf(records)).toEqual(['second0', 'second1'])
    expect(third).toEqual(['third0', 'third1', 'third2'])
  })
})

describe('a group that is shared', () => {
  const java: [string, string[]][] = [
    ['a Java consumer, as it comes', QUICK],
    [
      'a Java consumer that assigns stickily',
      [...QUICK, 'partition.assignment.strategy=org.apache.kafka.clients.consumer.StickyAssignor'],
    ],
    [
      'a Java consumer that assigns by range',
      [...QUICK, 'partition.assignment.strategy=org.apache.kafka.clients.consumer.RangeAssignor'],
    ],
  ]

  it.each(java)('with %s: every record is handled, and no partition held twice', async (_name, settings) => {
    await expectSharing((shared, name) => joinJava(shared, name, settings))
  })

  it('with a Java consumer, by runs that claim their instances', async () => {
    await expectSharing(
      (shared, name) => joinJava(shared, name, QUICK),
      (id) => `run-of-${id}`,
    )
  })

  it('with kcat: every record is handled, and no partition held twice', async () => {
    await expectSharing(async (shared, name) => {
      const settings = [...QUICK, 'auto.offset.reset=earliest', 'auto.commit.interval.ms=200'].flatMap((one) => [
        '-X',
        one,
      ])
      return shared.kcatMember(name, startKcat([...settings, '-u', '-f', '%p %o %s\n', '-G', groupId, topic]))
    })
  })

  it('with a Java consumer of the newer protocol (KIP-848): Kafka lets it into no group of instances, and they go on', async () => {
    await broker.createTopic({ topic, partitions: 6 })
    const shared = new SharedGroup([broker, other], groupId, topic)
    const worker = shared.startInstance('a')
    await untilShared(shared, 1)

    const refused = joinJava(shared, 'java', ['group.protocol=consumer']).then(({ program }) =>
      program.line('"assigned"'),
    )
    await expect(refused).rejects.toThrow(/custom assignor is in use/)
    await shared.write(20)
    await shared.untilHandled([], 'by Kedge')
    await worker.stop()

    expect(shared.repeats).toBe(0)
  })

  it('lets a Java consumer in as soon as one of the absent instances polls', async () => {
    await broker.createTopic({ topic, partitions: 6 })
    for (const id of ['a', 'b', 'c', 'a', 'b', 'c']) await poll(id, 0)

    await using program = await startJava('Member.java', [bootstrapServers(), groupId, topic, ...QUICK])
    const isAssigned = (): boolean => program.printed().some((line) => line.includes('"assigned"'))
    const began = performance.now()
    await until(
      async () => {
        await poll('a', 0)
        return isAssigned()
      },
      { what: 'the Java consumer to be given partitions', timeoutMs: 30_000 },
    )
    const members = await admin.members(groupId)
    await program.end()

    expect(members).toHaveLength(4)
    // Java starts for a second or two; a barrier that nobody cut short would add the rebalance timeout of all members.
    expect(performance.now() - began, 'milliseconds').toBeLessThan(10_000)
  })

  it('is given back when a Java consumer dies without a word', async () => {
    await broker.createTopic({ topic, partitions: 6 })
    const shared = new SharedGroup([broker, other], groupId, topic)
    await using program = await startJava('Member.java', [bootstrapServers(), groupId, topic, ...QUICK])
    const member = shared.javaMember('java', program)
    await program.line('"assigned"')
    const workers = ['a', 'b'].map((id) => shared.startInstance(id))
    await shared.write(60)
    await shared.untilHandled([member], 'with Java')

    await program.kill('SIGKILL')
    await shared.write(60)
    await shared.untilHandled([member], 'after its death')
    for (const worker of workers) await worker.stop()

    expect(shared.conflicts).toEqual([])
    expectInOrder(shared)
  })
})

/** Both sides come and go while records are written and worked off, by instances that are runs where they have a run id. */
async function expectSharing(
  join: (shared: SharedGroup, name: string) => Promise<ForeignMember>,
  runOf: (id: string) => string | undefined = () => undefined,
): Promise<void> {
  await broker.createTopic({ topic, partitions: 6 })
  const shared = new SharedGroup([broker, other], groupId, topic)
  const workers = ['a', 'b'].map((id) => shared.startInstance(id, runOf(id)))
  await shared.write(40)
  await shared.untilHandled([], 'by Kedge alone')

  await using foreign = await join(shared, 'foreign')
  await untilShared(shared, 3)
  await shared.write(60)
  await shared.untilHandled([foreign], 'by Kedge and the other')

  workers.push(shared.startInstance('c', runOf('c')))
  await untilShared(shared, 4)
  await shared.write(60)
  await shared.untilHandled([foreign], 'with one more of Kedge')

  await workers.shift()?.stop()
  await broker.leave(instanceOf(groupId, 'a'))
  await untilShared(shared, 3)
  await shared.write(60)
  await shared.untilHandled([foreign], 'with one less of Kedge')

  await foreign.leave()
  await untilShared(shared, 2)
  await shared.write(60)
  await shared.untilHandled([foreign], 'by Kedge alone again')
  for (const worker of workers) await worker.stop()

  expect(shared.conflicts).toEqual([])
  expect(shared.handled.filter(({ by }) => by === 'foreign').length).toBeGreaterThan(0)
  expectInOrder(shared)
  // Only what was on its way when somebody came or went comes twice.
  expect(shared.repeats).toBeLessThan(100)
}

/** The first time that each record was handled, it was the turn of its offset. */
function expectInOrder(shared: SharedGroup): void {
  for (const [partition, offsets] of shared.firstHandled()) {
    expect(offsets, `partition ${partition}`).toEqual(offsets.toSorted((a, b) => a - b))
  }
}

/** Until the group has so many members, of any kind, which hold all six partitions, each once. */
async function untilShared(shared: SharedGroup, members: number): Promise<void> {
  const all = JSON.stringify([0, 1, 2, 3, 4, 5])
  await until(
    async () => {
      shared.check()
      const described = await admin.members(groupId)
      const held = described.flatMap(({ assignment }) => assignment.map(({ partition }) => partition))
      return described.length === members && JSON.stringify(held.sort((a, b) => a - b)) === all
    },
    { what: `${members} members to hold every partition once`, timeoutMs: 30_000 },
  )
}

async function joinJava(shared: SharedGroup, name: string, settings: readonly string[]): Promise<ForeignMember> {
  return shared.javaMember(name, await startJava('Member.java', [bootstrapServers(), groupId, topic, ...settings]))
}

async function poll(groupInstanceId: string, maxWaitMs = PLENTY.maxWaitMs): ReturnType<Broker['poll']> {
  const request = { group: instanceOf(groupId, groupInstanceId), topics: [topic], autoOffsetReset: 'earliest' as const }
  return await broker.poll({ ...request, ...PLENTY, maxWaitMs })
}

/** The table that kafka-consumer-groups prints of the group, by its headings. */
async function describeGroup(...what: readonly string[]): Promise<Record<string, string>[]> {
  const output = await groupCommand('--describe', '--group', groupId, ...what)
  const [heading = [], ...rows] = output
    .split('\n')
    .filter((line) => /^GROUP|^\S*group-/.test(line))
    .map((line) => line.trim().split(/\s+/))
  return rows.map((row) => Object.fromEntries(heading.map((name, n) => [name, row[n] ?? ''])))
}

async function groupCommand(...args: readonly string[]): Promise<string> {
  const command = 'org.apache.kafka.tools.consumer.group.ConsumerGroupCommand'
  return (await runJava(command, ['--bootstrap-server', bootstrapServers(), ...args])).toString()
}
