/** A consumer as a process of its own: `npm run consume`, `--help` for all of it. */
import { runConsumer } from '../src/runtimes/consumer-process.ts'
import { app } from './app.ts'

process.exitCode = await runConsumer(app, process.argv.slice(2), process.env)
