/** Answers to polls are cut off after they were sent. The next poll of the instance brings the same records. */
import { partitionKey } from '../../src/record.ts'
import type { Scenario } from './scenario.ts'
import { World } from './world.ts'

const CUTS = 1_000

/** Lost answers. */
export const cutAnswers: Scenario = {
  promise: 'Records of an answer that was lost come in the next one: none is skipped.',
  plays: { full: 250, quick: 10 },
  needs: { 'answers with records cut': CUTS, 'same records came again': CUTS },
  async play(seed, index, bugs) {
    /** The first offset of each partition in an answer that nobody got. */
    const owed = new Map<string, number>()
    const world = new World({
      seed,
      partitions: 1 + (index % 3),
      ordering: index % 2 === 0 ? 'partition' : 'key',
      workMs: () => world.below(2) * 5,
      consumer: { maxPollRecords: 2 + (index % 4) * 5, maxPollWaitMs: 100, claimTtlMs: 1_000, callTimeoutMs: 500 },
      cuts: (instance, { records }) => {
        if (records.length === 0) return false
        const firsts = new Map<string, number>()
        for (const record of records) {
          const place = partitionKey(record)
          if (!firsts.has(place)) firsts.set(place, record.offset)
        }
        for (const [place, offset] of firsts) {
          const due = owed.get(`${instance} ${place}`)
          if (due === undefined) continue
          owed.delete(`${instance} ${place}`)
          if (offset > due) world.witness.complain(`${place}@${due} was lost with an answer, and ${offset} came next`)
          else world.count('same records came again')
        }
        if (world.random() >= 0.5) return false
        world.count('answers with records cut')
        for (const [place, offset] of firsts) owed.set(`${instance} ${place}`, offset)
        return true
      },
      bugs,
    })
    await world.open()
    await world.produce(Array.from({ length: 60 }, () => 'good'))
    await world.finish(world.start({ runMs: 3_000, run: { stopWhenEmpty: false } }))
    await world.drain()
    return await world.judge()
  },
}
