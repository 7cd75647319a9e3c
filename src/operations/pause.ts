/** Pauses and resumes: what of a group is not handled. Runs read it at their start and now and then. */
import { orderingOf } from '../consumer/plan.ts'
import { BrokerError } from '../errors.ts'
import type { PauseOptions } from '../operations.ts'
import { requireGroup } from '../existing-group.ts'
import type { OperationsSettings, VerbDone, VerbWork } from './frame.ts'
import type { Paused, PausedKey } from './state.ts'

/** Pauses or resumes a group, a topic or a key of it. Doing it twice does no more than once. */
export async function changePaused(
  settings: OperationsSettings,
  { topic, key }: PauseOptions,
  verb: 'pause' | 'resume',
  { calls, state, isHeeded }: VerbWork,
): Promise<VerbDone<Paused>> {
  const { broker, groupId, app } = settings
  if (!isHeeded) {
    throw new BrokerError(
      'INVALID_REQUEST',
      `Cannot ${verb} group ${groupId}: its runs do not ask what is paused. Set operations: true in defineApp, deploy it, and let it run once.`,
    )
  }
  if (app === undefined) await requireGroup({ broker, groupId, task: `${verb} group ${groupId}`, calls })
  if (topic !== undefined && verb === 'pause') await requireSource(settings, topic, calls)
  if (topic !== undefined && key !== undefined && verb === 'pause') requireKeys(settings, topic)
  const before = state.paused
  const after = changed(before, { topic, key }, verb === 'pause')
  return { result: after, before, after, state: { ...state, paused: after } }
}

function changed(
  before: Paused,
  { topic, key }: { topic: string | undefined; key: string | undefined },
  isOn: boolean,
): Paused {
  if (topic === undefined) return { ...before, group: isOn }
  if (key === undefined) {
    const others = before.topics.filter((one) => one !== topic)
    return { ...before, topics: isOn ? [...others, topic].sort() : others }
  }
  const others = before.keys.filter((one) => one.topic !== topic || one.key !== key)
  return { ...before, keys: isOn ? [...others, { topic, key }].sort(byTopicAndKey) : others }
}

function byTopicAndKey(a: PausedKey, b: PausedKey): number {
  if (a.topic !== b.topic) return a.topic < b.topic ? -1 : 1
  return a.key < b.key ? -1 : 1
}

/** Where records wait for everything before them, one key would stop its whole partition. */
function requireKeys({ groupId, app }: OperationsSettings, topic: string): void {
  const route = app?.routes.find(
    ({ match, options }) =>
      (typeof match.topic === 'string' ? match.topic : match.topic.name) === topic &&
      orderingOf(options) === 'partition',
  )
  if (route === undefined) return
  throw new BrokerError(
    'INVALID_REQUEST',
    `Cannot pause a key of ${topic} of group ${groupId}: its route ${route.name} is ordered by partition, so everything behind the key would wait too. Pause the topic, or order the route by key.`,
  )
}

/** Only a topic that the group reads can be paused, and what comes back to it waits with it. */
async function requireSource(
  { broker, groupId, app }: OperationsSettings,
  topic: string,
  calls: VerbWork['calls'],
): Promise<void> {
  const back = app?.returnTopics.get(topic)
  if (back !== undefined) {
    throw new BrokerError(
      'INVALID_REQUEST',
      `Cannot pause ${topic} of group ${groupId}: it waits with ${back.source}. Pause that.`,
    )
  }
  if (app !== undefined && !app.subscription.includes(topic)) {
    throw new BrokerError(
      'INVALID_REQUEST',
      `Cannot pause ${topic} of group ${groupId}: its app does not read it. It reads ${app.subscription.join(', ')}.`,
    )
  }
  if (app !== undefined) return
  const topics = await calls.make((call) => broker.topics(call))
  if (topics.some((one) => one.topic === topic)) return
  throw new BrokerError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `Cannot pause ${topic} of group ${groupId}: the broker has no such topic. Check the name.`,
  )
}
