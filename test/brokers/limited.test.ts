/**
 * The suite over a broker that has no optional feature: it must assert refusals where others assert the feature. The
 * broker is the memory broker behind a wrapper that refuses; what is tested is the suite.
 */
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { Broker, BrokerFeatures, NewTopic } from '../../src/broker.ts'
import { BrokerError } from '../../src/errors.ts'
import { describeBroker } from '../conformance/broker/index.ts'
import { FakeClock } from '../support/clock.ts'

const none: BrokerFeatures = {
  atomicProduce: false,
  idempotencyKeys: false,
  claims: false,
  topicAdmin: false,
  autoCommit: false,
  offsetMetadata: false,
  retention: false,
}

describeBroker('memory without its optional features', {
  async open() {
    const clock = new FakeClock()
    const full = memoryBroker({ clock })
    return {
      broker: limited(full),
      clock,
      async createTopic(topic: NewTopic) {
        await full.createTopic(topic)
      },
      close: () => full.close(),
    }
  },
})

/** Refuses everything optional, and hands on the rest. */
function limited(full: Broker): Broker {
  /** What every driver checks first comes before what this one cannot do. */
  const refuse = async (what: string, call: Parameters<Broker['topics']>[0]): Promise<never> => {
    await full.topics(call)
    throw new BrokerError('UNSUPPORTED', `Cannot ${what}: this broker has no such feature. Use another.`)
  }
  return {
    features: none,
    produce: (records, options, call) =>
      options?.idempotencyKey === undefined ? full.produce(records, options, call) : refuse('name a produce', call),
    fetch: (from, limits, call) => full.fetch(from, limits, call),
    async poll(request, call) {
      if (request.run !== undefined) return await refuse('poll for a run', call)
      if (request.enableAutoCommit === true) return await refuse('commit by itself', call)
      return await full.poll(request, call)
    },
    claim: (_group, _run, call) => refuse('claim', call),
    release: (_group, _runId, call) => refuse('release', call),
    async commit(group, offsets, options, call) {
      if (options?.runId !== undefined) return await refuse('commit for a run', call)
      if (offsets !== 'polled' && offsets.some(({ metadata }) => typeof metadata === 'string')) {
        return await refuse('keep metadata', call)
      }
      return await full.commit(group, offsets, options, call)
    },
    committed: (groupId, partitions, call) => full.committed(groupId, partitions, call),
    offsets: (partitions, at, call) => full.offsets(partitions, at, call),
    topics: (call) => full.topics(call),
    createTopic: (_topic, call) => refuse('create a topic', call),
    deleteTopic: (_topic, call) => refuse('delete a topic', call),
    groups: (call) => full.groups(call),
    leave: (group, call) => full.leave(group, call),
    close: () => full.close(),
    [Symbol.asyncDispose]: () => full.close(),
  }
}
