// The live page: fetches stats.json once a second and draws what changed since the fetch before. Nothing is kept anywhere but in this tab.
"use strict";

const $ = id => document.getElementById(id);
const every = 1000, keep = 900, pageBytes = 1 << 20, mapCells = 4096;
const svgNS = "http://www.w3.org/2000/svg";

let history = [];     // points, oldest first: {at, restarted, and a number for each series}
let last = null;      // the last reply, and when it came
let paused = false;
let chosen = null;    // the slab class that stands out in the map
let order = {key: "id", down: false};

// el makes an element with attributes and children; text is never read as HTML.
function el(name, attrs = {}, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}

function number(n) {
  if (!Number.isFinite(n)) return "–";
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e4]]) if (n >= size) return (n / (unit === "k" ? 1e3 : size)).toFixed(n >= 10 * size ? 0 : 1) + " " + unit;
  return n >= 100 || Number.isInteger(n) ? Math.round(n).toString() : n.toFixed(n >= 10 ? 1 : 2);
}
function bytes(n) {
  if (!Number.isFinite(n)) return "–";
  let unit = "B";
  for (const u of ["KiB", "MiB", "GiB", "TiB"]) if (n >= 1024) { n /= 1024; unit = u; }
  return (unit === "B" || n >= 100 ? Math.round(n) : n.toFixed(1)) + " " + unit;
}
function seconds(n) {
  if (!Number.isFinite(n)) return "–";
  if (n === 0) return "0 s";
  if (n < 1e-3) return (n * 1e6).toFixed(0) + " µs";
  if (n < 1) return (n * 1e3).toFixed(n < 1e-2 ? 1 : 0) + " ms";
  if (n < 120) return n.toFixed(n < 10 && !Number.isInteger(n) ? 1 : 0) + " s";
  if (n < 7200) return (n / 60).toFixed(0) + " min";
  return n < 172800 ? (n / 3600).toFixed(1) + " h" : (n / 86400).toFixed(1) + " d";
}
const percent = n => Number.isFinite(n) ? (100 * n).toFixed(n > 0.995 && n < 1 ? 2 : 1) + " %" : "–";

// counts of requests by command, from plain stats.
const commands = {
  get: s => s.cmd_get,
  set: s => s.cmd_set,
  delete: s => s.delete_hits + s.delete_misses,
  "incr, decr": s => s.incr_hits + s.incr_misses + s.decr_hits + s.decr_misses,
  touch: s => s.cmd_touch,
};

// The charts: their series are fields of the points.
const charts = [
  {title: "Requests a second", format: number, series: Object.keys(commands).map(c => [c, "req " + c])},
  {title: "Hit ratio", format: percent, top: 1, series: [["hits of gets", "hit"]]},
  {title: "Latency in the server", format: seconds, series: [["half are faster", "p50"], ["99 of 100", "p99"], ["999 of 1000", "p999"]]},
  {title: "Memory given up, items a second", format: number, series: [["evicted", "evictions"], ["expired, reclaimed", "reclaimed"], ["by crawls", "crawled"]]},
  {title: "Age of what is evicted", format: seconds, series: [["oldest class", "oldest"], ["youngest class", "youngest"]]},
  {title: "Items", format: number, series: [["now", "items"]]},
  {title: "Connections", format: number, series: [["now", "conns"]]},
  {title: "Traffic, bytes a second", format: bytes, base: 1024, series: [["read", "in"], ["written", "out"]]},
  {title: "Processor, of one each", format: percent, series: []}, // filled when the workers are known
];

// buckets adds up the latency buckets of all commands: upper bound in seconds → requests.
function buckets(latency) {
  const sum = new Map();
  for (const rows of Object.values(latency || {})) {
    for (const [k, v] of Object.entries(rows)) {
      const m = /^under_(\d+)us$/.exec(k);
      if (m) sum.set(Number(m[1]) / 1e6, (sum.get(Number(m[1]) / 1e6) || 0) + v);
    }
  }
  return sum;
}

