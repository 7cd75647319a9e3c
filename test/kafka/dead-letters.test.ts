/** Dead letters in topics of a real cluster, which knows no idempotency keys. */
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { openKafka, ownCluster } from './conformance-kafka.ts'

const cluster = ownCluster()

describeDeadLetterStore('topic on kafka', {
  async open() {
    await cluster.wipe()
    const broker = openKafka()
    const store = topicDeadLetters({ broker })
    const reader = topicDeadLetters({ broker })
    return {
      store,
      stored: async () => (await reader.list({ limit: 1000 })).items,
      close: () => broker.close(),
    }
  },
})
