/** Pauses and resumes: what of a group is not handled. Runs read it at their start and now and then. */
import { BrokerError } from '../errors.ts'
import type { PauseOptions } from '../operations.ts'
import { requireGroup } from './partitions.ts'
import type { OperationsSettings, VerbDone, VerbWork } from './frame.ts'
import type { Paused } from './state.ts'

/** Pauses or resumes a group or a topic of it. Doing it twice does no more than once. */
export async function changePaused(
  settings: OperationsSettings,
  { topic }: PauseOptions,
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
  if (app === undefined) await requireGroup(broker, groupId, calls)
  if (topic !== undefined && verb === 'pause') await requireSource(settings, topic, calls)
  const before = state.paused
  const isOn = verb === 'pause'
  const after =
    topic === undefined ? { ...before, group: isOn } : { ...before, topics: changed(before.topics, topic, isOn) }
  return { result: after, before, after, state: { ...state, paused: after } }
}

function changed(topics: readonly string[], topic: string, isOn: boolean): readonly string[] {
  const others = topics.filter((one) => one !== topic)
  return isOn ? [...others, topic].sort() : others
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
