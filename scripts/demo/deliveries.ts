/** GitHub's own examples of webhook deliveries, as they would arrive. */
import { createRequire } from 'node:module'

/** One delivery: what GitHub would send. */
export interface Delivery {
  /** Unique, like GitHub's: what a record is recognised by when everything is read back. */
  readonly id: string
  readonly event: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

interface Payload {
  readonly repository?: { readonly id?: number }
  readonly organization?: { readonly id?: number }
  readonly installation?: { readonly id?: number }
}

interface EventExamples {
  readonly name: string
  readonly examples: readonly Payload[]
}

/** Every example of the package's api.github.com set, in its order. */
export function allDeliveries(): Delivery[] {
  const require = createRequire(import.meta.url)
  const events = require('@octokit/webhooks-examples/api.github.com/index.json') as EventExamples[]
  return events.flatMap(({ name, examples }) =>
    examples.map((payload, index) => deliveryOf(name, payload, `${name}-${index + 1}`)),
  )
}

function deliveryOf(event: string, payload: Payload, id: string): Delivery {
  const [type, targetId] = targetOf(payload)
  return {
    id,
    event,
    body: JSON.stringify(payload),
    headers: {
      'Content-Type': 'application/json',
      'User-Agent': 'GitHub-Hookshot/044aadd',
      'X-GitHub-Event': event,
      'X-GitHub-Delivery': id,
      'X-GitHub-Hook-Installation-Target-Type': type,
      'X-GitHub-Hook-Installation-Target-ID': String(targetId),
    },
  }
}

/** Whose hook it is. GitHub says so in two headers; the examples hold bodies only. */
function targetOf({ repository, organization, installation }: Payload): [string, number] {
  if (repository?.id !== undefined) return ['repository', repository.id]
  if (organization?.id !== undefined) return ['organization', organization.id]
  return ['integration', installation?.id ?? 0]
}
