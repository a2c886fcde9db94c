"use strict";
// Two people in one page, each a real client of the JSON protocol (docs/protocol.md). No library, no build step.

const $ = (selector, root = document) => root.querySelector(selector);
const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const random = () => crypto.getRandomValues(new Uint32Array(1))[0];
const clock = (ms) => new Date(ms).toLocaleTimeString();
let config;

// ---- the wire panel ----

const QUIET = new Set(["ping", "pong", "read", "read_done", "open", "ok"]);

function wire(who, direction, frame, note) {
  const kind = Object.keys(frame).find((key) => key !== "id") ?? "?";
  if (QUIET.has(kind) && !$("#wire-pings").checked) return;
  const row = element("li");
  const details = element("details");
  const arrow = direction === "out" ? "→" : "←";
  const summary = element("summary", kind === "error" ? "bad" : direction, `${who} ${arrow} ${kind}${note ? "  " + note : ""}`);
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(element("pre", "", JSON.stringify(frame, null, 1)));
  });
  row.append(details);
  prepend(row);
}

function prepend(row) {
  const frames = $("#frames");
  frames.prepend(row);
  while (frames.children.length > 300) frames.lastChild.remove();
}

function webhook(event) {
  const row = element("li");
  const details = element("details");
  details.append(element("summary", event.verdict === "ok" ? "hook" : "bad", `webhook ${event.command}  ${event.verdict}  ${event.took_ms} ms`));
  details.append(element("pre", "", JSON.stringify(event, null, 1)));
  row.append(details);
  prepend(row);
}

// ---- one person ----

class Person {
  constructor(root, account) {
    Object.assign(this, { root, user: account.user, usersig: account.usersig, ws: account.ws });
    this.instance = sessionStorage.getItem(`instance-${account.user}`) ?? `play-${random()}`;
    sessionStorage.setItem(`instance-${account.user}`, this.instance);
    this.waiting = new Map();
    this.conversations = new Map();
    this.nextId = 1;
    this.delay = 250;
    root.append($("#person").content.cloneNode(true));
    $("h2", root).textContent = account.user;
    this.bind();
    this.connect();
  }

