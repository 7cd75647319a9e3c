/** The example as a Cloudflare Worker. */
import { type Worker, worker } from '../../src/runtimes/cloudflare.ts'
import { githubApp, webhookKey } from './app.ts'

const handlers: Worker = worker(githubApp(), { webhookKey })
export default handlers