// quantile is the bound that the share q of what came between two sets of cumulative buckets is under.
function quantile(now, before, q) {
  const bounds = [...now.keys()].sort((a, b) => a - b), grown = bounds.map(b => now.get(b) - (before.get(b) || 0));
  const total = grown.at(-1);
  if (!(total > 0)) return NaN;
  let low = 0, under = 0;
  for (const [i, b] of bounds.entries()) {
    if (grown[i] >= q * total) return low + (b - low) * (q * total - under) / Math.max(grown[i] - under, 1);
    low = b; under = grown[i];
  }
  return bounds.at(-1);
}

// point is what the charts show of a reply, given the one before.
function point(now, before) {
  const s = now.reply.stats, p = {at: now.at, conns: s.curr_connections, items: s.curr_items};
  const ages = Object.values(now.reply.items).filter(c => c.evicted > 0).map(c => c.age); // COLD's end is what goes next
  if (ages.length) [p.oldest, p.youngest] = [Math.max(...ages), Math.min(...ages)];
  if (!before) return p;
  const o = before.reply.stats, dt = (now.at - before.at) / 1000;
  p.restarted = s.pid !== o.pid || s.uptime < o.uptime;
  if (p.restarted || dt > 5) return p;
  const rate = f => { const d = f(s) - f(o); return d >= 0 ? d / dt : NaN; }; // less than before: stats reset
  p.requests = 0;
  for (const [name, f] of Object.entries(commands)) {
    p["req " + name] = rate(f);
    p.requests += p["req " + name];
  }
  const gets = s.cmd_get - o.cmd_get;
  p.hit = gets > 0 ? (s.get_hits - o.get_hits) / gets : NaN;
  p.evictions = rate(s => s.evictions);
  p.reclaimed = rate(s => s.reclaimed);
  p.crawled = rate(s => s.crawler_reclaimed);
  p.in = rate(s => s.bytes_read);
  p.out = rate(s => s.bytes_written);
  const b = buckets(now.reply.latency), c = buckets(before.reply.latency);
  for (const [name, q] of [["p50", 0.5], ["p99", 0.99], ["p999", 0.999]]) p[name] = quantile(b, c, q);
  for (const [i, w] of Object.entries(now.reply.workers)) p["cpu " + i] = Math.max(0, w.cpu_us - (before.reply.workers[i]?.cpu_us ?? NaN)) / 1e6 / dt;
  return p;
}

// draw puts the series of a chart into its figure, which is made the first time.
function draw(c) {
  if (!c.figure) {
    c.svg = document.createElementNS(svgNS, "svg");
    c.svg.setAttribute("viewBox", "0 0 1000 100");
    c.svg.setAttribute("preserveAspectRatio", "none");
    c.svg.setAttribute("role", "img");
    c.topText = el("span");
    c.spanText = el("span");
    c.legend = el("ul", {class: "legend"});
    c.figure = el("figure", {}, el("figcaption", {}, c.title, c.topText), c.svg, el("div", {class: "axis"}, c.spanText, el("span", {}, "now")), c.legend);
    $("charts").append(c.figure);
  }
  const span = Number($("span").value), end = history.at(-1)?.at ?? 0, from = end - span * 1000;
  const shown = history.filter(p => p.at >= from);
  const top = c.top ?? nice(Math.max(0, ...c.series.flatMap(([, key]) => shown.map(p => p[key]).filter(Number.isFinite))), c.base);
  const x = at => (1000 * (at - from) / (span * 1000)).toFixed(1), y = v => (99 - 96 * v / top).toFixed(2);
  const lines = [["grid", "M0 51H1000"], ["grid", "M0 3H1000"]];
  for (const p of shown) if (p.restarted) lines.push(["mark", `M${x(p.at)} 0V100`]);
  for (const [i, [, key]] of c.series.entries()) {
    let d = "", pen = false;
    for (const p of shown) {
      const v = p[key];
      if (Number.isFinite(v)) d += (pen ? "L" : "M") + x(p.at) + " " + y(v) + (pen ? "" : "h0.1");
      pen = Number.isFinite(v);
    }
    lines.push(["s" + i % 8, d]);
  }
  c.svg.replaceChildren(...lines.map(([kind, d]) => {
    const path = document.createElementNS(svgNS, "path");
    path.setAttribute("class", kind);
    path.setAttribute("d", d);
    return path;
  }));
  c.topText.textContent = "0 to " + c.format(top);
  c.spanText.textContent = seconds(span) + " ago";
  const now = c.series.map(([name, key]) => name + " " + c.format(history.at(-1)?.[key]));
  c.svg.setAttribute("aria-label", `${c.title}, the last ${seconds(span)}. Now: ${now.join(", ")}`);
  c.legend.replaceChildren(...now.map((text, i) => el("li", {}, el("span", {class: "key s" + i % 8}), text)));
}

