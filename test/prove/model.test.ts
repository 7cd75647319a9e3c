/** The model bites: a log that is wrong in one thing is found by the command that has to do with it. */
import { describe, expect, test } from 'vitest'
import { type Command, Commit, Leave, Pass, Poll, Produce, type System } from '../../prove/model/commands.ts'
import { GroupModel, PARTITIONS, TOPIC } from '../../prove/model/group-model.ts'
import { WorldClock } from '../../prove/run-sim/process.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { FakeClock } from '../support/clock.ts'
import { withCalls } from '../support/consumer.ts'

async function play(commands: readonly Command[], tamper: (broker: Broker) => Partial<Broker>): Promise<void> {
  const time = new FakeClock()
  const clock = new WorldClock(time)
  await using broker = memoryBroker({ clock })
  await broker.createTopic({ topic: TOPIC, partitions: PARTITIONS, retentionMs: null })
  const system: System = { broker: withCalls(broker, tamper(broker)), time, clock, reopen: undefined, counts: {} }
  const model = new GroupModel()
  for (const command of commands) await command.run(model, system)
}

const poll = (runId = 'r0', isLost = false): Command => new Poll('a', runId, 10, isLost, true)
const course = [
  new Produce(0, 3),
  poll('r0', true),
  poll(),
  new Commit('a', 'r0', 1),
  new Poll('b', 'r1', 10, false, true),
  poll('r2'),
  new Pass(2_500),
  poll('r2'),
  new Commit('a', 'r0', 0),
  new Leave('b'),
  poll('r2'),
]

describe('the model', () => {
  test('agrees with the log', async () => {
    await expect(play(course, () => ({}))).resolves.toBeUndefined()
  })

  test('finds positions that a lost answer moved', async () => {
    const moved = play(course, (broker) => ({
      poll: ({ run, ...request }, call) => {
        const { runId = 'x' } = run ?? {}
        return broker.poll({ ...request, run: { runId } }, call)
      },
    }))

    await expect(moved).rejects.toThrow('records in an answer')
  })

  test('finds claims that are not held against another run', async () => {
    const unclaimed = play(course, (broker) => ({
      poll: async (request, call) => {
        await broker.release(request.group, 'r0')
        return await broker.poll(request, call)
      },
    }))

    await expect(unclaimed).rejects.toThrow('the answer')
  })

  test('finds commits of a run that has lost its claim', async () => {
    const accepting = play(course, (broker) => ({
      commit: (group, offsets, _options, call) =>
        broker.commit({ ...group, groupInstanceId: 'nobody' }, offsets, {}, call),
    }))

    await expect(accepting).rejects.toThrow('the answer')
  })

  test('finds commits that are stored as another offset', async () => {
    const lower = play(course, (broker) => ({
      commit: (group, offsets, options, call) =>
        broker.commit(
          group,
          offsets === 'polled' ? offsets : offsets.map((entry) => ({ ...entry, offset: entry.offset + 1 })),
          options,
          call,
        ),
    }))

    await expect(lower).rejects.toThrow('what is committed')
  })

  test('finds a member that is there for longer than its session', async () => {
    const staying = play([poll(), new Pass(4_000)], (broker) => ({
      poll: (request, call) => broker.poll({ ...request, sessionTimeoutMs: 8_000 }, call),
    }))

    await expect(staying).rejects.toThrow('the members are a')
  })
})