  bind() {
    const { root } = this;
    $(".send", root).addEventListener("submit", (event) => {
      event.preventDefault();
      const input = $(".send input", root);
      if (input.value && this.current) this.say(input.value);
      input.value = "";
    });
    $(".new", root).addEventListener("submit", (event) => {
      event.preventDefault();
      const form = event.target;
      if (form.what.value.trim()) this.begin(form.kind.value, form.what.value.trim());
      form.what.value = "";
    });
    $(".drop", root).addEventListener("click", () => this.socket?.close());
    $(".history", root).addEventListener("click", () => this.older());
    $(".leave", root).addEventListener("click", () => this.leave());
    $(".like", root).addEventListener("click", () => this.custom("like", "Low"));
    $(".gift", root).addEventListener("click", () => this.custom("gift", "High"));
    $(".flood", root).addEventListener("click", () => { for (let n = 1; n <= 100; n++) this.say(`flood ${n}`); });
    $(".list", root).addEventListener("click", (event) => {
      const row = event.target.closest("li");
      if (row) this.show(row.dataset.conv);
    });
    $(".list", root).addEventListener("keydown", (event) => {
      const row = event.target.closest("li");
      if (!row) return;
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.show(row.dataset.conv); }
      const next = event.key === "ArrowDown" ? row.nextElementSibling : event.key === "ArrowUp" ? row.previousElementSibling : null;
      if (next) { event.preventDefault(); next.focus(); }
    });
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const address = this.ws.startsWith("/") ? `${scheme}://${location.host}${this.ws}` : this.ws;
    const socket = new WebSocket(address, "linnet.v1+json");
    this.socket = socket;
    socket.onopen = async () => {
      try {
        const welcome = await this.ask("sign_in", {
          sdkappid: config.sdkappid, user: this.user, usersig: this.usersig, platform: "Web",
          instance: this.instance, resume: this.resume ?? "", client: "playground",
        });
        this.resume = welcome.resume;
        this.delay = 250;
        $(".dot", this.root).classList.add("on");
        await this.sync();
        for (const conv of this.conversations.values()) if (conv.live && !welcome.resumed) await this.ask("group_join", { group_id: conv.key.slice(6) }).catch(() => {});
        status();
      } catch (error) { status(`${this.user}: ${error.message}`); }
    };
    socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    socket.onclose = () => {
      $(".dot", this.root).classList.remove("on");
      for (const { reject } of this.waiting.values()) reject(new Error("connection lost"));
      this.waiting.clear();
      if (!this.kicked) setTimeout(() => this.connect(), this.delay = Math.min(this.delay * 2, 5000));
    };
  }

  ask(kind, body) {
    const id = this.nextId++;
    const frame = { id, [kind]: body };
    return new Promise((resolve, reject) => {
      if (this.socket.readyState !== WebSocket.OPEN) return reject(new Error("not connected"));
      this.waiting.set(id, { resolve, reject, at: performance.now() });
      this.socket.send(JSON.stringify(frame));
      wire(this.user, "out", kind === "sign_in" ? { id, sign_in: { ...body, usersig: "…" } } : frame, body.conv ?? body.group_id);
    });
  }

  receive(frame) {
    if (frame.id) {
      const asked = this.waiting.get(frame.id);
      this.waiting.delete(frame.id);
      const kind = Object.keys(frame).find((key) => key !== "id");
      const ms = asked ? `${(performance.now() - asked.at).toFixed(1)} ms` : "";
      const sent = frame.sent;
      wire(this.user, "in", frame, sent ? `seq ${sent.seq ?? 0} ${sent.outcome} ${ms}` : frame.error ? `${frame.error.code} ${frame.error.info ?? ""}` : ms);
      if (!asked) return;
      if (kind === "error") asked.reject(Object.assign(new Error(`${frame.error.code} ${frame.error.info ?? ""}`), frame.error));
      else asked.resolve(frame[kind] ?? {});
      return;
    }
    if (frame.push) {
      const items = frame.push.items ?? [];
      const seqs = items.map((item) => item.message?.seq).filter(Boolean);
      wire(this.user, "in", frame, `${items.length} item${items.length === 1 ? "" : "s"}${seqs.length ? " seq " + seqs.join(",") : ""}`);
      for (const item of items) this.item(item);
      this.draw();
    } else if (frame.kicked) {
      this.kicked = true;
      wire(this.user, "in", frame);
      status(`${this.user}: signed out (${frame.kicked.reason})`);
    } else wire(this.user, "in", frame);
  }

  item(item) {
    const conv = item.conv ? this.conversation(item.conv) : null;
    if (item.message) this.add(conv, item.message);
    else if (item.recall) for (const seq of item.recall.seqs ?? []) { const m = conv.messages.get(seq); if (m) { m.revoked = true; m.body = undefined; } }
    else if (item.advanced) { if ((item.advanced.head ?? 0) > conv.head) this.fill(conv, conv.head + 1, item.advanced.head); }
    else if (item.peer_read) conv.peerRead = item.peer_read.seq;
    else if (item.room) { if (item.room.online !== undefined) conv.online = item.room.online; if (item.room.left) conv.gone = item.room.why; }
    else if (item.notice) this.notice(item.notice);
    else if (item.change) this.sync();
  }

  notice(notice) {
    const text = typeof notice.data === "object" ? notice.data : {};
    status(`${this.user}: notice ${notice.type} ${text.userDefinedField ?? text.groupProfile?.groupID ?? ""}`);
    this.sync();
  }

  conversation(key) {
    if (!this.conversations.has(key)) this.conversations.set(key, { key, name: key.replace(/^(C2C|GROUP):/, ""), messages: new Map(), loose: [], head: 0, first: 0, unread: 0, time: Date.now(), fresh: true });
    return this.conversations.get(key);
  }

  add(conv, message) {
    conv.time = Math.max(conv.time, message.time_ms ?? 0);
    if (!message.seq || conv.live) {
      conv.loose.push(message);
      if (conv.loose.length > 300) conv.loose.shift();
      return;
    }
    if (conv.messages.has(message.seq)) return;
    if (conv.head && message.seq > conv.head + 1) this.fill(conv, conv.head + 1, message.seq - 1);
    conv.head = Math.max(conv.head, message.seq);
    conv.messages.set(message.seq, message);
    if (message.from !== this.user && !message.no_unread && conv.key !== this.current) conv.unread++;
    if (conv.key === this.current && message.from !== this.user) this.read(conv);
  }

  // A hole in the sequence: every position is a message or "nothing for you", so this ends.
  async fill(conv, from, to) {
    conv.head = Math.max(conv.head, to);
    while (from <= to) {
      const page = await this.ask("history", { conv: conv.key, from_seq: from, to_seq: to, ascending: true, limit: 100 }).catch(() => null);
      if (!page) return;
      for (const message of page.messages ?? []) conv.messages.set(message.seq, message);
      if (page.complete || !(page.covered_to >= from)) break;
      from = page.covered_to + 1;
    }
    this.draw();
  }

  async sync() {
    let cursor = "";
    do {
      const page = await this.ask("sync", { since_ms: this.position ?? 0, cursor }).catch(() => null);
      if (!page) return;
      for (const row of page.conversations ?? []) {
        if (row.deleted) { this.conversations.delete(row.conv); continue; }
        const conv = this.conversation(row.conv);
        conv.name = row.name || conv.name;
        conv.type = row.group_type ?? "";
        conv.unread = row.unread ?? 0;
        conv.first = row.first_seq ?? 1;
        conv.time = row.time_ms ?? conv.time;
        conv.peerRead = row.peer_read_seq ?? conv.peerRead;
        conv.fresh = false;
        if (conv.head && (row.head ?? 0) > conv.head) await this.fill(conv, conv.head + 1, row.head);
        else if (!conv.head) conv.preview = row.last;
        conv.head = Math.max(conv.head, row.head ?? 0);
      }
      cursor = page.more ? page.cursor : "";
      if (!page.more) this.position = page.position_ms;
    } while (cursor);
    if (!this.current) {
      const first = this.user === config.users[0].user ? config.users[1] : config.users[0];
      if (first) this.show(`C2C:${first.user}`, false);
    }
    this.draw();
  }

  // The focus goes to the message field at once and only when a person asked: taken later, it would take away what is typed.
  async show(key, asked = true) {
    const conv = this.conversation(key);
    this.current = key;
    this.draw();
    if (asked || document.activeElement === document.body) $(".send input", this.root).focus({ preventScroll: true });
    this.ask("open", { conv: key }).catch(() => {});
    if (!conv.loaded && !conv.live) { conv.loaded = true; await this.older(); }
    this.read(conv);
  }

  async older() {
    const conv = this.conversation(this.current);
    const have = [...conv.messages.keys()];
    const to = have.length ? Math.min(...have) - 1 : 0;
    if (have.length && to < 1) return;
    const page = await this.ask("history", { conv: conv.key, to_seq: to, limit: 20 }).catch((error) => { if (conv.key.startsWith("GROUP:")) status(`${this.user}: ${error.message}`); });
    if (!page) return;
    for (const message of page.messages ?? []) conv.messages.set(message.seq, message);
    conv.head = Math.max(conv.head, page.head ?? 0);
    conv.all = page.complete;
    this.draw();
  }

  read(conv) {
    conv.unread = 0;
    if (conv.live || !conv.head) return;
    clearTimeout(conv.reading);
    conv.reading = setTimeout(() => this.ask("read", { conv: conv.key, seq: conv.head }).catch(() => {}), 150);
    this.draw();
  }

  say(text) {
    return this.send([{ MsgType: "TIMTextElem", MsgContent: { Text: text } }], "");
  }

  custom(kind, priority) {
    return this.send([{ MsgType: "TIMCustomElem", MsgContent: { Data: JSON.stringify({ kind, count: 1 }), Desc: kind } }], priority);
  }

  async send(body, priority) {
    const conv = this.conversation(this.current);
    const mine = { from: this.user, body, time_ms: Date.now(), outcome: "…" };
    conv.loose.push(mine);
    this.draw();
    const request = { conv: conv.key, random: random(), body };
    if (priority && conv.key.startsWith("GROUP:")) request.priority = priority;
    try {
      const sent = await this.ask("send", request);
      Object.assign(mine, { outcome: sent.outcome, seq: sent.seq, time_ms: sent.time_ms, body: sent.body ?? body });
      if (sent.outcome === "stored" && sent.seq) {
        conv.loose.splice(conv.loose.indexOf(mine), 1);
        if (conv.head && sent.seq > conv.head + 1) this.fill(conv, conv.head + 1, sent.seq - 1);
        conv.head = Math.max(conv.head, sent.seq);
        conv.messages.set(sent.seq, mine);
      }
      conv.time = Math.max(conv.time, sent.time_ms ?? 0);
    } catch (error) { mine.outcome = error.message; mine.failed = true; }
    this.draw();
  }

  async begin(kind, what) {
    try {
      if (kind === "c2c") return await this.show(`C2C:${what}`);
      let group = what;
      if (kind !== "join") group = (await this.ask("group_create", { type: kind, name: what, members: kind === "AVChatRoom" ? [] : config.users.map((u) => u.user).filter((u) => u !== this.user) })).group_id;
      const conv = this.conversation(`GROUP:${group}`);
      let joined = null;
      if (kind === "join" || kind === "AVChatRoom") joined = await this.ask("group_join", { group_id: group });
      const info = joined?.group ?? (await this.ask("group_info", { group_id: group }).catch(() => ({ name: what, type: kind })));
      Object.assign(conv, { name: info.name ?? what, type: info.type, live: info.type === "AVChatRoom", online: joined?.online, gone: undefined });
      await this.sync();
      await this.show(conv.key);
      if (conv.live && kind !== "join") status(`live room ${group}: choose "join group" on the other side and paste this id`);
    } catch (error) { status(`${this.user}: ${error.message}`); }
  }

  async leave() {
    const conv = this.conversation(this.current);
    try {
      await this.ask("group_quit", { group_id: conv.key.slice(6) });
      this.conversations.delete(conv.key);
      this.current = [...this.conversations.keys()][0];
      this.draw();
    } catch (error) { status(`${this.user}: ${error.message}`); }
  }

  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => { this.drawing = false; this.paint(); });
  }

  paint() {
    const list = $(".list", this.root);
    const focused = document.activeElement?.closest("li")?.dataset.conv;
    list.replaceChildren(...[...this.conversations.values()].sort((a, b) => b.time - a.time).map((conv) => {
      const row = element("li", "", conv.name);
      Object.assign(row.dataset, { conv: conv.key });
      row.tabIndex = 0;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", conv.key === this.current);
      if (conv.unread) row.prepend(element("span", "badge", conv.unread));
      const last = conv.loose.at(-1) ?? [...conv.messages.entries()].sort((a, b) => a[0] - b[0]).at(-1)?.[1] ?? conv.preview;
      row.append(element("small", "", last ? text(last) : kindOf(conv)));
      return row;
    }));
    if (focused) $(`li[data-conv="${CSS.escape(focused)}"]`, list)?.focus();
    const conv = this.conversations.get(this.current);
    const messages = $(".messages", this.root);
    $(".extras", this.root).hidden = !conv?.live;
    $(".leave", this.root).hidden = !conv?.key.startsWith("GROUP:");
    $(".history", this.root).hidden = !conv || conv.live || conv.all;
    $(".name", this.root).textContent = conv?.name ?? "";
    $(".sub", this.root).textContent = conv ? `${kindOf(conv)}${conv.live && conv.online !== undefined ? `, ${conv.online} online` : ""}${conv.gone ? `, left: ${conv.gone}` : ""}` : "";
    if (!conv) return messages.replaceChildren();
    const atEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 60;
    const rows = [...conv.messages.entries()].sort((a, b) => a[0] - b[0]).map(([, m]) => m);
    const all = [...rows, ...conv.loose].sort((a, b) => (a.time_ms ?? 0) - (b.time_ms ?? 0));
    messages.replaceChildren(...all.map((message) => this.row(conv, message)));
    if (atEnd) messages.scrollTop = messages.scrollHeight;
  }

  row(conv, message) {
    const tip = message.kind === "tip";
    const mine = message.from === this.user && !tip;
    const row = element("li", tip ? "tip" : mine ? "mine" : "", message.revoked ? "message recalled" : text(message));
    const parts = [];
    if (message.seq) parts.push(`seq ${message.seq}`);
    if (!mine && !tip) parts.unshift(message.from);
    if (message.outcome) parts.push(message.outcome);
    if (mine && conv.peerRead >= message.seq) parts.push("read");
    parts.push(clock(message.time_ms));
    const meta = element("small", message.failed ? "failed" : message.outcome === "shaped" ? "shaped" : "", parts.join("  "));
    if (mine && message.seq && !message.revoked && !conv.live) {
      const recall = element("button", "", "recall");
      recall.type = "button";
      recall.addEventListener("click", () => this.ask("revoke", { conv: conv.key, seq: message.seq }).then(() => { message.revoked = true; this.draw(); }, (error) => status(`${this.user}: ${error.message}`)));
      meta.append(" ", recall);
    }
    row.append(meta);
    return row;
  }
}

