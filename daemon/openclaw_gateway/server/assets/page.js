// The status page. Nothing that came from elsewhere becomes anything but text: textContent, no HTML.
"use strict";

const STORED = "openclaw-gateway.token";
const EVERY_MS = 2000, HIDDEN_MS = 10000; // between two looks
const SILENT_MS = 5000; // without an answer the gateway hangs
const SHOWN_MS = 300000; // of the pictures
const LINES = 50;
const TONES = {
  running: "good", unmanaged: "good", standby: "good",
  starting: "warn", restarting: "warn", unknown: "warn", locked: "quiet", connecting: "quiet",
};

const $ = (id) => document.getElementById(id);
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const make = (name, text = "", attributes = {}) => {
  const node = document.createElement(name);
  node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};
const clock = (when) => new Date(when).toLocaleTimeString("sv"); // 09:05:07, and the date as 2026-11-25
const stamp = (when) => new Date(when).toLocaleString("sv");
const span = (ms) => { // as "status" says it
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} m`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
};

const times = (count) => count === 1 ? "once" : `${count} times`;

const storage = (action, ...rest) => { // a browser may be told to keep nothing, and says so by an error
  try { return sessionStorage[action](STORED, ...rest); } catch { return null; }
};

let secret = storage("getItem"); // of password mode in memory only
let kind = "token";
let link = null; // the connection, as far as it goes
let due = 0, timer = 0, failed = 0, shownAt = 0, seen = null, leaving = null;

// What the eye finds first.

function verdict(word, reason, steps = []) {
  document.body.dataset.tone = TONES[word] || "bad";
  say($("word"), word);
  say($("reason"), reason);
  document.title = `${word} · ${$("where").textContent || "openclaw-gateway"}`;
  const text = JSON.stringify(steps);
  if ($("next").dataset.shown !== text) {
    $("next").dataset.shown = text;
    $("next").replaceChildren(...steps.map(({ command, why }) => {
      const item = make("li");
      item.append(make("code", command), make("span", why || ""));
      return item;
    }));
  }
}

function when() { // not in the live region: it changes every second
  const left = due - Date.now();
  say($("when"), due && left > 0 ? `Trying again in ${span(left + 999)}.` : "");
}

function old(is) { // whether what is shown of the gateway is of lately only
  $("facts").toggleAttribute("data-old", is);
  say($("age"), $("facts").hidden ? "" : is ? `as of ${clock(shownAt)}` : "live");
}

let known = "openclaw-gateway status"; // until the gateway says which one it is
const elsewhere = () => [{ command: known, why: "on the gateway's machine" }];

// The connection.

function dial() {
  clearTimeout(timer);
  due = 0;
  const url = new URL(".", location.href); // without query and fragment, below whatever a proxy put in front
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url), asked = new Map();
  const mine = link = { socket, opened: false, live: false, waiting: Date.now(), calls: 0, cursor: undefined };
  mine.ask = (method, params) => new Promise((resolve, reject) => {
    const id = String(++mine.calls);
    if (!asked.size) mine.waiting = Date.now();
    asked.set(id, { resolve, reject });
    socket.send(JSON.stringify({ type: "req", id, method, params }));
  });
  const events = {
    "connect.challenge": () => greet(mine),
    presence: () => mine.live && look(mine),
    health: () => mine.live && look(mine),
    shutdown: (payload) => { leaving = payload; goodbye(); },
  };
  socket.onopen = () => { mine.opened = true; };
  socket.onmessage = ({ data }) => {
    if (mine !== link) return;
    const frame = JSON.parse(data);
    if (frame.type === "event") {
      if (!asked.size) mine.waiting = 0;
      return events[frame.event]?.(frame.payload);
    }
    const { resolve, reject } = asked.get(frame.id);
    asked.delete(frame.id);
    mine.waiting = asked.size ? Date.now() : 0;
    return frame.ok ? resolve(frame.payload) : reject(frame.error);
  };
  socket.onclose = () => { if (mine === link) lost(mine); };
}

function redial(ms) {
  clearTimeout(timer);
  due = Date.now() + ms;
  timer = setTimeout(dial, ms);
  when();
}

function drop() {
  const { socket } = link || {};
  link = null;
  socket?.close();
}

async function greet(mine) {
  const params = {
    minProtocol: 4, maxProtocol: 4, role: "operator", scopes: ["operator.read"],
    client: { // the protocol has a closed list of ids; this is that of a page which a gateway serves
      id: "openclaw-control-ui", displayName: "status page", version: "1", mode: "ui",
      platform: navigator.platform || "browser",
    },
  };
  if (secret) params.auth = { [kind]: secret };
  let hello;
  try {
    hello = await mine.ask("connect", params);
  } catch (error) {
    refused(mine, error);
    return;
  }
  if (kind === "token" && secret) storage("setItem", secret);
  if (seen?.boot !== hello.server.bootId) seen = { boot: hello.server.bootId };
  mine.live = true;
  mine.host = hello.snapshot.presence.find((entry) => entry.mode === "gateway")?.host;
  failed = 0;
  leaving = null;
  $("ask").hidden = true;
  $("forget").hidden = !secret;
  say($("forget"), `Forget the ${kind}`);
  $("log").replaceChildren();
  look(mine);
}

function refused(mine, { message, details = {}, retryAfterMs }) {
  const code = details.code || "";
  drop();
  const missing = code.endsWith("_MISSING"); // with a secret: none is of any use here
  if (/^AUTH_(TOKEN|PASSWORD)_/.test(code) && !(missing && secret)) {
    kind = code.includes("PASSWORD") ? "password" : "token";
    forget();
    question(!missing ? `This is not the gateway's ${kind}.` : `The gateway answers. Its ${kind} opens this page.`);
    if (!missing) document.body.dataset.tone = "bad";
  } else if (code === "AUTH_RATE_LIMITED") {
    question(`Too many wrong ${kind}s came from this address: the gateway does not listen to it for a while.`);
    $("enter").disabled = $("secret").disabled = true;
    redial(retryAfterMs || 60000);
  } else if (retryAfterMs) {
    // It is on its way up or down, and says when to come again.
    const down = details.reason === "gateway-restarting";
    verdict(down ? "stopping" : "starting", message, down ? [] : [{ command: `${known} --wait 60` }]);
    redial(retryAfterMs);
  } else {
    verdict("refused", message, elsewhere());
  }
}

