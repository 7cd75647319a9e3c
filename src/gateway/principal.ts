/** Who calls, and what they may do. Anything not named by a scope is refused. */
import { GatewayError } from '../errors.ts'

/**
 * What a scope lets a caller do.
 * - `produce`: append to the topics
 * - `consume`: read the topics; poll, commit, claim and delete instances as the groups
 * - `admin`: create and delete the topics
 * - `operate`: look at what the groups could not handle, and hand it back to them
 */
export const verbs = ['produce', 'consume', 'admin', 'operate'] as const
/** One of the verbs. */
export type Verb = (typeof verbs)[number]

/** Names are exact, a prefix that ends in `*` (`users.*`), or `*`. */
export interface Scope {
  readonly verbs: readonly Verb[]
  readonly topics?: readonly string[] | undefined
  readonly groups?: readonly string[] | undefined
}

type Resource = 'topics' | 'groups'

/** A caller with the scopes of its credential. */
export class Principal {
  /** The credential's name, or null without credentials. */
  readonly name: string | null
  readonly #scopes: readonly Scope[]
  /** What it may do to every topic and group: spares the checks. */
  readonly #everywhere: ReadonlySet<Verb>

  constructor(name: string | null, scopes: readonly Scope[]) {
    this.name = name
    this.#scopes = scopes
    const wide = scopes.filter(({ topics, groups }) => topics?.includes('*') === true && groups?.includes('*') === true)
    this.#everywhere = new Set(wide.flatMap((scope) => scope.verbs))
  }

  /** Whether the caller may do this to the topic or group. */
  may(verb: Verb, resource: Resource, name: string): boolean {
    return (
      this.#everywhere.has(verb) ||
      this.#scopes.some((scope) => scope.verbs.includes(verb) && names(scope[resource], name))
    )
  }

  /** Whether the caller may do anything at all to the topic or group, and so may see it. */
  maySee(resource: Resource, name: string): boolean {
    return this.#everywhere.size > 0 || this.#scopes.some((scope) => names(scope[resource], name))
  }

  /** @throws {GatewayError} TOPIC_AUTHORIZATION_FAILED, whether or not the topic exists */
  requireTopics(verb: Verb, topics: Iterable<string>): void {
    if (this.#everywhere.has(verb)) return
    for (const topic of topics) {
      if (!this.may(verb, 'topics', topic)) throw topicForbidden(verb, topic)
    }
  }

  /** @throws {GatewayError} GROUP_AUTHORIZATION_FAILED */
  requireGroup(verb: Verb, groupId: string): void {
    if (this.may(verb, 'groups', groupId)) return
    throw new GatewayError(
      'GROUP_AUTHORIZATION_FAILED',
      `Cannot ${verb === 'operate' ? verb : `${verb} as`} group ${JSON.stringify(groupId)}: the credentials do not allow it. Ask for a scope that names the group.`,
    )
  }

  /** @throws {GatewayError} TOPIC_AUTHORIZATION_FAILED or GROUP_AUTHORIZATION_FAILED when no scope names it */
  requireSight(resource: Resource, name: string): void {
    if (this.maySee(resource, name)) return
    if (resource === 'topics') throw topicForbidden('describe', name)
    throw new GatewayError(
      'GROUP_AUTHORIZATION_FAILED',
      `Cannot describe group ${JSON.stringify(name)}: the credentials do not allow it. Ask for a scope that names the group.`,
    )
  }
}

/** A caller with every right: the one of a gateway without credentials. */
export const everyone: Principal = new Principal(null, [{ verbs, topics: ['*'], groups: ['*'] }])

function topicForbidden(verb: string, topic: string): GatewayError {
  return new GatewayError(
    'TOPIC_AUTHORIZATION_FAILED',
    `Cannot ${verb} topic ${JSON.stringify(topic)}: the credentials do not allow it. Ask for a scope that names the topic.`,
  )
}

function names(patterns: readonly string[] | undefined, name: string): boolean {
  return patterns?.some((pattern) => nameMatches(pattern, name)) ?? false
}

/** Whether a scope's pattern covers a name. */
export function nameMatches(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name
}
