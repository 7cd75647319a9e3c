import { fileURLToPath } from 'node:url'
import type { ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = {
  test: {
    include: ['test/**/*.test.ts'],
    // They need a real Kafka: npm run test:kafka.
    exclude: ['test/kafka/**'],
    // Two cores: more workers than that only make timing-sensitive servers wait for each other.
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 30_000,
    unstubEnvs: true,
    // Many tests start processes, of which each would compile the same sources again.
    env: { NODE_COMPILE_CACHE: fileURLToPath(new URL('node_modules/.cache/compile', import.meta.url)) },
  },
}

export default config