function kindOf(conv) {
  if (conv.key.startsWith("C2C:")) return "chat";
  return conv.live ? "live room " + conv.key.slice(6) : (conv.type || "group");
}

function text(message) {
  if (message.revoked || !Array.isArray(message.body)) return message.revoked ? "message recalled" : "";
  return message.body.map((e) => {
    const content = e.MsgContent ?? {};
    switch (e.MsgType) {
      case "TIMTextElem": return content.Text;
      case "TIMCustomElem": return content.Desc || content.Data || "[custom]";
      case "TIMGroupTipElem": return tipText(content);
      default: return `[${e.MsgType.replace(/^TIM|Elem$/g, "")}]`;
    }
  }).join("");
}

function tipText(tip) {
  const people = (tip.userIDList ?? []).join(", ");
  const done = { 1: "joined", 2: "left", 3: "was removed", 4: "is now an admin", 5: "is no longer an admin", 10: "was banned", 11: "is no longer banned" };
  if (done[tip.operationType]) return `${people} ${done[tip.operationType]}`;
  if (tip.operationType === 6) return `${tip.operatorID} changed ${Object.keys(tip.newGroupProfile ?? {}).join(", ")}`;
  return `${people || tip.operatorID || ""} changed`;
}

// ---- start ----

let told;
function status(message) {
  clearTimeout(told);
  $("#status").textContent = message ?? `app ${config.sdkappid}, ${config.users.map((u) => u.user).join(" and ")} are signed in; say something`;
  if (message) told = setTimeout(() => status(), 8000);
}

