/** The memory broker, on a fake clock. */
import { memoryBroker } from '../../src/brokers/memory.ts'
import { describeBroker } from '../conformance/broker/index.ts'
import { FakeClock } from '../support/clock.ts'

describeBroker('memory', {
  async open() {
    const clock = new FakeClock()
    const broker = memoryBroker({ clock })
    return { broker, clock, close: () => broker.close() }
  },
})