function question(reason) {
  $("facts").hidden = true;
  old(true);
  verdict("locked", reason);
  say(document.querySelector("label"), kind === "token" ? "Token" : "Password");
  const [words, command] = kind === "token"
    ? ["Kept until this tab is closed. That of the service is shown on its machine by",
      "sudo cat /var/lib/openclaw-gateway/default/gateway.token"]
    : ["Kept until this page is left. On the gateway's machine, what says where it comes from:",
      "openclaw-gateway config"];
  $("hint").replaceChildren(words, make("br"), make("code", command));
  $("ask").hidden = false;
  $("enter").disabled = $("secret").disabled = false;
  $("forget").hidden = true;
  $("secret").focus();
}

function forget() {
  secret = null;
  storage("removeItem");
}

function goodbye() {
  old(true);
  if (leaving.restartExpectedMs) {
    verdict("restarting", `${leaving.reason}; expected back within ${span(leaving.restartExpectedMs + 999)}`);
  } else {
    verdict("stopping", leaving.reason, elsewhere());
  }
}

async function lost(mine) {
  link = null;
  clearTimeout(timer);
  old(true);
  if (leaving && mine.live) {
    redial(leaving.restartExpectedMs ? 250 : 1000);
    return;
  }
  // Whether it is gone or only takes no WebSocket: health is for everybody.
  const alive = await ask("healthz").then((answer) => answer.ok, () => false);
  if (link) return;
  failed += 1;
  const said = leaving ? `It said goodbye (${leaving.reason}), and` : mine.live ? "The connection was lost, and" : "There is no connection:";
  if (alive && !mine.opened && await standby()) return;
  if (link) return;
  if (alive && mine.opened) {
    verdict("connecting", "The connection was lost.");
  } else if (alive) {
    verdict("refused", "The gateway lives, but takes no WebSocket from here: its limits are reached, or a proxy "
      + "changes the Host, and this address is none of its allowedOrigins.", elsewhere());
  } else {
    verdict("unreachable", `${said} nobody answers at ${location.host}.`, elsewhere());
  }
  redial(Math.min(1000 * 2 ** (failed - 1), 15000));
}

function ask(path) {
  return fetch(path, { cache: "no-store", signal: AbortSignal.timeout(SILENT_MS) });
}

async function standby() { // which lets no WebSocket in, and says to everybody what it is
  const answer = await ask("replica").catch(() => ({}));
  if (!answer.ok || link) return Boolean(link);
  const { cluster = {} } = await answer.json(); // told to who asks from its own machine
  verdict("standby", `${cluster.reason || "another gateway of the cluster is active"}`
    + `${cluster.url ? `, at ${cluster.url}` : ""}`);
  clearTimeout(timer);
  timer = setTimeout(async () => await standby() || dial(), SILENT_MS);
  return true;
}

// What is asked for again and again.

