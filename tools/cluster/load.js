// The Node program of `cluster load`: npm's memcached spreads the keys over the servers by consistent hashing. It prints the same lines.
//   node load.js 127.0.0.1:11211 127.0.0.1:11212 127.0.0.1:11213 127.0.0.1:11214
'use strict'
const Memcached = require('memcached')

const askers = 8 // requests under way at most
const rewrite = 10 // one in so many requests is a set
const keys = 10000

// A server that fails is asked again after `retry` ms; until then requests for it fail at once. It is never taken out of the ring, for its keys are still there
// when it is back. With `remove: true` they would go to the others, and stale ones would come back later.
const client = new Memcached(process.argv.slice(2), { poolSize: askers, retries: 1, retry: 20, minTimeout: 20, maxTimeout: 50, failures: 1e9, remove: false })

// The client never calls back for what was under way when a server closed the connection, so each request has a limit of its own.
const limit = 5000

const call = (method, ...args) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error('no answer')), limit)
  client[method](...args, (err, result) => {
    clearTimeout(timer)
    err ? reject(err instanceof Error ? err : new Error(err)) : resolve(result)
  })
})

// What may be stored under a key: the version that was acknowledged last, or one that was tried since and failed.
const known = Array.from({ length: keys }, () => ({ acknowledged: 0, tried: 0 }))
const value = (i, version) => `key-${i} version ${version}`
const counts = { failed: 0, missed: 0, wrong: 0 }
let interrupted = false

function tell (what, i, more = '') {
  counts[what]++
  console.log(`${what} key-${i}${more}`)
}

async function set (i) {
  const k = known[i]
  const version = ++k.tried
  await call('set', `key-${i}`, value(i, version), 0)
  k.acknowledged = version
}

async function get (i) {
  const got = await call('get', `key-${i}`)
  const k = known[i]
  if (got === undefined) return tell('missed', i)
  for (let version = k.acknowledged; version <= k.tried; version++) if (got === value(i, version)) return
  tell('wrong', i, `: ${got}, want version ${k.acknowledged} to ${k.tried}`)
}

// each calls f for every key, each key in one asker.
const each = f => Promise.all(Array.from({ length: askers }, async (_, a) => {
  for (let i = a; i < keys && !interrupted; i += askers) await f(i)
}))

async function main () {
  await each(set)
  console.log(`stored ${keys} keys`)
  for (let round = 1; !interrupted; round++) {
    const before = { ...counts }
    await each(i => ((i + round) % rewrite === 0 ? set(i) : get(i)).catch(err => tell('failed', i, `: ${err.message}`)))
    console.log(`round ${round}: ${counts.failed - before.failed} failed, ${counts.missed - before.missed} missed, ${counts.wrong - before.wrong} wrong`)
  }
}

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => { interrupted = true })
main().then(() => process.exit(counts.missed + counts.wrong > 0 ? 1 : 0), err => {
  console.error(err)
  process.exit(1)
})