// nice is the next round number from n on, for the top of a scale.
function nice(n, base = 10) {
  if (!(n > 0)) return 1;
  if (base === 1024) return 2 ** Math.ceil(Math.log2(n));
  const ten = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map(f => f * ten).find(f => f >= n);
}

function list(dl, rows) {
  dl.replaceChildren(...rows.filter(Boolean).map(([name, text, small]) => el("div", {}, el("dt", {}, name), el("dd", {}, text, ...(small ? [el("small", {}, small)] : [])))));
}

function tiles(s, p) {
  list($("tiles"), [
    ["Requests a second", number(p.requests), "gets, sets and the like"],
    ["Hit ratio", percent(p.hit), `${percent(s.get_hits / s.cmd_get)} since the start`],
    ["Latency", seconds(p.p99), "99 of 100 are faster"],
    ["Memory", percent(s.bytes / s.limit_maxbytes), `${bytes(s.bytes)} of ${bytes(s.limit_maxbytes)}`],
    ["Items", number(s.curr_items), `${bytes(s.bytes / s.curr_items)} each`],
    ["Evictions a second", number(p.evictions), `${number(s.evictions)} since the start`],
    ["Connections", number(s.curr_connections), `of ${number(s.max_connections)}${s.accepting_conns ? "" : ", accepting none"}`],
    ["Up for", seconds(s.uptime), `pid ${s.pid}`],
    s.corrupt_items > 0 && ["Corrupt items", number(s.corrupt_items), "answered as misses"],
  ]);
}

function restart(s) {
  list($("restart-rows"), [
    ["Kind", {cold: "cold", clean: "warm, after a clean stop", unclean: "warm, after a kill"}[s.restart_kind] ?? s.restart_kind],
    ["Reason", String(s.restart_reason)],
    ["Items kept", number(s.restart_items) + (s.restart_sweeping ? " so far" : "")],
    ["From opening the file to serving", seconds(s.restart_attach_us / 1e6)],
    ["Sweep", s.restart_sweeping ? "goes on" : s.restart_kind === "unclean" ? seconds(s.restart_sweep_ms / 1e3) : "none was needed"],
    ["Items found damaged", number(s.corrupt_items)],
    ["Index", `${bytes(s.index_bytes)}, ${percent(s.index_load)} full${s.hash_is_expanding ? ", changing its size" : ""}`],
  ]);
}

const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark" ||
  getComputedStyle(document.documentElement).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches;
const colour = id => `hsl(${(id * 137.5) % 360} ${dark() ? "60% 62%" : "62% 44%"})`;

