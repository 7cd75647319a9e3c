/** Opens the log in the given directory, makes a topic, says so, and holds on until it is killed. */
import { logBroker } from '../../src/brokers/log.ts'

const broker = logBroker({ dir: process.argv[2] ?? '' })
await broker.createTopic({ topic: 'held' })
console.log('open')
setInterval(() => {}, 1000)
