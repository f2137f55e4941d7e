// The whole surface of npm's memjs: binary protocol, SASL, several servers.
'use strict'
const memjs = require('memjs')
const { ok, is, until, ask, watch, run, env } = require('./check')

const allCalled = [watch('Client.prototype', memjs.Client.prototype, []), watch('Server.prototype', memjs.Server.prototype, ['toString'])]

const logger = { log () {} }
const client = (where, options) => memjs.Client.create(where, Object.assign({ logger, timeout: 10, retries: 2, retry_delay: 0.02 }, options))
const text = r => r.value && r.value.toString()

// outcome is the result, or the message of the error.
const outcome = promise => promise.then(r => r, err => String(err.message || err))

// answers collects what comes once a server.
const answers = (n, f) => new Promise(resolve => {
  const all = []
  f((...args) => {
    all.push(args)
    if (all.length === n) resolve(all)
  })
})

async function values (c) {
  for (const [what, value] of Object.entries({
    'a string': 'value',
    'an empty string': '',
    'line ends': 'a\r\nb\r\n',
    'characters of several bytes': 'grüße, 世界 🌍',
    '900 KiB': 'v'.repeat(900 << 10)
  })) {
    is(`set takes ${what}`, await outcome(c.set('value', value, {})), true)
    ok(`get gives ${what} back`, text(await c.get('value')) === value)
  }
  const bytes = Buffer.from([...Array(256).keys()])
  is('set takes every byte', await c.set('bytes', bytes), true)
  is('get gives every byte back', (await c.get('bytes')).value, bytes)
  is('get of a missing key', await c.get('missing'), { value: null, flags: null })
  is('flags are four zero bytes', (await c.get('bytes')).flags, Buffer.alloc(4))

  const key = 'k'.repeat(250)
  is('set of a key of 250 bytes', await c.set(key, 'long'), true)
  is('get of a key of 250 bytes', text(await c.get(key)), 'long')
  // After that the server closes the connection, and this client lets what it asked meanwhile run into its timeout.
  const refused = client(env.MAIN)
  is('set of a key of 251 bytes is refused', await outcome(refused.set(key + 'k', 'x')), 'MemJS SET: Invalid arguments')
  await until('and the connection closed', () => refused.servers[0]._socket === undefined)
  is('set of a key with blanks and line ends', await c.set('a b\r\nget c\0d', 'odd key'), true)
  is('get of it', text(await c.get('a b\r\nget c\0d')), 'odd key')
  is('and not of a part', text(await c.get('a')), null)
}

async function tooLarge (c) {
  is('set', await c.set('large', 'old'), true)
  is('set of 2 MiB is refused', await outcome(c.set('large', Buffer.alloc(2 << 20))), 'MemJS SET: Value too large')
  is('and has taken the old value with it', text(await c.get('large')), null)
  is('add of 2 MiB is refused', await outcome(c.add('large2', Buffer.alloc(2 << 20))), 'MemJS ADD: Value too large')
}

async function storage (c) {
  is('add of a new key', await c.add('add', 'one', {}), true)
  is('add of an existing key', await c.add('add', 'two', {}), false)
  is('replace of an existing key', await c.replace('add', 'three', {}), true)
  is('replace of a missing key', await c.replace('none', 'x', {}), false)
  is('append', await c.append('add', '-end'), true)
  // This client's prepend sends the opcode of append.
  is('prepend', await c.prepend('add', '-again'), true)
  is('the value is extended', text(await c.get('add')), 'three-end-again')
  is('append to a missing key', await outcome(c.append('none', 'x')), 'MemJS APPEND: Item not stored')
  is('delete of an existing key', await c.delete('add'), true)
  is('delete of a missing key', await c.delete('add'), false)
  is('a deleted key is gone', text(await c.get('add')), null)
}

async function counters (c) {
  is('increment of a missing key stores the initial value', await c.increment('n', 5, { initial: 100 }), { success: true, value: 100 })
  is('increment', await c.increment('n', 5, {}), { success: true, value: 105 })
  is('decrement', await c.decrement('n', 6, {}), { success: true, value: 99 })
  is('the value is digits', text(await c.get('n')).trim(), '99')
  is('decrement stops at zero', await c.decrement('n', 1000, {}), { success: true, value: 0 })
  is('decrement of a missing key stores the initial value', await c.decrement('m', 1, { initial: 7 }), { success: true, value: 7 })
  is('the default initial value is 0', await c.increment('o', 3, {}), { success: true, value: 0 })
  is('set of a word', await c.set('word', 'abc'), true)
  is('increment of a word', await outcome(c.increment('word', 1, {})), 'MemJS INCREMENT: Incr/Decr on non-numeric value')
  is('decrement of a word', await outcome(c.decrement('word', 1, {})), 'MemJS DECREMENT: Incr/Decr on non-numeric value')
  is('increment that must not create', await outcome(c.increment('never', 1, { initial: 0, expires: 0xffffffff })), 'MemJS INCREMENT: Key not found')
}

