/** The name of the dead-letter topic of a source topic and a group. */
import { digestOf } from '../digest.ts'

/** Spring's suffix. */
export const DEAD_LETTER_TOPIC_SUFFIX = '-dlt'

/** Kafka's longest topic name. */
const MAX_TOPIC_LENGTH = 249

/**
 * `<topic>.<group>-dlt`. The group is in the name because a topic has many groups and each handles its own failures.
 * Always a legal topic name: characters of the group that are not become `_`, and what is too long ends in a digest, so
 * that a letter can be stored whatever its group is called.
 */
export async function deadLetterTopic(topic: string, groupId: string): Promise<string> {
  const name = `${topic}.${groupId.replace(/[^a-zA-Z0-9._-]/g, '_')}`
  const room = MAX_TOPIC_LENGTH - DEAD_LETTER_TOPIC_SUFFIX.length
  if (name.length <= room) return name + DEAD_LETTER_TOPIC_SUFFIX
  const digest = (await digestOf(`${topic}\n${groupId}`)).slice(0, 16)
  return `${name.slice(0, room - digest.length - 1)}.${digest}${DEAD_LETTER_TOPIC_SUFFIX}`
}