const CODE = {
  "Node": (id) => `const api = new (require("tls-sig-api-v2").Api)(${id}, process.env.LINNET_KEY);\nconst sig = api.genSig("alice", 86400);`,
  "Python": (id) => `import os, TLSSigAPIv2\nsig = TLSSigAPIv2.TLSSigAPIv2(${id}, os.environ["LINNET_KEY"]).genUserSig("alice", 86400)`,
  "Go": (id) => `sig, err := tencentyun.GenUserSig(${id}, os.Getenv("LINNET_KEY"), "alice", 86400)`,
  "Java": (id) => `String sig = new TLSSigAPIv2(${id}L, System.getenv("LINNET_KEY")).genUserSig("alice", 86400);`,
  "PHP": (id) => `$sig = (new TLSSigAPIv2(${id}, getenv("LINNET_KEY")))->genUserSig("alice", 86400);`,
};

async function start() {
  config = await (await fetch("/play/config.json" + location.search)).json();
  if (config.error) return ($("#status").textContent = config.error);
  const people = [new Person($("#left"), config.users[0]), new Person($("#right"), config.users[1])];
  window.people = people;
  const events = new EventSource("/play/events" + location.search);
  events.addEventListener("webhook", (event) => webhook(JSON.parse(event.data)));
  $("#wire-clear").addEventListener("click", () => $("#frames").replaceChildren());
  $("#help-open").addEventListener("click", () => $("#help").showModal());
  const language = $("#sig-lang");
  for (const name of Object.keys(CODE)) language.append(new Option(name));
  const showCode = () => ($("#sig-code").textContent = CODE[language.value](config.sdkappid));
  language.addEventListener("change", showCode);
  $("#sig-open").addEventListener("click", () => { showCode(); $("#sig").showModal(); });
  document.addEventListener("keydown", (event) => {
    if (!event.altKey) return;
    if (event.key === "1" || event.key === "2") { event.preventDefault(); $(".send input", people[event.key - 1].root).focus(); }
    if (event.key === "3") { event.preventDefault(); $("#frames").focus(); }
  });
}
start().catch((error) => ($("#status").textContent = `cannot start: ${error.message}`));