async function lifetimes (c) {
  is('set with expires', await c.set('brief', 'x', { expires: 1 }), true)
  is('touch', await c.touch('brief', 600), true)
  is('touch of a missing key', await c.touch('missing', 600), false)
  is('add with expires', await c.add('gone', 'x', { expires: 1 }), true)
  is('increment with expires', await c.increment('goneToo', 1, { expires: 1 }), { success: true, value: 0 })
  is('replace with expires', await c.replace('gone', 'y', { expires: 1 }), true)
  await until('they expire', async () => text(await c.get('gone')) === null && text(await c.get('goneToo')) === null)
  is('the touched one does not', text(await c.get('brief')), 'x')
  const past = client(env.MAIN, { expires: Math.floor(Date.now() / 1000) - 600 })
  is('set with a default of a time gone by', await past.set('past', 'x', {}), true)
  is('is gone', text(await past.get('past')), null)
  past.close()
}

async function serializer () {
  const c = client(env.MAIN, {
    serializer: {
      serialize (opcode, value, extras) {
        if (opcode === 1) Buffer.from([0xde, 0xad, 0xbe, 0xef]).copy(extras)
        return { value: JSON.stringify(value), extras }
      },
      deserialize: (opcode, value, extras) => ({ value: JSON.parse(value), extras })
    }
  })
  is('set through a serializer', await c.set('object', { a: [1, 2] }), true)
  is('get through a serializer, with its flags', await c.get('object'), { value: { a: [1, 2] }, flags: Buffer.from([0xde, 0xad, 0xbe, 0xef]) })
  c.close()
}

// The calls with callbacks, old and new.
async function callbacks (c) {
  const call = (f, ...args) => new Promise(resolve => c[f](...args, (...result) => resolve(result)))
  const old = (f, ...args) => new Promise(resolve => {
    const at = args.indexOf('callback')
    args[at] = (...result) => resolve(result)
    c[f](...args)
  })
  is('set with a callback', await call('set', 'cb', 'x', {}), [null, true])
  is('get with a callback', (await call('get', 'cb')).map(b => b && b.toString('latin1')), [null, 'x', '\0\0\0\0'])
  is('get of a missing key with a callback', await call('get', 'missing'), [null, null, null])
  is('set in the old manner', await old('set', 'cb', 'y', 'callback', 600), [null, true])
  is('add in the old manner', await old('add', 'cb', 'z', 'callback', 600), [null, false])
  is('replace in the old manner', await old('replace', 'cb', 'z', 'callback', 600), [null, true])
  // The initial value of the old manner gets lost in the client.
  is('increment in the old manner', await old('increment', 'cbn', 1, 'callback', 600, 3), [null, true, 0])
  is('decrement in the old manner', await old('decrement', 'cbn', 1, 'callback', 600, 3), [null, true, 0])
  is('touch with a callback', await call('touch', 'cb', 600), [null, true])
  is('delete with a callback', await call('delete', 'cb'), [null, true])
  is('append with a callback', await call('append', 'cbn', '0'), [null, true])
  is('prepend with a callback', await call('prepend', 'cbn', '0'), [null, true])
  is('the callbacks came after the deeds', text(await c.get('cbn')), '000')
}

async function pipelined (c) {
  const n = 1000
  const stored = await Promise.all([...Array(n)].map((_, i) => c.set('pipe' + i, 'value ' + i, {})))
  ok('1000 sets without waiting', stored.every(r => r === true))
  const got = await Promise.all([...Array(n)].map((_, i) => c.get('pipe' + i)))
  ok('1000 gets without waiting, each with its own value', got.every((r, i) => text(r) === 'value ' + i))
}

async function server (c) {
  const [[err, name, stats]] = await answers(1, cb => c.stats(cb))
  is('stats names the server', [err, name], [null, env.MAIN])
  ok('stats counts', +stats.cmd_set > 100 && +stats.get_hits > 100 && +stats.curr_items > 100 && /^\d+\.\d+\.\d+$/.test(stats.version), stats)
  const [[, , settings]] = await answers(1, cb => c.statsWithKey('settings', cb))
  is('stats settings has -m, -t and the size limit', [settings.maxbytes, settings.num_threads, settings.item_size_max], ['67108864', '2', '1048576'])
  const [[, , slabs]] = await answers(1, cb => c.statsWithKey('slabs', cb))
  ok('stats slabs has classes', Object.keys(slabs).some(k => /^\d+:chunk_size$/.test(k)), slabs)
  const [[, , items]] = await answers(1, cb => c.statsWithKey('items', cb))
  ok('stats items has classes', Object.keys(items).some(k => /^items:\d+:number$/.test(k)), items)
  const [[unknown]] = await answers(1, cb => c.statsWithKey('nonsense', cb))
  is('stats of an unknown name', String(unknown && unknown.message), 'MemJS STATS (nonsense): Key not found')
  is('resetStats', (await answers(1, cb => c.resetStats(cb)))[0].slice(0, 2), [null, env.MAIN])
  const [[, , reset]] = await answers(1, cb => c.stats(cb))
  is('the counters start again', [reset.cmd_set, reset.get_hits], ['0', '0'])
  is('flush', await c.flush(), { [env.MAIN]: true })
  is('after flush nothing is there', text(await c.get('pipe1')), null)
}

