// The whole surface of npm's memcached: text protocol, pooled connections, a hash ring.
'use strict'
const { isDeepStrictEqual } = require('util')
const Memcached = require('memcached')
const { ok, is, until, ask, watch, run, env } = require('./check')

// buffer is there for the client's own tests.
const allCalled = watch('Memcached.prototype', Memcached.prototype, ['buffer'])

// call returns [error, result] of a function that takes a callback.
const call = (client, f, ...args) => new Promise(resolve => client[f](...args, (err, result) => {
  // The client empties an array after the callback.
  resolve([err && String(err.message || err), Array.isArray(result) ? result.slice() : result])
}))

// good expects no error.
async function good (claim, want, client, f, ...args) {
  is(claim, await call(client, f, ...args), [undefined, want])
}

async function values (c) {
  for (const [what, value] of Object.entries({
    'a string': 'value',
    'an empty string': '',
    'line ends and protocol words': 'a\r\nb\nSTORED c',
    'characters of several bytes': 'grüße, 世界 🌍',
    'a number': 12.5,
    'a large number': 9007199254740991,
    'an object': { a: [1, null, 'x'], b: true },
    'an array': [1, 'two', { three: 3 }],
    'a truth': true,
    'null': null,
    'a Buffer': Buffer.from([0, 1, 13, 10, 127, 128, 255]),
    '100 KiB': 'x'.repeat(100 << 10)
  })) {
    await good(`set takes ${what}`, true, c, 'set', 'value', value, 0)
    // The client writes a Buffer's latin1 as UTF-8 and reads it back so.
    await good(`get gives ${what} back`, value, c, 'get', 'value')
  }
  await good('get of a missing key is undefined', undefined, c, 'get', 'missing')
}

async function storage (c) {
  await good('add of a new key', true, c, 'add', 'add', 'one', 0)
  is('add of an existing key is refused', await call(c, 'add', 'add', 'two', 0), ['Item is not stored', false])
  await good('and the value stays', 'one', c, 'get', 'add')
  await good('replace of an existing key', true, c, 'replace', 'add', 'three', 0)
  await good('replaces it', 'three', c, 'get', 'add')
  is('replace of a missing key is refused', await call(c, 'replace', 'none', 'x', 0), ['Item is not stored', false])
  await good('append', true, c, 'append', 'add', '-end')
  await good('prepend', true, c, 'prepend', 'add', 'start-')
  await good('append and prepend extend the value', 'start-three-end', c, 'get', 'add')
  is('append to a missing key is refused', await call(c, 'append', 'none', 'x'), ['Item is not stored', false])
  is('prepend to a missing key is refused', await call(c, 'prepend', 'none', 'x'), ['Item is not stored', false])

  const [err, first] = await call(c, 'gets', 'add')
  is('gets gives the value', [err, first.add], [undefined, 'start-three-end'])
  ok('and a CAS id of digits', /^\d+$/.test(first.cas), first.cas)
  await good('gets of a missing key is undefined', undefined, c, 'gets', 'missing')
  await good('cas with the current id', true, c, 'cas', 'add', 'four', first.cas, 0)
  await good('cas with an old id stores nothing', false, c, 'cas', 'add', 'five', first.cas, 0)
  await good('and the value is that of the first cas', 'four', c, 'get', 'add')
  const second = (await call(c, 'gets', 'add'))[1]
  ok('the CAS id has changed', second.cas !== first.cas, second)
  is('cas of a missing key', await call(c, 'cas', 'none', 'x', second.cas, 0), [undefined, false])

  await good('del of an existing key', true, c, 'del', 'add')
  await good('del of a missing key', false, c, 'del', 'add')
  await good('a deleted key is gone', undefined, c, 'get', 'add')
  await good('delete is del', false, c, 'delete', 'add')
}

async function counters (c) {
  await good('set of a counter', true, c, 'set', 'n', 10, 0)
  await good('incr', 15, c, 'incr', 'n', 5)
  await good('increment is incr', 16, c, 'increment', 'n', 1)
  await good('decr', 14, c, 'decr', 'n', 2)
  await good('decrement stops at zero', 0, c, 'decrement', 'n', 100)
  await good('a counter keeps the flags of a number', 0, c, 'get', 'n')
  await good('incr of a missing key is false', false, c, 'incr', 'none', 1)
  await good('decr of a missing key is false', false, c, 'decr', 'none', 1)
  await good('set of a word', true, c, 'set', 'word', 'abc', 0)
  const [err, result] = await call(c, 'incr', 'word', 1)
  ok('incr of a word is an error', /non-numeric/.test(err), [err, result])
}

