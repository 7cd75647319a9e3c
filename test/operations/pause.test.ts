import { describe, expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import { BrokerError } from '../../src/errors.ts'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'
import { TOPIC, withCalls } from '../support/consumer.ts'
import { moving, OPERATIONS_TOPIC, openOperationsBench, systems } from './bench.ts'

const actor = 'ann'
const OTHER = 'u'

describe.each(systems)('pause ($name)', (system) => {
  test('of a group: a run handles nothing, commits nothing and says why, until it is resumed', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a'])
    await bench.drain()
    await bench.produce(['b'])
    await bench.done(bench.operations().pause({ actor, reason: 'the warehouse moves' }))

    const paused = await bench.drain()
    const committed = await bench.committed()
    await bench.done(bench.operations().resume({ actor }))
    const resumed = await bench.drain()

    expect(paused).toMatchObject({ ended: 'paused', polled: 0, calls: 2, retryAfterMs: 15_000 })
    expect(committed).toEqual([1])
    expect(resumed).toMatchObject({ ended: 'drained', handled: 1 })
    expect(bench.handled).toEqual(['a', 'b'])
  })

  test('is heeded, and kept by the next verb, where fetches come back empty while a leader moves', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a'])
    await bench.done(bench.operations().pause({ actor, topic: TOPIC }))
    const broker = moving(bench.broker)
    const skip = { actor, reason: 'nobody can read it', topic: TOPIC, partition: 0, offset: 0 }

    const run = await bench.done(bench.start({ stopWhenEmpty: true }, { broker }))
    await bench.done(bench.operations({ broker: moving(bench.broker) }).skip(skip))
    const status = await bench.done(bench.operations().status())

    expect(run).toMatchObject({ ended: 'paused', polled: 0 })
    expect(status.paused.topics).toEqual([TOPIC])
  })

  test('of a group ends a run that is on within 15 seconds, in good order', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a'])
    const run = bench.start({ budget: { runMs: 60_000 } })
    await bench.clock.advance(1_000)
    await bench.operations().pause({ actor })
    await bench.clock.advance(14_000)
    await bench.produce(['b'])

    const report = await bench.done(run)

    expect(report).toMatchObject({ ended: 'paused', handled: 1, unfinished: 0 })
    expect(report.durationMs).toBeLessThan(16_000)
    expect(await bench.committed()).toEqual([1])
  })

  test('of a topic: its records wait, and those of others are handled', async () => {
    const handled: string[] = []
    const router = createRouter()
      .on({ topic: TOPIC }, () => void handled.push(TOPIC))
      .on({ topic: OTHER }, () => void handled.push(OTHER))
    const bench = await openOperationsBench({ ...system, app: { router, redrive: true } })
    await bench.broker.createTopic({ topic: OTHER })
    await bench.drain()
    await bench.produce(['a'])
    await bench.broker.produce([
      { topic: OTHER, key: null, value: bytesOf('b') },
      { topic: `${TOPIC}.g-redrive`, key: null, value: bytesOf('c') },
    ])
    await bench.done(bench.operations().pause({ actor, topic: TOPIC }))

    const paused = await bench.drain()
    const whilePaused = [...handled]
    await bench.done(bench.operations().resume({ actor, topic: TOPIC }))
    await bench.drain()

    expect(paused).toMatchObject({ ended: 'drained', polled: 1 })
    expect(whilePaused).toEqual([OTHER])
    expect(handled).toEqual([OTHER, TOPIC])
    expect(await bench.committed()).toEqual([1])
  })

  test('of every topic is a pause of the group, and one of the group outlives the resume of a topic', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a'])
    await bench.done(bench.operations().pause({ actor, topic: TOPIC }))
    const every = await bench.drain()
    await bench.done(bench.operations().pause({ actor }))

    const paused = await bench.done(bench.operations().resume({ actor, topic: TOPIC }))

    expect(every.ended).toBe('paused')
    expect(paused).toEqual({ group: true, topics: [], keys: [] })
    expect((await bench.drain()).ended).toBe('paused')
  })

  test('and resume of a topic reach a run that is on, and the next one goes by them', async () => {
    const handled: string[] = []
    const router = createRouter()
      .on({ topic: TOPIC }, () => void handled.push(TOPIC))
      .on({ topic: OTHER }, () => void handled.push(OTHER))
    const bench = await openOperationsBench({ ...system, app: { router } })
    await bench.broker.createTopic({ topic: OTHER })
    await bench.operations().pause({ actor, topic: TOPIC })
    await bench.produce(['a'])
    const run = bench.start({ budget: { runMs: 60_000 } })
    await bench.clock.advance(1_000)
    await bench.operations().resume({ actor, topic: TOPIC })

    const report = await bench.done(run)
    await bench.drain()

    expect(report).toMatchObject({ ended: 'paused', polled: 0, retryAfterMs: 0 })
    expect(handled).toEqual([TOPIC])
  })

  test('is kept over a seek, and a seek does not end a run', async () => {
    const bench = await openOperationsBench({ ...system })
    await bench.broker.createTopic({ topic: OTHER })
    await bench.produce(['a'])
    await bench.drain()
    await bench.done(bench.operations().seek({ actor, topic: TOPIC, to: 'earliest' }))
    const run = bench.start({ budget: { runMs: 60_000 } })
    await bench.clock.advance(1_000)
    await bench.refusal(bench.operations().seek({ actor, topic: TOPIC, to: 'earliest' }))
    const report = await bench.done(run)
    await bench.done(bench.operations().pause({ actor }))
    await bench.done(bench.operations().seek({ actor, topic: TOPIC, to: 'earliest' }))

    expect(report.ended).toBe('deadline')
    expect((await bench.done(bench.operations().status())).paused.group).toBe(true)
  })

  test('is in its status, with where the group stands and how far it is behind', async () => {
    const bench = await openOperationsBench({ ...system, partitions: 2 })
    await bench.produce(['a', 'b'])
    await bench.drain()
    await bench.produce(['c'])
    await bench.done(bench.operations().pause({ actor, topic: TOPIC }))

    const status = await bench.done(bench.operations().status())

    const bounds = { topic: TOPIC, logStartOffset: 0 }
    expect(status).toMatchObject({
      groupId: 'g',
      isHeeded: true,
      paused: { group: false, topics: [TOPIC] },
      members: [{ groupInstanceId: 'i', runId: null }],
      partitions: [
        { ...bounds, partition: 0, committedOffset: 2, logEndOffset: 3, lag: 1 },
        { ...bounds, partition: 1, committedOffset: -1, logEndOffset: 0, lag: null },
      ],
    })
  })

  test('is passed over by records of somebody else in the operations topic, and refused where there are too many', async () => {
    const bench = await openOperationsBench(system)
    const strange = { topic: OPERATIONS_TOPIC, key: null, value: bytesOf('{"kedge":"no"}') }
    await bench.done(bench.operations().pause({ actor }))
    await bench.broker.produce([strange])
    const few = await bench.drain()
    await bench.broker.produce(Array.from({ length: 20 }, () => strange))

    const many = await bench.drain()

    expect(few.ended).toBe('paused')
    expect(many).toMatchObject({ ended: 'broker-error', polled: 0, cause: { code: 'INVALID_RECORD' } })
  })
})

