/** Cloudflare Worker: `fetch` is the produce API for other apps, `scheduled` consumes on cron ticks. See wrangler.toml. */
import { type Worker, worker } from '../src/runtimes/cloudflare.ts'
import { app } from './app.ts'

const handlers: Worker = worker(app)
export default handlers