async function lifetimes (c) {
  await good('set with a lifetime', true, c, 'set', 'brief', 'x', 1)
  await good('touch of an existing key', true, c, 'touch', 'brief', 600)
  await good('touch of a missing key', false, c, 'touch', 'missing', 1)
  await good('set with another lifetime', true, c, 'set', 'gone', 'x', 1)
  await until('it expires', async () => (await call(c, 'get', 'gone'))[1] === undefined)
  await good('the touched one does not', 'x', c, 'get', 'brief')
  await good('touch with -1', true, c, 'touch', 'brief', -1)
  await good('expires at once', undefined, c, 'get', 'brief')
  await good('set with a time of day ahead', true, c, 'set', 'brief', 'y', Math.floor(Date.now() / 1000) + 600)
  await good('is there', 'y', c, 'get', 'brief')
  await good('set with a time of day gone by', true, c, 'set', 'brief', 'y', Math.floor(Date.now() / 1000) - 600)
  await good('is gone', undefined, c, 'get', 'brief')
}

async function keys (c) {
  const long = 'k'.repeat(250)
  await good('set of a key of 250 bytes', true, c, 'set', long, 'long', 0)
  await good('get of a key of 250 bytes', 'long', c, 'get', long)
  const longer = 'k'.repeat(300)
  await good('a longer key is hashed by the client', true, c, 'set', longer, 'longer', 0)
  await good('and found', 'longer', c, 'get', longer)
  ok('a key with a blank is refused', /whitespace/.test((await call(c, 'set', 'a b', 'x', 0))[0]))

  const raw = new Memcached(env.MAIN, { keyCompression: false, maxKeySize: 1000 })
  const [err] = await call(raw, 'set', longer, 'x', 0)
  ok('without that the server refuses it', /^(CLIENT_ERROR )?(bad command line format|bad data chunk)|Unknown response/.test(err), err)
  raw.end()
  const short = new Memcached(env.MAIN, { keyCompression: false })
  ok('or the client', /longer than the maximum/.test((await call(short, 'get', longer))[0]))
  short.end()

  await good('a key of several bytes a character', true, c, 'set', 'ключ', 'utf8', 0)
  await good('is found', 'utf8', c, 'get', 'ключ')

  const named = new Memcached(env.MAIN, { namespace: 'space:' })
  await good('set in a namespace', true, named, 'set', 'k', 'in', 0)
  await good('get in a namespace', 'in', named, 'get', 'k')
  await good('the namespace is a prefix', 'in', c, 'get', 'space:k')
  await good('getMulti in a namespace gives names without it', { k: 'in' }, named, 'getMulti', ['k', 'missing'])
  named.end()
}

async function large (c) {
  const value = 'v'.repeat(900 << 10)
  await good('set of 900 KiB', true, c, 'set', 'large', value, 0)
  const [err, got] = await call(c, 'get', 'large')
  ok('get of 900 KiB', err === undefined && got === value, [err, got && got.length])
  ok('the client refuses what is above maxValue', /greater than/.test((await call(c, 'set', 'large', 'v'.repeat(1 << 21), 0))[0]))
  // A SERVER_ERROR is an issue of the server to this client: false, and none of its requests for `retry` ms.
  const eager = new Memcached(env.MAIN, { maxValue: 8 << 20, poolSize: 1, retry: 20, failures: 1000 })
  let issue
  eager.on('issue', details => { issue = details.messages.slice() })
  await good('the server refuses what is above -I', false, eager, 'set', 'large', 'v'.repeat(2 << 20), 0)
  is('in these words', issue, ['object too large for cache'])
  await until('after that it is served again', async () => (await call(eager, 'version'))[0] === undefined)
  await good('the refused value has taken the old one with it', undefined, eager, 'get', 'large')
  await good('small values are stored', true, eager, 'set', 'small', 'x', 0)
  eager.end()
}

