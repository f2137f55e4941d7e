// The surface of npm's memcache-client, the one of the three Node clients that speaks TLS: in plain text, over TLS, with a certificate of its own.
'use strict'
const fs = require('fs')
const { MemcacheClient } = require('memcache-client')
const { ok, is, run, env } = require('./check.js')

// failure returns the message of what a promise is rejected with.
async function failure (promise) {
  try {
    await promise
  } catch (err) {
    return String(err.message || err)
  }
  return ''
}

async function surface (name, options) {
  const c = new MemcacheClient({ cmdTimeout: 20000, connectTimeout: 20000, ...options })
  const claim = text => `${name}: ${text}`
  const value = async key => {
    const r = await c.get(key)
    return r && r.value
  }
  await c.cmd('flush_all')
  for (const [what, v] of [['text', 'value'], ['a number', 17], ['an object', { a: [1, 'two'] }], ['protocol words', 'a\r\nEND\r\nb'], ['900 KiB', 'v'.repeat(900 << 10)]]) {
    is(claim('set takes ' + what), await c.set('value', v), ['STORED'])
    is(claim(`get gives ${what} back`), await value('value'), v)
  }
  is(claim('set takes all bytes'), await c.set('bytes', Buffer.from([...Array(256).keys()])), ['STORED'])
  is(claim('get gives all bytes back'), await value('bytes'), Buffer.from([...Array(256).keys()]))
  is(claim('get of a missing key'), await c.get('missing'), undefined)
  is(claim('replace of a missing key'), await failure(c.replace('k', 'no')), 'NOT_STORED')
  is(claim('append to a missing key'), await failure(c.append('k', 'no')), 'NOT_STORED')
  is(claim('prepend to a missing key'), await failure(c.prepend('k', 'no')), 'NOT_STORED')
  is(claim('add of a new key'), await c.add('k', 'one'), ['STORED'])
  is(claim('add of an existing key'), await failure(c.add('k', 'two')), 'NOT_STORED')
  is(claim('replace'), await c.replace('k', 'three'), ['STORED'])
  is(claim('append'), await c.append('k', '-end'), ['STORED'])
  is(claim('prepend'), await c.prepend('k', 'start-'), ['STORED'])
  const got = await c.gets('k')
  is(claim('gets'), got.value, 'start-three-end')
  is(claim('cas with the current id'), await c.cas('k', 'four', { casUniq: got.casUniq }), ['STORED'])
  is(claim('cas with an old id'), await failure(c.cas('k', 'five', { casUniq: got.casUniq })), 'EXISTS')
  is(claim('the value of the first cas'), await value('k'), 'four')
  is(claim('touch'), await c.touch('k', 600), ['TOUCHED'])
  is(claim('touch of a missing key'), await failure(c.touch('none', 600)), 'NOT_FOUND')
  is(claim('set of a counter'), await c.set('n', '10'), ['STORED'])
  is(claim('incr'), await c.incr('n', 5), '15')
  is(claim('decr'), await c.decr('n', 3), '12')
  is(claim('incr of a missing key'), await failure(c.incr('none', 5)), 'NOT_FOUND')
  is(claim('delete'), await c.delete('k'), ['DELETED'])
  is(claim('delete of a missing key'), await failure(c.delete('k')), 'NOT_FOUND')
  is(claim('set without reply'), await c.set('quiet', 'q', { noreply: true }), undefined)
  is(claim('is done'), await value('quiet'), 'q')
  await c.set('short', 'x', { lifetime: -1 })
  is(claim('a lifetime that is over'), await value('short'), undefined)
  const keys = [...Array(500).keys()].map(i => 'many' + i)
  is(claim('500 sets at once'), (await Promise.all(keys.map(k => c.set(k, k)))).every(r => r[0] === 'STORED'), true)
  const many = await c.get([...keys, 'missing'])
  is(claim('a multiget of them'), keys.every(k => many[k].value === k) && Object.keys(many).length, 500)
  ok(claim('version'), /^\d+\.\d+\.\d+$/.test((await c.version())[1] || (await c.version())[0]), await c.version())
  const settings = await c.cmd('stats settings')
  is(claim('ssl_enabled'), settings.STAT.find(row => row[0] === 'ssl_enabled')[1], options.tls ? 'yes' : 'no')
  c.shutdown()
}

run(async () => {
  const ca = fs.readFileSync(env.TLS_CA)
  const own = { cert: fs.readFileSync(env.TLS_CERT), key: fs.readFileSync(env.TLS_KEY) }
  await surface('plain', { server: env.SECOND })
  await surface('TLS', { server: env.TLS, tls: { ca } })
  await surface('TLS 1.2', { server: env.TLS, tls: { ca, maxVersion: 'TLSv1.2' } })
  await surface('TLS with a certificate', { server: env.MTLS, tls: { ca, ...own } })
  const fails = async (claim, options) => {
    const c = new MemcacheClient({ cmdTimeout: 5000, connectTimeout: 5000, ...options })
    c.on('connection-error', () => {})
    const why = await failure(c.get('k'))
    ok(claim, why !== '', why)
    c.shutdown()
  }
  await fails('a client that does not know the authority fails', { server: env.TLS, tls: {} })
  await fails('a plain client fails', { server: env.TLS })
  await fails('a client without a certificate fails where one is wanted', { server: env.MTLS, tls: { ca } })
  await fails('over TLS a plain server is none', { server: env.SECOND, tls: { ca } })
})
