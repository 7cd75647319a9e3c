/**
 * GitHub's webhooks through one topic: the produce function takes each delivery as it comes (`/webhook?topic=github`), the
 * record's headers say which event it is, and each event that matters here has a handler of its own with a value of its
 * own. What nobody handles, what is not as expected, and what cannot be handled goes to the dead-letter store.
 */
import * as z from 'zod'
import { type App, defineApp } from '../../src/app.ts'
import { createRouter } from '../../src/router.ts'
import { defineTopic, narrowTopic } from '../../src/topic.ts'

const account = z.object({ login: z.string(), id: z.number() })
const repository = z.object({ id: z.number(), full_name: z.string() })
const common = { repository, sender: account }

/** Every delivery is a JSON object; what is in it depends on the event. */
const Delivery = z.looseObject({ action: z.string().optional() })

const Issue = z.object({
  ...common,
  action: z.string(),
  // Not so in real life: an issue without a text has null here. Such a delivery becomes a dead letter (`invalid`).
  issue: z.object({ number: z.number(), title: z.string(), body: z.string(), user: account }),
})
const IssueComment = z.object({ ...common, comment: z.object({ id: z.number(), body: z.string() }) })
const PullRequest = z.object({
  ...common,
  action: z.string(),
  number: z.number(),
  pull_request: z.object({ title: z.string(), head: z.object({ sha: z.string() }) }),
})
const CheckRun = z.object({
  ...common,
  check_run: z.object({ status: z.enum(['queued', 'in_progress', 'completed']) }),
})
// A release need not have a name either.
const Release = z.object({ ...common, release: z.object({ tag_name: z.string(), name: z.string() }) })
const Discussion = z.object({ ...common, discussion: z.object({ number: z.number(), title: z.string() }) })
const DeploymentStatus = z.object({ ...common, deployment_status: z.object({ environment_url: z.url() }) })
const Label = z.object({ ...common, label: z.object({ name: z.string(), color: z.string() }) })
const Create = z.object({ ...common, ref: z.string(), ref_type: z.enum(['branch', 'tag']) })
const Repository = z.object({ ...common, action: z.string() })
const CheckSuite = z.object({ ...common, check_suite: z.object({ id: z.number(), head_sha: z.string() }) })
const WorkflowJob = z.object({ ...common, workflow_job: z.object({ name: z.string(), run_id: z.number() }) })
const Milestone = z.object({ ...common, milestone: z.object({ number: z.number(), due_on: z.string().nullable() }) })
const Star = z.object({ ...common, starred_at: z.iso.datetime().nullable() })
const Fork = z.object({ ...common, forkee: repository })

/** The condition that a record is of this event. The functions' platforms give header names in lower case. */
function event(name: string): { 'x-github-event': string } {
  return { 'x-github-event': name }
}

/** What the topic and the group are called, for a cluster where those names are taken. */
export interface GithubNames {
  /** @default 'github' */
  readonly topic?: string
  /** @default 'github-demo' */
  readonly groupId?: string
}

/** The app: one consumer group with everything above. */
export function githubApp({ topic = 'github', groupId = 'github-demo' }: GithubNames = {}): App {
  const github = defineTopic(topic, Delivery)
  const router = createRouter()
    .on({ topic: narrowTopic(github, Issue), headers: event('issues') }, ({ value }, { log }) => {
      log('issue', { action: value.action, number: value.issue.number, length: value.issue.body.length })
    })
    .on({ topic: narrowTopic(github, IssueComment), headers: event('issue_comment') }, ({ value }, { log }) => {
      log('comment', { length: value.comment.body.length })
    })
    .on({ topic: narrowTopic(github, PullRequest), headers: event('pull_request') }, ({ value }, { log }) => {
      log('pull request', { action: value.action, number: value.number })
    })
    .on({ topic: narrowTopic(github, CheckRun), headers: event('check_run') }, ({ value }, { log }) => {
      log('check', { status: value.check_run.status })
    })
    .on({ topic: narrowTopic(github, Release), headers: event('release') }, ({ value }, { log }) => {
      log('release', { tag: value.release.tag_name })
    })
    .on({ topic: narrowTopic(github, Discussion), headers: event('discussion') }, ({ value }, { log }) => {
      log('discussion', { number: value.discussion.number })
    })
    .on({ topic: narrowTopic(github, DeploymentStatus), headers: event('deployment_status') }, ({ value }, { log }) => {
      log('deployed', { to: value.deployment_status.environment_url })
    })
    .on({ topic: narrowTopic(github, Label), headers: event('label') }, ({ value }, { log }) => {
      log('label', { name: value.label.name })
    })
    .on({ topic: narrowTopic(github, Create), headers: event('create') }, ({ value }, { log }) => {
      log('created', { ref: value.ref, type: value.ref_type })
    })
    .on({ topic: narrowTopic(github, Repository), headers: event('repository') }, ({ value }, { log }) => {
      log('repository', { action: value.action, name: value.repository.full_name })
    })
    .on({ topic: narrowTopic(github, CheckSuite), headers: event('check_suite') }, ({ value }, { log }) => {
      log('check suite', { commit: value.check_suite.head_sha })
    })
    .on({ topic: narrowTopic(github, WorkflowJob), headers: event('workflow_job') }, ({ value }, { log }) => {
      log('job', { name: value.workflow_job.name })
    })
    .on({ topic: narrowTopic(github, Milestone), headers: event('milestone') }, ({ value }, { log }) => {
      log('milestone', { number: value.milestone.number, due: value.milestone.due_on })
    })
    .on({ topic: narrowTopic(github, Star), headers: event('star') }, ({ value }, { log }) => {
      log('star', { by: value.sender.login })
    })
    .on({ topic: narrowTopic(github, Fork), headers: event('fork') }, ({ value }, { log }) => {
      log('fork', { to: value.forkee.full_name })
    })
    // By header alone: the handler gets the value as the topic has it.
    .on({ topic: github, headers: event('push') }, ({ value }, { log }) => {
      log('push', { fields: Object.keys(value).length })
    })
    // By key: the produce function makes the id of the repository or organisation the key (worker.ts, lambda.ts), so the
    // hooks of one organisation can have a handler of their own. Two conditions win over one.
    .on(
      { topic: github, key: '38302899', headers: { 'x-github-hook-installation-target-type': 'organization' } },
      (_record, { log }) => {
        log('of our organisation')
      },
    )
    // A handler that always fails: after its attempts the record is a dead letter (`exhausted`).
    .on({ topic: github, headers: event('deployment') }, () => {
      throw new Error('The deployment service does not answer.')
    })
    .otherwise('dead-letter')

  const retry = { maxAttempts: 3, initialMs: 20, maxMs: 100 }
  // Half of these deliveries become dead letters, and are meant to: nothing is down that would mend.
  return defineApp({ groupId, topics: [github], router, retry, breaker: null })
}

/** The header in which GitHub says which repository, organisation or app a hook belongs to: the key of its records. */
export function webhookKey(request: Request): string | null {
  return request.headers.get('x-github-hook-installation-target-id')
}
