// A browser looks at hearthd's live page, with load behind it, and clicks through it. With SHOTS=DIR in the environment it leaves screenshots there.
'use strict'
const fs = require('fs')
const net = require('net')
const path = require('path')
const { chromium } = require('playwright-core')
const { ok, is, until, ask, run, env } = require('./check')

const url = `http://${env.HTTP}/`
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

// load keeps the server busy: sets of all sizes, which it has no room for, and gets of what may be there.
function load () {
  const [host, port] = env.MAIN.split(':')
  let n = 0
  let socket = null
  const timer = setInterval(() => {
    if (!socket) {
      socket = net.connect(Number(port), host).on('error', () => {}).on('close', () => { socket = null }).resume()
    }
    let batch = ''
    for (let i = 0; i < 60; i++, n++) {
      const size = 20 + (n * 7919) % 30000
      batch += `set key${n} 0 ${n % 3 ? 0 : 5} ${size} noreply\r\n${'x'.repeat(size)}\r\nget key${n} key${n - 500} none\r\n`
    }
    socket.write(batch)
  }, 50)
  return () => clearInterval(timer)
}

run(async () => {
  const stop = load()
  const browser = await chromium.launchPersistentContext(env.PROFILE, { executablePath: env.CHROMIUM, args: flags, viewport: { width: 1280, height: 900 }, colorScheme: 'light' })
  const page = await browser.newPage()
  const said = []
  const strangers = new Set()
  page.on('console', m => { if (m.type() === 'error' && !m.text().includes('ERR_CONNECTION_REFUSED') && !m.text().includes('ERR_CONNECTION_RESET') && !m.text().includes('ERR_EMPTY_RESPONSE')) said.push(m.text()) })
  page.on('pageerror', e => said.push(String(e)))
  page.on('request', r => { if (!r.url().startsWith(url) && !r.url().startsWith('data:')) strangers.add(r.url()) })
  const text = s => page.locator(s).first().textContent()
  const tile = name => text(`#tiles div:has(dt:text-is("${name}")) dd`)
  const row = name => text(`#restart-rows div:has(dt:text-is("${name}")) dd`)
  const line = () => page.locator('#charts figure').first().locator('path.s0').getAttribute('d')
  const shot = async name => { if (env.SHOTS) await page.screenshot({ path: path.join(env.SHOTS, name + '.png'), fullPage: true }) }
  const colours = () => page.evaluate(() => { // of the map, each with its number of pixels
    const c = document.getElementById('map')
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data
    const seen = {}
    for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 0) seen[d.slice(i, i + 4).join()] = (seen[d.slice(i, i + 4).join()] || 0) + 1
    return Object.values(seen).filter(n => n > 50).length
  })
  const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
  const accessible = async name => {
    if (!await page.evaluate('typeof axe !== "undefined"')) await page.evaluate(axe)
    const found = (await page.evaluate('axe.run()')).violations.map(v => `${v.impact} ${v.id}: ${v.nodes[0].html}`)
    is(`axe-core finds nothing: ${name}`, found, [])
    ok(`nothing sticks out: ${name}`, await page.evaluate('document.documentElement.scrollWidth <= innerWidth'))
  }

  await page.goto(url)
  await page.evaluate('window.sameDocument = true')
  await until('the page is live', async () => await text('#state') === 'live')
  await until('requests are counted', async () => parseFloat(await tile('Requests a second')) > 0)
  await until('and evictions', async () => parseFloat(await tile('Evictions a second')) > 0)
  await until('a chart has a line of some points', async () => ((await line()) || '').split('L').length > 3)
  const before = await line()
  await until('which moves', async () => await line() !== before)
  ok('without reloading', await page.evaluate('window.sameDocument'))
  for (const title of await page.locator('#charts figure').evaluateAll(fs => fs.map(f => f.querySelector('svg').getAttribute('aria-label')))) {
    await until(`a chart has a line under load: ${title.split(',')[0]}`, () => page.locator('#charts figure').evaluateAll((fs, title) =>
      fs.some(f => f.querySelector('svg').getAttribute('aria-label').startsWith(title) && [...f.querySelectorAll('path:not(.grid)')].some(p => p.getAttribute('d').length > 20)), title.split(',')[0]))
  }
  await until('the map has the colours of several classes', async () => await colours() > 5)
  ok('its legend names them', (await text('#map-legend')).includes('pages'))
  ok('its text tells the pages', /^\d+ pages of 1 MiB: \d+ in \d+ classes/.test(await text('#map-text')), await text('#map-text'))

  await page.getByRole('button', { name: 'Items' }).click()
  is('a click on a column sorts by it', await page.locator('th[aria-sort=descending]').count(), 1)
  const numbers = () => page.locator('#table tbody tr td:nth-child(4)').evaluateAll(cells => cells.map(c => parseFloat(c.textContent)))
  const falling = await numbers()
  is('from the most', falling, [...falling].sort((a, b) => b - a))
  await page.getByRole('button', { name: 'Items' }).click()
  is('a second click turns it', await page.locator('th[aria-sort=ascending]').count(), 1)
  await page.locator('#table tbody th button').last().click()
  is('a click on a class chooses it', [await page.locator('#table tr.chosen').count(), await page.locator('#table button[aria-pressed=true]').count()], [1, 1])
  await page.locator('#table button[aria-pressed=true]').click()
  is('and another one lets it go', await page.locator('#table tr.chosen').count(), 0)

  await page.selectOption('#span', '900')
  ok('the charts show as much as was chosen', (await text('#charts .axis span')).startsWith('15 min'))
  await page.selectOption('#span', '60')

  await page.locator('#pause').focus()
  await page.keyboard.press('Enter')
  is('the pause button, by keyboard', [await text('#state'), await page.locator('#pause').getAttribute('aria-pressed')], ['paused', 'true'])
  const [still, uptime] = [await line(), (await (await fetch(url + 'stats.json')).json()).stats.uptime]
  await until('time passes', async () => (await (await fetch(url + 'stats.json')).json()).stats.uptime >= uptime + 2)
  is('nothing moves meanwhile', await line(), still)
  await page.locator('#pause').click()
  await until('and then it does', async () => await line() !== still)

  await accessible('light')
  await shot('light')
  const back = () => page.evaluate('getComputedStyle(document.body).backgroundColor')
  const light = await back()
  await page.emulateMedia({ colorScheme: 'dark' })
  ok('dark where the system is', await back() !== light, await back())
  await accessible('dark')
  await shot('dark')
  await page.selectOption('#theme', 'light')
  is('light where that was chosen', await back(), light)
  await page.selectOption('#theme', '')
  await page.emulateMedia({ colorScheme: 'light' })
  await page.selectOption('#theme', 'dark')
  ok('dark where that was chosen', await back() !== light)
  await page.selectOption('#theme', '')
  await page.setViewportSize({ width: 360, height: 800 })
  await accessible('narrow')
  await shot('narrow')
  await page.setViewportSize({ width: 1280, height: 900 })

  is('the start was cold', await row('Kind'), 'cold')
  await ask('stop')
  await until('the page tells that nobody answers', async () => (await text('#state')).startsWith('no answer'))
  await shot('gone')
  await ask('start')
  await until('and when somebody does again', async () => (await text('#state')).startsWith('live'))
  await until('the restart and why it was warm', async () => await row('Kind') === 'warm, after a kill')
  ok('what it kept', parseFloat(await row('Items kept')) > 0, await row('Items kept'))
  await until('it is marked in the charts', async () => await page.locator('#charts path.mark').count() > 0)
  await until('whose lines go on', async () => parseFloat(await tile('Requests a second')) > 0)
  await accessible('after a restart')
  await shot('restarted')
  ok('all that without reloading', await page.evaluate('window.sameDocument'))
  is('nothing was loaded from elsewhere', [...strangers], [])
  is('no errors in the console', said, [])
  stop()
  await browser.close()
})
