/** The example as a Cloudflare Worker. */
import { type Worker, worker } from '../../src/runtimes/cloudflare.ts'
import { app, webhookKey } from './app.ts'

const handlers: Worker = worker(app, { webhookKey })
export default handlers
