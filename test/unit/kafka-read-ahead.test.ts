import { describe, expect, it } from 'vitest'
import { ReadAhead } from '../../src/brokers/kafka/read-ahead.ts'
import { FakeClock } from '../support/clock.ts'

const MIB = 1024 * 1024

function readAhead(): { ahead: ReadAhead<string>; clock: FakeClock } {
  const clock = new FakeClock()
  return { ahead: new ReadAhead<string>(clock), clock }
}

describe('what is read ahead', () => {
  it('is given once, to who asks for just that', async () => {
    const { ahead } = readAhead()
    ahead.expect('orders@10', MIB, async () => 'records')

    expect(ahead.take('orders@11')).toEqual({ isExpected: false, answer: undefined })
    expect(await ahead.take('orders@10').answer).toBe('records')
    expect(ahead.take('orders@10')).toEqual({ isExpected: false, answer: undefined })
  })

  it('is nothing where the caller is only expected', () => {
    const { ahead } = readAhead()
    ahead.expect('orders@10', MIB, undefined)

    expect(ahead.take('orders@10')).toEqual({ isExpected: true, answer: undefined })
  })

  it('is dropped where nobody asks soon', async () => {
    const { ahead, clock } = readAhead()
    ahead.expect('orders@10', MIB, async () => 'records')

    await clock.advance(501)

    expect(ahead.isEmpty).toBe(true)
    expect(ahead.take('orders@10')).toEqual({ isExpected: false, answer: undefined })
  })

  it('is undefined where reading it failed', async () => {
    const { ahead } = readAhead()
    ahead.expect('orders@10', MIB, () => Promise.reject(new Error('the leader moved')))

    expect(await ahead.take('orders@10').answer).toBeUndefined()
  })

  it('never takes more than its room, which it gets back', async () => {
    const { ahead, clock } = readAhead()
    const expectAll = (): boolean[] =>
      ['a', 'b', 'c'].map((key) => {
        let isRead = false
        ahead.expect(key, 14 * MIB, async () => {
          isRead = true
          return key
        })
        return isRead
      })

    const first = expectAll()
    await clock.advance(501)
    const second = expectAll()

    expect(first).toEqual([true, true, false])
    expect(second).toEqual([true, true, false])
  })

  it('is nothing after closing', () => {
    const { ahead } = readAhead()
    ahead.expect('orders@10', MIB, async () => 'records')

    ahead.close()
    ahead.expect('orders@20', MIB, async () => 'records')

    expect(ahead.isEmpty).toBe(true)
  })
})