// map draws a cell for each page, or for several when there are more than fit, in the order of the classes.
function map(r) {
  const classes = Object.entries(r.slabs).map(([id, c]) => ({id: Number(id), pages: c.total_pages, size: c.chunk_size})).sort((a, b) => a.id - b.id);
  const pool = r.stats.slab_global_page_pool, used = classes.reduce((n, c) => n + c.pages, 0);
  const total = Math.max(Math.round(r.stats.limit_maxbytes / pageBytes), used + pool), each = Math.max(1, Math.ceil(total / mapCells));
  const canvas = $("map"), box = canvas.getBoundingClientRect(), scale = devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  const cells = Math.ceil(total / each), w = Math.round(box.width * scale), most = 144 * scale; // most is the height that cells shrink for
  let size = Math.min(28 * scale, Math.max(2, Math.floor(Math.sqrt(w * most / cells))));
  while (size > 2 && Math.ceil(cells / Math.floor(w / size)) * size > most) size--;
  const columns = Math.max(1, Math.floor(w / size)), h = Math.ceil(cells / columns) * size;
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.height = h / scale + 2 + "px"; // its border
  }
  const gap = size > 4 ? Math.max(1, Math.round(size / 12)) : 0, g = canvas.getContext("2d");
  g.clearRect(0, 0, w, h);
  let c = 0, left = classes[0]?.pages ?? 0;
  for (let i = 0; i < cells; i++) {
    const page = i * each;
    while (c < classes.length && page >= left) left += classes[++c]?.pages ?? 0;
    const x = (i % columns) * size, y = Math.floor(i / columns) * size;
    g.globalAlpha = c < classes.length && chosen !== null && classes[c].id !== chosen ? 0.25 : 1;
    if (c < classes.length) {
      g.fillStyle = colour(classes[c].id);
      g.fillRect(x, y, size - gap, size - gap);
    } else {
      g.strokeStyle = style.getPropertyValue(page < used + pool ? "--quiet" : "--line");
      g.strokeRect(x + 0.5, y + 0.5, Math.max(1, size - gap - 1), Math.max(1, size - gap - 1));
    }
  }
  const text = `${number(total)} pages of 1 MiB: ${number(used)} in ${classes.length} classes, ${number(pool)} free again, ${number(total - used - pool)} never used` + (each > 1 ? `; a cell is ${each} pages.` : ".");
  $("map-text").textContent = text;
  canvas.setAttribute("aria-label", "Map of the pages by slab class. " + text);
  $("map-legend").replaceChildren(...classes.map(k => {
    const key = el("span", {class: "key"});
    key.style.background = colour(k.id);
    return el("li", {}, key, `${k.id}: ${bytes(k.size)}, ${number(k.pages)} ${k.pages === 1 ? "page" : "pages"}`);
  }));
}

// The columns of the table of classes: title, value to sort by, and text or an element.
const columns = [
  ["Class", r => r.id],
  ["Chunk", r => r.slab.chunk_size, r => bytes(r.slab.chunk_size)],
  ["Pages", r => r.slab.total_pages],
  ["Items", r => r.item.number ?? 0, r => number(r.item.number ?? 0)],
  ["Chunks used", r => r.slab.used_chunks / r.slab.total_chunks, r => percent(r.slab.used_chunks / r.slab.total_chunks)],
  ["HOT, WARM, COLD", r => r.item.number_hot ?? 0, segments],
  ["HOT age", r => r.item.age_hot ?? 0, r => seconds(r.item.age_hot)],
  ["WARM age", r => r.item.age_warm ?? 0, r => seconds(r.item.age_warm)],
  ["COLD age", r => r.item.age ?? 0, r => seconds(r.item.age)],
  ["Hits/s", r => r.hits ?? 0, r => number(r.hits)],
  ["Sets/s", r => r.sets ?? 0, r => number(r.sets)],
  ["Evicted/s", r => r.evicted ?? 0, r => number(r.evicted)],
];

function segments(r) {
  const parts = [["hot", r.item.number_hot], ["warm", r.item.number_warm], ["cold", r.item.number_cold], ["temp", r.item.number_temp]].filter(([, n]) => n > 0);
  const share = n => n / Math.max(1, r.item.number);
  const bar = el("div", {class: "bar", role: "img", "aria-label": parts.map(([name, n]) => `${name.toUpperCase()} ${percent(share(n))}`).join(", ") || "no items"});
  for (const [name, n] of parts) {
    const part = el("span", {class: name, title: `${name.toUpperCase()}: ${number(n)} items, ${percent(share(n))}`});
    part.style.width = 100 * share(n) + "%";
    bar.append(part);
  }
  return bar;
}

