/** The gateway as a process of its own: `npm run gateway`, settings by environment, `--help` for all of them. */
import { runGateway } from '../src/runtimes/gateway-process.ts'

process.exitCode = await runGateway(process.argv.slice(2), process.env, {
  loadApp: async () => (await import('./app.ts')).app,
})
