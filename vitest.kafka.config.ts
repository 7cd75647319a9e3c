/** The tests that need a real Kafka, as `npm run test:kafka` runs them. */
import type { ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = {
  test: {
    include: ['test/kafka/**/*.test.ts'],
    globalSetup: ['test/kafka/setup.ts'],
    // One cluster serves all files, and some begin by deleting everything in it.
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    unstubEnvs: true,
  },
}

export default config
