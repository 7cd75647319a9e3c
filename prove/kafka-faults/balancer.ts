/** A dumb balancer before gateways: it knows nothing of who is there. */

/** A `fetch` that sends each request to the next of the addresses, whether anything is there or not. */
export function roundRobin(urls: readonly string[]): typeof globalThis.fetch {
  let turn = 0
  return async (input, init) => {
    const { pathname, search } = new URL(input instanceof Request ? input.url : input)
    turn += 1
    return await fetch(`${urls[turn % urls.length]}${pathname}${search}`, init)
  }
}