async function look(mine) {
  clearTimeout(timer);
  if (mine.looking) { mine.again = true; return; }
  mine.looking = true;
  mine.again = false;
  try {
    show(mine, await mine.ask("status"));
    lines(mine, await mine.ask("logs.tail", { limit: LINES, cursor: mine.cursor })); // undefined is left out
  } catch (error) {
    if (!error.retryable) verdict("refused", error.message, elsewhere());
  }
  mine.looking = false;
  if (mine !== link) return;
  timer = setTimeout(look, mine.again ? 200 : document.hidden ? HIDDEN_MS : EVERY_MS, mine);
}

function beat() {
  when();
  if (!link?.waiting) return;
  const silent = Date.now() - link.waiting;
  if (silent < (link.live ? SILENT_MS : 3 * SILENT_MS)) return; // a wrong secret is answered late on purpose
  old(true);
  verdict("not-serving", link.opened ? "The connection stands, but no answer comes." : `No answer comes from ${location.host}.`,
    elsewhere());
  say($("when"), `For ${span(silent)}.`);
  if (silent > 6 * SILENT_MS) { drop(); redial(0); }
}

// What is shown.

function facts(id, rows) {
  const shown = rows.filter(([, value]) => value); // what is not known, or nothing worth a line, is left out
  const list = $(id);
  while (list.children.length > shown.length) list.lastChild.remove();
  shown.forEach(([name, value, bad], at) => {
    let row = list.children[at];
    if (!row) {
      row = make("div");
      row.append(make("dt"), make("dd"));
      list.append(row);
    }
    say(row.firstChild, name);
    say(row.lastChild, value);
    row.lastChild.classList.toggle("bad", Boolean(bad));
  });
}

function show(mine, status) {
  const { claim, clients, served, limits, failing, watchdog, auth, cluster } = status;
  shownAt = Date.now();
  known = status.statusCommand;
  const host = claim.host?.includes(":") ? `[${claim.host}]` : claim.host || location.hostname;
  say($("where"), `${mine.host ? `${mine.host}, ` : ""}${host}:${claim.port}`);
  verdict(status.state, status.reason, status.next);
  $("facts").hidden = false;
  old(false);
  facts("gateway", [
    ["version", status.runtimeVersion],
    ["up", `${span(status.uptimeMs)}, since ${stamp(shownAt - status.uptimeMs)}`],
    ["phase", status.phase],
    ["failing", failing.join(", ") || "nothing", failing.length],
    ["unit", status.unit || "none"],
    ["watchdog", watchdog.intervalMs && watchdog.lastPingMs && `pinged ${span(Math.max(0, shownAt - watchdog.lastPingMs))} ago`
      + `, systemd waits ${span(watchdog.intervalMs)}`],
    ["process", `pid ${status.pid}, ${Math.round(status.processMemory.rssBytes / 1e6)} MB`],
  ]);
  facts("claim", [
    ["address", `${host} port ${claim.port}`],
    ["state", claim.stateDir],
    ["settings", claim.configPath],
    ["since", claim.since && stamp(claim.since)],
    ["owner", claim.ownerId],
    ["cluster", cluster && `${cluster.name}, fencing token ${cluster.token ?? "none"}`],
    ["locks", claim.lockPaths.map((path) => path.replace(`${claim.stateDir}/`, "")).join("\n")],
    ["made anew", claim.restored && `lock files that had been removed, ${times(claim.restored)}`, true],
  ]);
  const own = 1; // the very call that asks
  facts("clients", [
    ["connected", `${clients.connected}, this page among them`],
    ["connections", `${clients.connections}, ${clients.unauthenticated} without a secret yet`],
    ["in flight", `${Math.max(0, clients.requestsInFlight - own)} calls`],
    ["served", `${served.requests} requests, ${served.calls} calls`],
    ["secret", `${auth.mode}${auth.failures ? `, wrong ${times(auth.failures)}` : ""}`],
    ["over limits", clients.overLimit && `${clients.overLimit} connections`, true],
  ]);
  bounds(limits);
  picture(mine, status);
}

function bounds(limits) {
  const text = JSON.stringify(limits);
  if ($("limits").dataset.shown === text) return;
  $("limits").dataset.shown = text;
  const reached = Object.entries(limits).filter(([, one]) => one.reached).map(([name]) => name);
  say($("reached"), reached.length ? `reached: ${reached.join(", ")}` : "none reached");
  $("reached").classList.toggle("bad", reached.length);
  $("limits").replaceChildren(...Object.entries(limits).map(([name, { limit, reached: times }]) => {
    const row = make("tr");
    row.append(make("td", name), make("td", quantity(name, limit)),
      make("td", String(times), times ? { class: "bad" } : {}));
    return row;
  }));
}