test('a run that cannot read what is paused reads nothing else', async () => {
  const bench = await openOperationsBench({
    wrap: (broker) =>
      withCalls(broker, {
        offsets: async () => await Promise.reject(new BrokerError('NETWORK', 'The broker is away.')),
      }),
  })
  await bench.produce(['a'])

  const report = await bench.drain({ budget: { runMs: 20_000 } })

  expect(report).toMatchObject({ ended: 'deadline', polled: 0, cause: { code: 'NETWORK' } })
  expect(bench.handled).toEqual([])
})

test('a run that lost the broker while it asked again goes on', async () => {
  const state = { isAway: false, asked: 0 }
  const bench = await openOperationsBench({
    wrap: (broker) =>
      withCalls(broker, {
        fetch: async (...args) => {
          if (!state.isAway) return await broker.fetch(...args)
          state.asked += 1
          throw new BrokerError('NETWORK', 'The broker is away.')
        },
      }),
  })
  const run = bench.start({ budget: { runMs: 60_000 } })
  await bench.clock.advance(1_000)
  state.isAway = true
  await bench.clock.advance(20_000)
  await bench.produce(['a'])

  const report = await bench.done(run)

  expect(state.asked).toBe(3)
  expect(report).toMatchObject({ ended: 'deadline', handled: 1 })
})

test('a pause is refused where nothing would heed it', async () => {
  const bench = await openOperationsBench({ app: { operations: false } })
  await bench.produce(['a'])
  await bench.drain()
  const stranger = await openOperationsBench({ app: { topics: [defineTopic('u', 'text')] } })

  const deaf = await bench.refusal(bench.operations().pause({ actor }))
  const back = await openOperationsBench({ app: { redrive: true } })
  const returning = await back.refusal(back.operations().pause({ actor, topic: `${TOPIC}.g-redrive` }))
  const theirs = await stranger.refusal(stranger.operations().pause({ actor, topic: 'v' }))

  expect(deaf).toMatchObject({ code: 'INVALID_REQUEST' })
  expect(deaf.message).toContain('Set operations: true in defineApp')
  expect(returning.message).toContain(`it waits with ${TOPIC}`)
  expect(theirs).toMatchObject({ code: 'INVALID_REQUEST' })
})

test('a pause without the app needs a group whose runs ask, and finds it by its topic', async () => {
  const bench = await openOperationsBench()
  const tool = bench.tool()
  const early = await bench.refusal(tool.pause({ actor }))
  await bench.produce(['a'])
  await bench.drain()

  await bench.done(tool.pause({ actor }))
  const unknown = await bench.refusal(tool.pause({ actor, topic: 'v' }))

  expect(early).toMatchObject({ code: 'INVALID_REQUEST' })
  expect(unknown).toMatchObject({ code: 'UNKNOWN_TOPIC_OR_PARTITION' })
  expect((await bench.drain()).ended).toBe('paused')
})

test('an app asks only where a topic can be called after its group, and it is none of its own', () => {
  const router = createRouter().on({ topic: TOPIC }, () => undefined)
  const define = (options: object): unknown => defineApp({ groupId: 'g', router, operations: true, ...options })

  expect(() => define({ groupId: 'a group' })).toThrow('operations: no topic can be called after the group')
  expect(() => define({ topics: [defineTopic(OPERATIONS_TOPIC, 'text')] })).toThrow(
    `${OPERATIONS_TOPIC} is a topic of the app`,
  )
})