async function many (c) {
  const want = {}
  for (let i = 0; i < 200; i++) want['many' + i] = 'value ' + i
  const stored = await Promise.all(Object.entries(want).map(([k, v]) => call(c, 'set', k, v, 0)))
  ok('200 sets at once over the pool', stored.every(r => r[1] === true), stored)
  await good('getMulti of 200 keys, and missing ones', want, c, 'getMulti', [...Object.keys(want), 'missing1', 'missing2'])
  await good('get of an array is getMulti', { many1: 'value 1', many2: 'value 2' }, c, 'get', ['many1', 'many2'])
  await good('getMulti of missing keys is empty', {}, c, 'getMulti', ['missing1', 'missing2'])
  await good('a counter for the pool', true, c, 'set', 'sum', 0, 0)
  await Promise.all([...Array(500)].map(() => call(c, 'incr', 'sum', 1)))
  await good('500 incr over the pool are 500', 500, c, 'get', 'sum')
}

async function server (c) {
  const [, [version]] = await call(c, 'version')
  is('version names the server', version.server, env.MAIN)
  ok('version has three numbers', /^\d+\.\d+\.\d+$/.test(version.version), version)
  const [, [stats]] = await call(c, 'stats')
  ok('stats has the counters', ['pid', 'uptime', 'curr_items', 'cmd_get', 'cmd_set', 'get_hits', 'bytes', 'limit_maxbytes', 'evictions', 'threads']
    .every(k => typeof stats[k] === 'number'), stats)
  ok('stats counts', stats.cmd_set > 100 && stats.get_hits > 10 && stats.curr_items > 100, stats)
  for (const name of ['settings', 'statsSettings']) {
    const [, [settings]] = await call(c, name)
    is(`${name} has -m, -t and the size limit`, [settings.maxbytes, settings.num_threads, settings.item_size_max], [64 << 20, 2, 1 << 20])
  }
  for (const name of ['slabs', 'statsSlabs']) {
    const [, [slabs]] = await call(c, name)
    const classes = Object.keys(slabs).filter(k => /^\d+$/.test(k))
    ok(`${name} has classes`, classes.length > 0 && classes.every(k => slabs[k].chunk_size > 0 && slabs[k].used_chunks >= 0), slabs)
  }
  let items
  for (const name of ['items', 'statsItems']) {
    [, [items]] = await call(c, name)
    const classes = Object.keys(items).filter(k => /^\d+$/.test(k))
    ok(`${name} has classes`, classes.length > 0 && classes.every(k => items[k].number > 0), items)
  }
  // Only COLD is dumped; the maintainer brings items there.
  await until('cachedump lists items with their sizes', async () => {
    for (const id of Object.keys(items).filter(k => /^\d+$/.test(k))) {
      const [, dump] = await call(c, 'cachedump', env.MAIN, +id, 1000)
      const found = [].concat(dump).find(i => i && /^many\d$/.test(i.key))
      if (found) return found.b === 'value 7'.length
    }
  })
}

async function flush (c) {
  is('flush', await call(c, 'flush'), [undefined, [true]])
  await good('after flush nothing is there', {}, c, 'getMulti', ['many1', 'many2', 'n'])
  is('flushAll', await call(c, 'flushAll'), [undefined, [true]])
}

async function transports () {
  const unix = new Memcached(env.UNIX + ':11211')
  await good('set over a unix socket', true, unix, 'set', 'k', 'unix', 0)
  await good('get over a unix socket', 'unix', unix, 'get', 'k')
  unix.end()
}