async function several () {
  const servers = [env.MAIN, env.SECOND, env.THIRD]
  const c = client(servers.join(','))
  is('flush reaches all three', await c.flush(), Object.fromEntries(servers.map(s => [s, true])))
  for (let i = 0; i < 90; i++) await c.set('many' + i, 'value ' + i, {})
  let right = 0
  for (let i = 0; i < 90; i++) right += text(await c.get('many' + i)) === 'value ' + i
  is('all are found', right, 90)
  let total = 0
  for (const s of servers) {
    const one = client(s)
    let share = 0
    for (let i = 0; i < 90; i++) share += text(await one.get('many' + i)) !== null
    ok('each server has a share', share > 0, share)
    total += share
    one.close()
  }
  is('and together all', total, 90)
  is('stats of all', (await answers(3, cb => c.stats(cb))).map(a => a[1]).sort(), servers.slice().sort())
  c.getServer = () => 2
  await c.set('chosen', 'x', {})
  const third = client(env.THIRD)
  is('a server chosen by the caller', text(await third.get('chosen')), 'x')
  third.close()
  c.close()
}

async function sasl () {
  if (!env.SASL) return
  const good = client(env.SASL, { username: env.SASL_USER, password: env.SASL_PASSWORD })
  is('set with the password', await outcome(good.set('k', 'secret', {})), true)
  is('get with the password', text(await good.get('k')), 'secret')
  good.close()
  const inAddress = client(`${env.SASL_USER}:${env.SASL_PASSWORD}@${env.SASL}`)
  is('get with user and password in the address', text(await inAddress.get('k')), 'secret')
  inAddress.close()
  const wrong = client(env.SASL, { username: env.SASL_USER, password: 'wrong', retries: 1 })
  is('get with a wrong password', await outcome(wrong.get('k')), 'Memcached server authentication failed!')
  wrong.close()
  const none = client(env.SASL, { retries: 1 })
  // 0x20 is the status "authentication error", which the client takes for the end of an exchange of its own.
  is('get without a password', await outcome(none.get('k')), 'Memcached server authentication failed!')
  none.close()
}

async function restart () {
  const c = client(env.MAIN, { retries: 2, timeout: 2 })
  for (let i = 0; i < 100; i++) await c.set('warm' + i, Buffer.alloc(i * 50, i), { expires: 600 })
  await c.set('warm-n', '41', {})
  is('delete before the restart', await c.delete('warm99'), true)
  await ask('stop')
  ok('get from a stopped server is an error', /ECONNREFUSED|ECONNRESET|timed out/.test(await outcome(c.get('warm1'))))
  await ask('start')
  await until('the client reconnects by itself', async () => (await outcome(c.get('warm1'))).value)
  let right = 0
  for (let i = 0; i < 99; i++) {
    const { value } = await c.get('warm' + i)
    right += value && value.equals(Buffer.alloc(i * 50, i))
  }
  is('the cache is warm', right, 99)
  is('what was deleted stays so', text(await c.get('warm99')), null)
  is('a counter goes on', await c.increment('warm-n', 1, {}), { success: true, value: 42 })
  c.close()
}

async function failover () {
  const c = client(`${env.MAIN},${env.SECOND}`, { retries: 1, failover: true, failoverTime: 600, timeout: 2 })
  await ask('stop')
  for (let i = 0; i < 20; i++) is(`set of key ${i} finds the server that is left`, await outcome(c.set('over' + i, 'x', {})), true)
  const second = client(env.SECOND)
  is('it has all', (await Promise.all([...Array(20)].map((_, i) => second.get('over' + i)))).map(text), Array(20).fill('x'))
  second.close()
  c.close()
  await ask('start')
}

// quit ends the connection by the server's doing.
async function quit () {
  const c = client(env.MAIN)
  await c.set('k', 'before', {})
  c.quit()
  await until('quit closes the connection', () => c.servers[0]._socket === undefined)
  is('the next request opens another', text(await c.get('k')), 'before')
  c.close()
}

run(async () => {
  const c = client(env.MAIN)
  for (const part of [values, tooLarge, storage, counters, lifetimes, callbacks, pipelined, server]) await part(c)
  c.close()
  for (const part of [serializer, several, sasl, restart, failover, quit]) await part()
  if (env.SASL) allCalled.forEach(check => check())
})
