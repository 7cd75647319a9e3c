/** Under a run, reading is a function of the request: the run names where it wants to go on. */
import { expect } from 'vitest'
import { series, sortedValuesOf, valuesOf } from '../../support/records.ts'
import type { AddCase } from './harness.ts'
import { instanceOf, newGroup, newRun, partitionsOf, refusal } from './harness.ts'

export function positions(add: AddCase): void {
  /** Adds a case for brokers with claims; those without refuse every run, which `claims` asserts. */
  const it: AddCase = (title, run) =>
    add(title, async (t) => {
      if (t.features.claims) await run(t)
      else await refusal(t.broker.claim(newGroup(), newRun()), 'UNSUPPORTED')
    })

  it('gives the same records to the same positions, asked twice', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = newRun()
    await t.produce(...series(topic, 0, 6))

    const first = await t.poll({ group, topics: [topic], run, maxRecords: 2 })
    const at = { ...run, generationId: first.generationId, positions: [{ topic, partition: 0, offset: 2 }] }
    const lost = await t.poll({ group, topics: [topic], run: at, maxRecords: 2 })
    const again = await t.poll({ group, topics: [topic], run: at, maxRecords: 2 })
    await t.reopen()
    const afterRestart = await t.poll({ group, topics: [topic], run: at, maxRecords: 2 })

    expect(valuesOf(lost.records)).toEqual(['v2', 'v3'])
    expect(again.records).toEqual(lost.records)
    expect(afterRestart.records).toEqual(lost.records)
  })

  it('gives the first poll again when its answer was lost', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = newRun()
    await t.produce(...series(topic, 0, 3))

    const lost = await t.poll({ group, topics: [topic], run: { ...run, positions: [] } })
    const again = await t.poll({ group, topics: [topic], run: { ...run, positions: [] } })

    expect(again).toEqual(lost)
    expect(valuesOf(again.records)).toEqual(['v0', 'v1', 'v2'])
  })

  it('starts partitions without a position at their committed offset', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const run = newRun()
    await t.produce(...series(topic, 0, 4, 'a'), ...series(topic, 1, 4, 'b'))
    const { generationId } = await t.poll({ group, topics: [topic], run })
    await t.broker.commit(group, [{ topic, partition: 0, offset: 3 }], { runId: run.runId })

    const named = { ...run, generationId, positions: [{ topic, partition: 1, offset: 2 }] }
    const { records } = await t.poll({ group, topics: [topic], run: named })

    expect(sortedValuesOf(records)).toEqual(['a3', 'b2', 'b3'])
  })

  it('continues where its last answer ended when no positions are named', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = newRun()
    await t.produce(...series(topic, 0, 4))

    await t.poll({ group, topics: [topic], run, maxRecords: 3 })
    const next = await t.poll({ group, topics: [topic], run })

    expect(valuesOf(next.records)).toEqual(['v3'])
  })

  it('starts every run where the first one found the log end, when the reset is latest', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 2, 'old'))
    const first = newRun()
    const empty = await t.poll({ group, topics: [topic], run: first, autoOffsetReset: 'latest', maxWaitMs: 0 })
    await t.broker.release(group, first.runId)

    await t.produce(...series(topic, 0, 2, 'new'))
    await t.reopen()
    const next = await t.poll({ group, topics: [topic], run: newRun(), autoOffsetReset: 'latest' })

    expect(empty.records).toEqual([])
    expect(valuesOf(next.records)).toEqual(['new0', 'new1'])
  })

  it('waits for records after the position', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = newRun()
    await t.produce(...series(topic, 0, 2))
    const { generationId } = await t.poll({ group, topics: [topic], run })
    const at = { ...run, generationId, positions: [{ topic, partition: 0, offset: 2 }] }

    const waiting = t.poll({ group, topics: [topic], run: at, maxWaitMs: 4_321 })
    await t.untilWaiting(4_321)
    await t.produce(...series(topic, 0, 1, 'new'))

    expect(valuesOf((await waiting).records)).toEqual(['new0'])
  })

  it('ignores positions of partitions that the member lost since the generation', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const other = instanceOf(group.groupId, 'other')
    const run = newRun()
    await t.produce(...series(topic, 0, 3, 'a'), ...series(topic, 1, 3, 'b'))
    const { generationId } = await t.poll({ group, topics: [topic], run })

    const { assignment: moved } = await t.pollNow({ group: other, topics: [topic], run: newRun() })
    const at = {
      ...run,
      generationId,
      positions: partitionsOf(topic, 2).map((partition) => ({ ...partition, offset: 3 })),
    }
    const shared = await t.pollNow({ group, topics: [topic], run: at })

    expect(moved).toHaveLength(1)
    expect(shared.assignment).toHaveLength(1)
    expect(shared.records).toEqual([])
  })

  it('starts a partition that came back at its committed offset, whatever the old position', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const other = instanceOf(group.groupId, 'other')
    const run = newRun()
    await t.produce(...series(topic, 0, 3, 'p0-'), ...series(topic, 1, 3, 'p1-'))
    const { generationId } = await t.poll({ group, topics: [topic], run })
    const { assignment } = await t.pollNow({ group: other, topics: [topic], run: newRun() })
    const moved = assignment[0]?.partition ?? -1

    await t.broker.leave(other)
    const at = {
      ...run,
      generationId,
      positions: partitionsOf(topic, 2).map((partition) => ({ ...partition, offset: 3 })),
    }
    const { records } = await t.poll({ group, topics: [topic], run: at })

    expect(valuesOf(records)).toEqual([`p${moved}-0`, `p${moved}-1`, `p${moved}-2`])
  })

  it('takes no position for a commit', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = newRun()
    await t.produce(...series(topic, 0, 4))
    const { generationId } = await t.poll({ group, topics: [topic], run })

    await t.pollNow({
      group,
      topics: [topic],
      run: { ...run, generationId, positions: [{ topic, partition: 0, offset: 4 }] },
    })

    expect(await t.broker.committed(group.groupId)).toEqual([])
  })

  it('refuses a commit of the run for partitions that moved, by generation', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const run = newRun()
    await t.produce(...series(topic, 0, 1), ...series(topic, 1, 1))
    const { generationId, assignment } = await t.poll({ group, topics: [topic], run })
    const { assignment: moved } = await t.pollNow({
      group: instanceOf(group.groupId, 'other'),
      topics: [topic],
      run: newRun(),
    })
    const kept = assignment.filter(({ partition }) => partition !== moved[0]?.partition)
    const options = { runId: run.runId, generationId }

    await refusal(
      t.broker.commit(
        group,
        moved.map((partition) => ({ ...partition, offset: 1 })),
        options,
      ),
      'ILLEGAL_GENERATION',
    )
    await t.broker.commit(
      group,
      kept.map((partition) => ({ ...partition, offset: 1 })),
      options,
    )

    expect((await t.broker.committed(group.groupId)).map(({ partition }) => partition)).toEqual(
      kept.map(({ partition }) => partition),
    )
  })

  it('keeps assignment, generation and claim over a restart', async (t) => {
    const topic = await t.topic(4)
    const group = newGroup()
    const run = newRun()
    const other = instanceOf(group.groupId, 'other')
    await t.pollNow({ group, topics: [topic], run })
    await t.pollNow({ group: other, topics: [topic], run: newRun() })
    const before = await t.pollNow({ group, topics: [topic], run })
    await t.reopen()

    const after = await t.pollNow({ group, topics: [topic], run })
    await t.broker.commit(
      group,
      before.assignment.map((partition) => ({ ...partition, offset: 0 })),
      { runId: run.runId, generationId: before.generationId },
    )

    expect(after.assignment).toEqual(before.assignment)
    expect(after.generationId).toBe(before.generationId)
  })
}