async function ring () {
  const servers = [env.MAIN, env.SECOND, env.THIRD]
  const weights = { [env.MAIN]: 1, [env.SECOND]: 2, [env.THIRD]: 3 }
  const single = servers.map(s => new Memcached(s))
  let round = 0
  for (const [what, where, options] of [['a list', servers, {}], ['weights', weights, {}], ['another algorithm', servers, { algorithm: 'sha1', compatibility: 'hash_ring' }]]) {
    const c = new Memcached(where, options)
    is(`${what}: flush reaches all three`, await call(c, 'flush'), [undefined, [true, true, true]])
    const want = {}
    round++
    for (let i = 0; i < 90; i++) want[`ring${round}-${i}`] = i
    for (const [k, v] of Object.entries(want)) await call(c, 'set', k, v, 0)
    await good(`${what}: getMulti collects from all`, want, c, 'getMulti', Object.keys(want))
    const shares = []
    for (const s of single) shares.push(Object.keys((await call(s, 'getMulti', Object.keys(want)))[1]).length)
    ok(`${what}: each server has a share, together all`, shares.every(n => n > 0) && shares.reduce((a, b) => a + b) === 90, shares)
    is(`${what}: version and stats of all`, [(await call(c, 'version'))[1].length, (await call(c, 'stats'))[1].length], [3, 3])
    c.end()
  }
  // With redundancy, incr, decr and del go to more servers, with noreply. The client asks its ring for that by a name of an earlier ring.
  const twice = new Memcached(servers, { redundancy: 2 })
  twice.HashRing.createRange = twice.HashRing.range
  const everywhere = async want => isDeepStrictEqual(await Promise.all(single.map(async s => (await call(s, 'get', 'twice'))[1])), want)
  for (const s of single) await good('set on each server', true, s, 'set', 'twice', 10, 0)
  await good('incr with redundancy', 15, twice, 'incr', 'twice', 5)
  await until('goes to all', () => everywhere([15, 15, 15]))
  await good('decr with redundancy', 14, twice, 'decr', 'twice', 1)
  await until('goes to all', () => everywhere([14, 14, 14]))
  await good('del with redundancy', true, twice, 'del', 'twice')
  await until('goes to all', () => everywhere([undefined, undefined, undefined]))
  for (const client of [twice, ...single]) client.end()
}

async function restart () {
  // A server that failed too often is pinged with the machine's ping; before that it is just tried again.
  const c = new Memcached(env.MAIN, { retries: 1, retry: 20, failures: 1e6, timeout: 500, minTimeout: 20, maxTimeout: 50 })
  let issues = 0
  c.on('issue', () => issues++)
  const want = {}
  for (let i = 0; i < 100; i++) want['warm' + i] = { i }
  for (const [k, v] of Object.entries(want)) await call(c, 'set', k, v, 0)
  await good('set with a lifetime before the restart', true, c, 'set', 'warm-ttl', 'x', 600)
  const before = (await call(c, 'gets', 'warm1'))[1]
  await good('del before the restart', true, c, 'del', 'warm99')
  delete want.warm99
  await ask('stop')
  await until('a stopped server is an error', async () => (await call(c, 'get', 'warm1'))[0] !== undefined)
  await until('the client tells of the issue', async () => {
    await call(c, 'get', 'warm1')
    return issues > 0
  })
  await ask('start')
  await until('the client reconnects by itself', async () => (await call(c, 'version'))[0] === undefined)
  await good('the cache is warm', want, c, 'getMulti', [...Object.keys(want), 'warm99'])
  await good('what has a lifetime is there', 'x', c, 'get', 'warm-ttl')
  await good('a CAS id from before the restart fits', true, c, 'cas', 'warm1', 'new', before.cas, 0)
  await good('once', false, c, 'cas', 'warm1', 'newer', before.cas, 0)
  c.end()
}

async function failover () {
  const c = new Memcached([env.MAIN, env.SECOND], { remove: true, retries: 0, retry: 20, reconnect: 60000, timeout: 500, failures: 0, minTimeout: 20, maxTimeout: 50 })
  let removed
  c.on('remove', details => { removed = details.server })
  await ask('stop')
  await until('a dead server is removed from the ring', async () => {
    for (let i = 0; i < 20; i++) await call(c, 'set', 'failover' + i, i, 0)
    return removed === env.MAIN
  })
  for (let i = 0; i < 20; i++) await good(`the other takes key ${i}`, true, c, 'set', 'failover' + i, i, 0)
  await good('get from the other', 7, c, 'get', 'failover7')
  c.end()
  await ask('start')
}

run(async () => {
  const c = new Memcached(env.MAIN, { poolSize: 5, idle: 60000 })
  for (const part of [values, storage, counters, lifetimes, keys, large, many, server, flush]) await part(c)
  c.end()
  await transports()
  await ring()
  await restart()
  await failover()
  allCalled()
})