function quantity(name, value) {
  if (value === undefined) return "the kernel's";
  if (name.endsWith("Ms")) return value % 1000 ? `${value} ms` : span(value);
  if (!name.endsWith("Bytes") || value % 1024) return String(value);
  return value % 1048576 ? `${value / 1024} KiB` : `${value / 1048576} MiB`;
}

function lines(mine, { cursor, lines: texts, reset }) {
  if (mine !== link) return;
  const list = $("log"), first = mine.cursor === undefined || reset;
  const follows = first || list.scrollHeight - list.scrollTop - list.clientHeight < 24;
  mine.cursor = cursor;
  if (first) list.replaceChildren();
  for (const text of texts) {
    let entry;
    try { entry = JSON.parse(text); } catch { entry = { message: text }; }
    const item = make("li", "", { "data-level": String(entry.level) });
    const time = make("time", entry.time ? clock(entry.time) : "", { datetime: String(entry.time) });
    time.title = String(entry.time);
    item.append(time, make("span", String(entry.message)));
    list.append(item);
  }
  while (list.children.length > LINES) list.firstChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}

// Small pictures; what they show is kept here, and nowhere else.

const SVG = "http://www.w3.org/2000/svg";
const series = [
  { name: "requests per second", of: rate, digits: 1 },
  { name: "clients", of: (_, status) => status.clients.connected, digits: 0 },
  { name: "longest loop delay, ms", of: (_, status) => status.eventLoop?.delayMaxMs, digits: 1 },
];

function rate(mine, { served }) { // of others: what this page asks for is left out
  const now = performance.now(), all = served.requests + served.calls - mine.calls;
  const before = seen.rate;
  if (before?.mine === mine && now - before.now < EVERY_MS / 2) return before.value; // too short to tell
  const value = before?.mine === mine ? Math.max(0, (all - before.all) / (now - before.now) * 1000) : undefined;
  seen.rate = { now, all, mine, value };
  return value;
}

function picture(mine, status) {
  for (const one of series) {
    one.figure ||= frame(one);
    one.points = one.points.filter(([ms]) => ms > shownAt - SHOWN_MS);
    const last = one.points.at(-1), value = one.of(mine, status);
    if (last && shownAt - last[0] < EVERY_MS / 2) last[1] = value; // an event came between two looks
    else one.points.push([shownAt, value]);
    draw(one);
  }
}

function frame(one) {
  one.points = [];
  const figure = make("figure"), caption = make("figcaption", one.name);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 300 56");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.append(document.createElementNS(SVG, "path"), document.createElementNS(SVG, "path"));
  one.value = make("b");
  one.peak = make("small");
  caption.append(one.value);
  figure.append(caption, svg, one.peak);
  $("pictures").append(figure);
  return figure;
}

function draw(one) {
  const points = one.points.filter(([, value]) => value !== undefined);
  const most = Math.max(0, ...points.map(([, value]) => value)), top = Math.max(1, most) * 1.15;
  const now = Date.now();
  const x = (ms) => (300 - (now - ms) / SHOWN_MS * 300).toFixed(1);
  const y = (value) => (54 - value / top * 50).toFixed(1);
  let line = "", area = "", before = null;
  for (const [ms, value] of one.points) {
    if (value === undefined) { before = null; continue; }
    if (before && ms - before[0] > 2 * HIDDEN_MS) before = null; // nothing is known of the time between
    line += `${before ? "L" : "M"}${x(ms)} ${y(value)}`;
    if (before) area += `M${x(before[0])} 56V${y(before[1])}L${x(ms)} ${y(value)}V56Z`;
    before = [ms, value];
  }
  const [fill, stroke] = one.figure.querySelectorAll("path");
  fill.setAttribute("d", area);
  stroke.setAttribute("d", line);
  const number = (value) => value.toFixed(value < 100 ? one.digits : 0);
  const latest = points.at(-1)?.[1], text = latest === undefined ? "–" : number(latest);
  say(one.value, text);
  say(one.peak, `five minutes, at most ${number(most)}`);
  one.figure.querySelector("svg").setAttribute("aria-label", `${one.name} over time: now ${text}`);
}

// What people do.

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  secret = $("secret").value.trim();
  $("secret").value = "";
  $("enter").disabled = true;
  verdict("connecting", "");
  drop();
  dial();
});
$("forget").addEventListener("click", () => { forget(); drop(); dial(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && due) dial(); });
addEventListener("online", () => { if (due) dial(); });
setInterval(beat, 1000);
dial();
