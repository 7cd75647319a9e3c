/** A cluster that asks who one is: listeners with SASL, TLS and both, users, and what each may do. */
import {
  AclOperations,
  AclPermissionTypes,
  createAclsV3,
  createTopicsV7,
  ResourcePatternTypes,
  ResourceTypes,
} from '@platformatic/kafka'
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type KafkaCluster, startKafka } from '../../scripts/kafka/cluster.ts'
import { connected } from './admin.ts'

/** May use topics and groups whose names begin with `open`. The password has what a URL would have to quote. */
export const ALICE = { username: 'alice', password: 'correct horse=battery/staple' } as const
/** May do nothing. */
export const MALLORY = { username: 'mallory', password: 'hunter2' } as const

/** Largest request that the cluster reads; whoever sends more is cut off. */
export const MAX_REQUEST_BYTES = 3_000_000

export interface GuardedCluster extends AsyncDisposable {
  /** `host:port` of each listener. PLAINTEXT may do everything; PLAIN takes no other mechanism. */
  readonly at: Readonly<Record<'PLAINTEXT' | 'SASL' | 'PLAIN' | 'TLS' | 'SASLTLS', string>>
  /** The certificate of the broker, for 127.0.0.1, signed by itself. */
  readonly certificate: string
}

/** Starts one broker with topics `open` and `closed`. */
export async function startGuardedCluster(): Promise<GuardedCluster> {
  const folder = await mkdtemp(join(tmpdir(), 'kedge-certificate-'))
  const { keyStore, certificate } = makeCertificate(folder)
  const cluster = await startKafka({
    listeners: { SASL: 'SASL_PLAINTEXT', PLAIN: 'SASL_PLAINTEXT', TLS: 'SSL', SASLTLS: 'SASL_SSL' },
    scramUsers: { [ALICE.username]: ALICE.password, [MALLORY.username]: MALLORY.password },
    settings: {
      'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      // Who comes without a name: the broker itself, and these tests.
      'super.users': 'User:ANONYMOUS',
      'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
      'listener.name.plain.sasl.enabled.mechanisms': 'PLAIN',
      ...signIn(['sasl', 'plain', 'sasltls']),
      'ssl.keystore.type': 'PKCS12',
      'ssl.keystore.location': keyStore,
      'ssl.keystore.password': STORE_PASSWORD,
      'socket.request.max.bytes': String(MAX_REQUEST_BYTES),
    },
  })
  try {
    await prepare(cluster)
  } catch (failure) {
    await cluster.stop()
    throw failure
  }
  const { port, ports } = cluster.nodes[0] as KafkaCluster['nodes'][number]
  const at = (of: number | undefined): string => `127.0.0.1:${of}`
  return {
    at: {
      PLAINTEXT: at(port),
      SASL: at(ports['SASL']),
      PLAIN: at(ports['PLAIN']),
      TLS: at(ports['TLS']),
      SASLTLS: at(ports['SASLTLS']),
    },
    certificate,
    async [Symbol.asyncDispose]() {
      await cluster.stop()
      rmSync(folder, { recursive: true })
    },
  }
}

const STORE_PASSWORD = 'of no use'

/** By Java's own tool, which is there wherever Kafka runs. */
function makeCertificate(folder: string): { keyStore: string; certificate: string } {
  const keyStore = join(folder, 'broker.p12')
  const keytool = (...args: string[]): void => {
    execFileSync('keytool', [...args, '-alias', 'broker', '-keystore', keyStore, '-storepass', STORE_PASSWORD], {
      stdio: 'pipe',
    })
  }
  const name = ['-dname', 'CN=broker', '-ext', 'san=ip:127.0.0.1']
  keytool('-genkeypair', '-storetype', 'PKCS12', '-keyalg', 'EC', '-groupname', 'secp256r1', '-validity', '2', ...name)
  const file = join(folder, 'broker.pem')
  keytool('-exportcert', '-rfc', '-file', file)
  return { keyStore, certificate: readFileSync(file, 'utf8') }
}

/** The modules by which each listener checks each mechanism. */
function signIn(listeners: readonly string[]): Record<string, string> {
  const modules = 'org.apache.kafka.common.security'
  const users = [ALICE, MALLORY].map(({ username, password }) => `user_${username}="${password}"`).join(' ')
  return Object.fromEntries(
    listeners.flatMap((listener) => [
      [
        `listener.name.${listener}.plain.sasl.jaas.config`,
        `${modules}.plain.PlainLoginModule required ${users};`,
      ] as const,
      ...['scram-sha-256', 'scram-sha-512'].map(
        (mechanism) =>
          [
            `listener.name.${listener}.${mechanism}.sasl.jaas.config`,
            `${modules}.scram.ScramLoginModule required;`,
          ] as const,
      ),
    ]),
  )
}

async function prepare(cluster: KafkaCluster): Promise<void> {
  const connection = await connected(cluster.bootstrapServers)
  const topics = ['open', 'closed'].map((name) => ({
    name,
    numPartitions: 1,
    replicationFactor: 1,
    assignments: [],
    configs: name === 'open' ? [{ name: 'max.message.bytes', value: String(2 * MAX_REQUEST_BYTES) }] : [],
  }))
  const rights = [
    [ResourceTypes.TOPIC, AclOperations.READ],
    [ResourceTypes.TOPIC, AclOperations.WRITE],
    [ResourceTypes.TOPIC, AclOperations.DESCRIBE_CONFIGS],
    [ResourceTypes.GROUP, AclOperations.READ],
  ] as const
  try {
    await createTopicsV7.api.async(connection, topics, 10_000, false)
    await createAclsV3.api.async(
      connection,
      rights.map(([resourceType, operation]) => ({
        resourceType,
        resourceName: 'open',
        resourcePatternType: ResourcePatternTypes.PREFIXED,
        principal: `User:${ALICE.username}`,
        host: '*',
        operation,
        permissionType: AclPermissionTypes.ALLOW,
      })),
    )
  } finally {
    await connection.close()
  }
}