function table(now, before) {
  const rate = (f, id) => {
    const o = before && f(before.reply, id), d = f(now.reply, id) - o, dt = (now.at - before?.at) / 1000;
    return d >= 0 ? d / dt : NaN;
  };
  const rows = Object.entries(now.reply.slabs).map(([id, slab]) => ({
    id: Number(id), slab, item: now.reply.items[id] ?? {},
    hits: rate((r, id) => r.slabs[id]?.get_hits, id), sets: rate((r, id) => r.slabs[id]?.cmd_set, id), evicted: rate((r, id) => r.items[id]?.evicted ?? 0, id),
  }));
  const [, by] = columns.find(([title]) => title === order.key) ?? columns[0];
  rows.sort((a, b) => (order.down ? -1 : 1) * (by(a) - by(b)) || a.id - b.id);
  const body = $("table").tBodies[0], focused = body.contains(document.activeElement) ? document.activeElement.textContent : null;
  body.replaceChildren(...rows.map(r => {
    const pick = el("button", {type: "button", "aria-pressed": String(chosen === r.id), title: "Show only this class in the map"}, String(r.id));
    pick.onclick = () => { chosen = chosen === r.id ? null : r.id; show(); };
    const tr = el("tr", chosen === r.id ? {class: "chosen"} : {}, el("th", {scope: "row"}, pick));
    for (const [, value, text] of columns.slice(1)) tr.append(el("td", {}, text ? text(r) : String(value(r))));
    if (focused === pick.textContent) queueMicrotask(() => pick.focus());
    return tr;
  }));
}

function heads() {
  $("table").tHead.rows[0].replaceChildren(...columns.map(([title]) => {
    const up = order.key === title || order.key === "id" && title === "Class";
    const button = el("button", {type: "button"}, title + (up ? order.down ? " ▼" : " ▲" : ""));
    button.onclick = () => {
      order = {key: title, down: up ? !order.down : title !== "Class"};
      heads();
      show();
      [...$("table").tHead.querySelectorAll("button")].find(b => b.textContent.startsWith(title)).focus();
    };
    return el("th", {scope: "col", "aria-sort": up ? order.down ? "descending" : "ascending" : "none"}, button);
  }));
}

// show draws all of what is known.
function show() {
  if (!last) return;
  const r = last.reply, p = history.at(-1);
  $("version").textContent = r.stats.hearth_version;
  charts.at(-1).series = Object.keys(r.workers).map(i => ["worker " + i, "cpu " + i]);
  charts.forEach(draw);
  tiles(r.stats, p);
  map(r);
  table(last, last.before);
  restart(r.stats);
}

function state(text, bad) {
  if ($("state").textContent !== text) $("state").textContent = text; // it is read out when it changes
  $("state").classList.toggle("bad", !!bad);
}

async function step() {
  if (paused || document.hidden) return;
  try {
    const answer = await fetch("stats.json", {signal: AbortSignal.timeout(5 * every)});
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    const reply = await answer.json(), now = {reply, at: performance.now(), before: last};
    if (paused) return;
    if (last) last.before = null;
    history.push(point(now, last));
    history = history.slice(-keep);
    last = now;
    state(reply.stats.restart_sweeping ? "live, and sweeping after a kill" : reply.stats.accepting_conns ? "live" : "live, at its limit of connections");
    show();
  } catch (err) {
    state(`no answer: ${err.message}`, true);
  }
}

async function run() {
  for (;;) {
    const began = performance.now();
    await step();
    await new Promise(done => setTimeout(done, Math.max(100, every - (performance.now() - began))));
  }
}

$("pause").onclick = () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  state(paused ? "paused" : "live");
};
$("span").onchange = show;
$("theme").onchange = () => {
  if ($("theme").value) document.documentElement.dataset.theme = $("theme").value;
  else delete document.documentElement.dataset.theme;
  show();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
addEventListener("resize", show);
heads();
run();
