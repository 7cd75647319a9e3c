/**
 * `npm run prove -- rebalance`: groups over a real gateway and its log on disk, whose instances are processes of their own. They
 * join, leave, are killed, stand still and overlap; the gateway is restarted. Nothing is lost, every partition has one holder and
 * goes on where the group has committed, and of two runs of an instance one works.
 */
import { cp, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { seeded } from '../test/support/chaos.ts'
import { temporaryFolder } from './embedded-log/folder.ts'
import { gatewayProcess } from './gateway-process.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'
import { joinsAndLeaves } from './rebalance/joins-and-leaves.ts'
import { overlaps } from './rebalance/overlaps.ts'
import { restarts } from './rebalance/restarts.ts'
import type { Scenario } from './rebalance/scenario.ts'

const scenarios: Readonly<Record<string, Scenario>> = { joinsAndLeaves, restarts, overlaps }
const SHOWN = 10

/** Groups under change. */
export const rebalance: Proof = {
  summary: 'instances join, leave, die and overlap, and the gateway restarts; a group loses nothing and stays one',
  prove,
}

async function prove({ seed, quick, say, stop }: ProofOptions): Promise<ProofResult> {
  using folder = temporaryFolder('rebalance')
  await using gateway = await gatewayProcess({
    KEDGE_BROKER: 'log',
    KEDGE_DATA: join(folder.path, 'log'),
    // Most of a start is compiling, which the one before has done.
    NODE_COMPILE_CACHE: join(folder.path, 'compiled'),
  })
  await gateway.start()
  const found: Record<string, unknown> = {}
  let runs = 0
  let violations = 0
  for (const [name, { promise, strikes, needs, play }] of Object.entries(scenarios)) {
    if (stop.aborted) break
    const startedAt = performance.now()
    const count = quick ? strikes.quick : strikes.full
    const journals = join(folder.path, name)
    await mkdir(journals)
    const played = await play({ gateway, folder: journals, strikes: count, random: seeded(seed), stop })
    const lacking = stop.aborted ? [] : needs.filter((need) => (played.figures[need] ?? 0) === 0)
    const complaints = [...played.violations, ...lacking.map((need) => `nothing was shown: there were no ${need}`)]
    const seconds = Math.round((performance.now() - startedAt) / 100) / 10
    say(`  ${name}: ${promise} ${complaints.length} violations in ${seconds} s; ${JSON.stringify(played.figures)}`)
    for (const line of complaints.slice(0, SHOWN)) say(`    ${line}`)
    if (complaints.length > SHOWN) say(`    and ${complaints.length - SHOWN} more`)
    if (complaints.length > 0) say(`    what happened is in ${await keep(journals, name)}`)
    violations += complaints.length
    runs += count
    found[name] = { ...played.figures, seconds }
  }
  return { runs, violations, figures: { scenarios: found } }
}

/** Keeps the journals, for whoever looks for the reason. */
async function keep(journals: string, name: string): Promise<string> {
  const kept = join(import.meta.dirname, '..', '.cache', 'prove', `rebalance-${name}`)
  await rm(kept, { recursive: true, force: true })
  await cp(journals, kept, { recursive: true })
  return kept
}
