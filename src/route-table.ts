/**
 * Routes compiled for look-up. Per topic, routes with conditions on the same things (say the key and one header) share a
 * tier: nested maps from what a record has to the route. A look-up asks one tier for each *set of things*, the largest
 * set first, so its cost does not grow with the number of routes.
 */
import { lastHeader } from './headers.ts'
import { KnownTexts } from './known-texts.ts'
import type { ConsumerRecord } from './record.ts'
import { matchTopicName } from './router.ts'
import type { FieldValue, Route } from './router.ts'
import { readJson } from './topic.ts'

/** A route that was found. */
export interface Matched {
  readonly route: Route
  /** The parsed JSON of the value where a condition needed it, else `unread`. */
  readonly json: unknown
}

/** Stands for a value that was not parsed on the way. */
export const unread: unique symbol = Symbol('unread')

/** Finds routes. */
export interface RouteTable {
  /**
   * The route with the most conditions that the record meets; undefined where there is none; `'unreadable'` where there
   * is none and conditions on the value could not be asked because the value is not JSON.
   */
  find(record: ConsumerRecord): Matched | 'unreadable' | undefined
}

/** One thing that conditions ask of a record. */
interface Probe {
  /** What the record has there; undefined where it has nothing, or nothing that any condition asks for. */
  read(record: ConsumerRecord, json: unknown): unknown
}

interface Condition {
  /** What is asked, comparable: `key`, `header worker`, `value ["issue","state"]`. */
  readonly id: string
  readonly expected: FieldValue
  /** Makes the probe that tells these values apart. */
  probe(expected: readonly FieldValue[]): Probe
}

interface Branch extends Map<unknown, Branch | Matched> {}

/** All routes of a topic with conditions on the same things. */
interface Tier {
  readonly probes: readonly Probe[]
  readonly readsValue: boolean
  readonly branch: Branch
}

interface TopicRoutes {
  /** Most conditions first. */
  readonly tiers: readonly Tier[]
  /** The route without conditions. */
  readonly plain: Matched | undefined
}

const unreadable: unique symbol = Symbol('unreadable')

/** Compiles routes. Of two routes that tie, the later one is found: ask `ambiguities` first. */
export function compileRoutes(routes: readonly Route[]): RouteTable {
  const topics = new Map<string, TopicRoutes>()
  for (const [name, group] of groupByTopic(routes)) topics.set(name, compileTopic(group))
  return {
    find(record) {
      const topic = topics.get(record.topic)
      if (topic === undefined) return undefined
      return topic.tiers.length === 0 ? topic.plain : findInTiers(topic, record)
    },
  }
}

/** Pairs of routes that can match one record with equally many conditions, where no third route settles it. */
export function ambiguities(routes: readonly Route[]): [Route, Route][] {
  const found: [Route, Route][] = []
  for (const group of groupByTopic(routes).values()) {
    const all = group.map((route) => ({ route, asked: askedBy(route) }))
    for (const [index, a] of all.entries()) {
      for (const b of all.slice(index + 1)) {
        if (a.asked.size !== b.asked.size) continue
        const overlap = overlapOf(a.asked, b.asked)
        if (overlap === undefined) continue
        if (!all.some((c) => c.asked.size > a.asked.size && isPartOf(c.asked, overlap))) found.push([a.route, b.route])
      }
    }
  }
  return found
}

function groupByTopic(routes: readonly Route[]): Map<string, Route[]> {
  return Map.groupBy(routes, (route) => matchTopicName(route.match))
}

function compileTopic(routes: readonly Route[]): TopicRoutes {
  const probes = probesOf(routes)
  const tiers = new Map<string, Tier>()
  let plain: Matched | undefined
  for (const route of routes) {
    const matched: Matched = { route, json: unread }
    const conditions = conditionsOf(route).sort((a, b) => (a.id < b.id ? -1 : 1))
    const last = conditions.pop()
    if (last === undefined) {
      plain = matched
      continue
    }
    const ids = [...conditions, last].map(({ id }) => id)
    const key = JSON.stringify(ids)
    let tier = tiers.get(key)
    if (tier === undefined) {
      const asked = ids.flatMap((id) => probes.get(id) ?? [])
      tier = { probes: asked, readsValue: route.match.value !== undefined, branch: new Map() }
      tiers.set(key, tier)
    }
    let branch = tier.branch
    for (const { expected } of conditions) branch = childOf(branch, expected)
    branch.set(last.expected, matched)
  }
  return { tiers: [...tiers.values()].sort((a, b) => b.probes.length - a.probes.length), plain }
}

