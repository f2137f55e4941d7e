// What the Node scripts share; clients_test.go says what they must print.
'use strict'
const { isDeepStrictEqual, inspect } = require('util')
const readline = require('readline')

const env = process.env
let count = 0
let failed = 0

function ok (claim, holds, got) {
  count++
  if (holds) return console.log('ok ' + claim)
  failed++
  console.log(`FAILED ${claim}: ${inspect(got, { breakLength: Infinity, maxStringLength: 200 })}`)
}

function is (claim, got, want) {
  ok(claim, isDeepStrictEqual(got, want), { got, want })
}

// until waits for an event that nothing announces.
async function until (claim, holds) {
  const end = Date.now() + 20000
  while (Date.now() < end) {
    if (await holds()) return ok(claim, true)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  ok(claim, false, 'not within 20 s')
}

const answers = readline.createInterface({ input: process.stdin })
const waiting = []
answers.on('line', () => waiting.shift()())

// ask has the main server stopped or started.
function ask (what) {
  return new Promise(resolve => {
    waiting.push(resolve)
    console.log('@' + what)
  })
}

// watch notes which functions of an object are called. The returned function checks that all were, but for those named.
function watch (name, object, except) {
  const called = new Set()
  const all = Object.getOwnPropertyNames(object).filter(f => f !== 'constructor' && typeof object[f] === 'function')
  for (const f of all) {
    const original = object[f]
    object[f] = function () {
      called.add(f)
      return original.apply(this, arguments)
    }
  }
  return () => is(`every function of ${name} was called`, all.filter(f => !called.has(f) && !except.includes(f)), [])
}

// run ends the process with main: what a client has still under way, such as a timer for a dead server, does not hold it up. Should main never
// end, its last line is missing.
function run (main) {
  main().then(() => {
    console.log(`${count} checks` + (failed ? `, ${failed} failed` : ''))
    process.exit(failed ? 1 : 0)
  }, err => {
    console.log('FAILED with ' + inspect(err))
    process.exit(1)
  })
}

module.exports = { ok, is, until, ask, watch, run, env }
