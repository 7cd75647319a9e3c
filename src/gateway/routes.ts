/** The route table: every call of the gateway. A call that is not here does not exist. */
import type { Route } from './route.ts'
import { claim, release } from './routes/claims.ts'
import { commit } from './routes/commit.ts'
import { consume, consumeTopic } from './routes/consume.ts'
import { documentRoutes, type DocsAssets } from './routes/documents.ts'
import { fetchRecords } from './routes/fetch.ts'
import { consumers, deleteConsumer, describeGroup, listGroups } from './routes/groups.ts'
import { committed, offsets } from './routes/offsets.ts'
import { produceMessage, produceRecords, produceToTopic } from './routes/produce.ts'
import { healthz, readyz, root } from './routes/service.ts'
import { createTopic, deleteTopic, describeTopic, listTopics } from './routes/topics.ts'
import { webhook } from './routes/webhook.ts'

/** All routes, in the order in which the OpenAPI document shows them; those of operators are handed in. */
export function routeTable(assets?: DocsAssets, operatorRoutes: readonly Route[] = []): readonly Route[] {
  const table: readonly Route[] = [
    produceRecords,
    produceToTopic,
    produceMessage,
    webhook,
    consume,
    consumeTopic,
    commit,
    committed,
    fetchRecords,
    offsets,
    listTopics,
    describeTopic,
    createTopic,
    deleteTopic,
    consumers,
    deleteConsumer,
    listGroups,
    describeGroup,
    claim,
    release,
    ...operatorRoutes,
    root,
    healthz,
    readyz,
    ...documentRoutes(() => table, assets),
  ]
  return table
}
