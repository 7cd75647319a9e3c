/** The tests that need a real Kafka, as `npm run test:kafka` runs them. */
import type { ViteUserConfig } from 'vitest/config'

/** Clusters, by `;`. */
const clusters = (process.env['KAFKA_BOOTSTRAP_SERVERS'] ?? '').split(';').length

const config: ViteUserConfig = {
  test: {
    include: ['test/kafka/**/*.test.ts'],
    globalSetup: ['test/kafka/setup.ts'],
    // Each worker has a cluster for itself: some files begin by deleting everything in it.
    maxWorkers: clusters,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    unstubEnvs: true,
  },
}

export default config
