import { describe, expect, test } from 'vitest'
import { Lanes } from '../../../src/consumer/lanes.ts'
import type { Asked } from '../../../src/consumer/lanes.ts'
import type { PollResult } from '../../../src/broker.ts'
import { bytesOf } from '../../../src/record.ts'

function answer(generationId: number, partitions: Record<number, readonly number[]>): PollResult {
  const held = Object.keys(partitions).map(Number)
  return {
    generationId,
    assignment: held.map((partition) => ({ topic: 't', partition })),
    records: held.flatMap((partition) =>
      (partitions[partition] ?? []).map((offset) => ({
        topic: 't',
        partition,
        offset,
        timestampMs: 0,
        key: null,
        value: bytesOf('12345'),
        headers: [],
      })),
    ),
  }
}

/** The offsets that wait, by partition. */
function waiting(lanes: Lanes): Record<number, number[]> {
  return Object.fromEntries(lanes.open.map((lane) => [lane.partition, lane.waiting.map(({ offset }) => offset)]))
}

function positions({ positions }: Asked): [number, number][] {
  return positions.map(({ partition, offset }) => [partition, offset])
}

describe('lanes', () => {
  test('ask for what comes after everything that was received and is not committed', () => {
    const lanes = new Lanes()
    const first = lanes.ask()
    lanes.take(answer(3, { 0: [5, 6], 1: [0] }), first)
    const [lane] = lanes.open
    lane?.pass()
    lane?.pass()
    if (lane !== undefined) lane.committedTo = 7

    expect(first).toMatchObject({ generationId: undefined, positions: [] })
    expect(lanes.ask().generationId).toBe(3)
    expect(positions(lanes.ask())).toEqual([[1, 1]])
    expect([lanes.waiting, lanes.waitingBytes]).toEqual([3, 15])
  })

  test('queue what follows, gaps included', () => {
    const lanes = new Lanes()
    lanes.take(answer(1, { 0: [0, 1] }), lanes.ask())
    lanes.take(answer(1, { 0: [2, 9] }), lanes.ask())

    expect(waiting(lanes)).toEqual({ 0: [0, 1, 2, 9] })
    expect(positions(lanes.ask())).toEqual([[0, 10]])
  })

  test('drop what waits in partitions that moved away', () => {
    const lanes = new Lanes()
    lanes.take(answer(1, { 0: [0, 1], 1: [0, 1] }), lanes.ask())
    lanes.take(answer(2, { 1: [2] }), lanes.ask())

    expect(waiting(lanes)).toEqual({ 1: [0, 1, 2] })
    expect([lanes.waiting, lanes.waitingBytes]).toEqual([3, 15])
    expect(lanes.all).toHaveLength(2)
  })

  test('begin anew where an answer starts before what was asked for', () => {
    const lanes = new Lanes()
    lanes.take(answer(1, { 0: [4, 5] }), lanes.ask())
    lanes.take(answer(3, { 0: [2, 3] }), lanes.ask())

    expect(waiting(lanes)).toEqual({ 0: [2, 3] })
    expect(lanes.open[0]).toMatchObject({ generationId: 3, next: 2, polledTo: 4 })
    expect(lanes.waiting).toBe(2)
  })

  test('drop the answer to a lane that ended while its poll was out', () => {
    const lanes = new Lanes()
    lanes.take(answer(1, { 0: [0, 1] }), lanes.ask())
    const asked = lanes.ask()
    const [lane] = lanes.open
    if (lane !== undefined) lanes.remove(lane, new Error('refused'))
    lanes.take(answer(1, { 0: [2, 3] }), asked)

    expect(waiting(lanes)).toEqual({})
    expect(positions(lanes.ask())).toEqual([])
    expect([lanes.waiting, lanes.waitingBytes]).toEqual([0, 0])
  })

  test('read on past a stopped lane without queueing it', () => {
    const lanes = new Lanes()
    lanes.take(answer(1, { 0: [0, 1], 1: [0] }), lanes.ask())
    const [lane] = lanes.open
    if (lane !== undefined) {
      lane.stopCause = { name: 'E', message: 'm' }
      lanes.clear(lane)
    }
    lanes.take(answer(1, { 0: [2], 1: [] }), lanes.ask())

    expect(waiting(lanes)).toEqual({ 1: [0] })
    expect(lanes.areAllStopped).toBe(false)
    expect(positions(lanes.ask())).toEqual([
      [0, 3],
      [1, 1],
    ])
  })
})