/** One probe for each thing asked, which knows everything that any route expects there. */
function probesOf(routes: readonly Route[]): Map<string, Probe> {
  const groups = Map.groupBy(routes.flatMap(conditionsOf), ({ id }) => id)
  return new Map(
    [...groups].flatMap(([id, [first, ...others]]) =>
      first === undefined ? [] : [[id, first.probe([first, ...others].map(({ expected }) => expected))]],
    ),
  )
}

function childOf(branch: Branch, expected: FieldValue): Branch {
  const child = branch.get(expected)
  if (child instanceof Map) return child
  const made: Branch = new Map()
  branch.set(expected, made)
  return made
}

function findInTiers(topic: TopicRoutes, record: ConsumerRecord): Matched | 'unreadable' | undefined {
  let json: unknown = unread
  for (const tier of topic.tiers) {
    if (tier.readsValue && json === unread) json = parse(record)
    if (tier.readsValue && json === unreadable) continue
    let at: Branch | Matched | undefined = tier.branch
    for (const probe of tier.probes) {
      if (!(at instanceof Map)) break
      at = at.get(probe.read(record, json))
    }
    if (at !== undefined && !(at instanceof Map)) {
      return json === unread || json === unreadable ? at : { route: at.route, json }
    }
  }
  return topic.plain ?? (json === unreadable ? 'unreadable' : undefined)
}

function parse(record: ConsumerRecord): unknown {
  if (record.value === null) return null
  try {
    return readJson(record.topic, record.value)
  } catch {
    // Whoever handles the record parses it again and reports what is wrong; here it only meets no condition.
    return unreadable
  }
}

function conditionsOf({ match }: Route): Condition[] {
  const conditions: Condition[] = []
  if (match.key !== undefined) conditions.push({ id: 'key', expected: match.key, probe: keyProbe })
  for (const [key, expected] of Object.entries(match.headers ?? {})) {
    conditions.push({ id: `header ${key}`, expected, probe: (all) => headerProbe(key, all) })
  }
  for (const [path, expected] of Object.entries(match.value ?? {})) {
    const names = fieldNames(path)
    conditions.push({ id: `value ${JSON.stringify(names)}`, expected, probe: () => fieldProbe(names) })
  }
  return conditions
}

function keyProbe(expected: readonly FieldValue[]): Probe {
  const known = new KnownTexts(expected.filter((one) => typeof one === 'string'))
  return { read: ({ key }) => (key === null ? null : known.find(key)) }
}

function headerProbe(name: string, expected: readonly FieldValue[]): Probe {
  const known = new KnownTexts(expected.filter((one) => typeof one === 'string'))
  return {
    read({ headers }) {
      const value = lastHeader(headers, name)?.value
      return value === undefined || value === null ? undefined : known.find(value)
    },
  }
}

function fieldProbe(names: readonly string[]): Probe {
  return {
    read(_record, json) {
      let at = json
      for (const name of names) {
        // Own fields only: a value must not be routed by what it inherits.
        if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) return undefined
        at = (at as Record<string, unknown>)[name]
      }
      return at
    },
  }
}

/** Splits a path at its dots; `\.` stands for a dot in a name and `\\` for a backslash. */
export function fieldNames(path: string): string[] {
  const names = ['']
  for (const [token] of path.matchAll(/\\[\s\S]|[\s\S]/g)) {
    if (token === '.') names.push('')
    else names.push(`${names.pop() ?? ''}${token.length > 1 ? token.slice(1) : token}`)
  }
  return names
}

/** What a route asks for, by the id of the thing asked. */
function askedBy(route: Route): Map<string, FieldValue> {
  return new Map(conditionsOf(route).map(({ id, expected }) => [id, expected]))
}

/** What a record that meets both has, or undefined where no record can. */
function overlapOf(a: Map<string, FieldValue>, b: Map<string, FieldValue>): Map<string, FieldValue> | undefined {
  for (const [id, expected] of b) if (a.has(id) && a.get(id) !== expected) return undefined
  return new Map([...a, ...b])
}

function isPartOf(part: Map<string, FieldValue>, whole: Map<string, FieldValue>): boolean {
  return [...part].every(([id, expected]) => whole.has(id) && whole.get(id) === expected)
}
