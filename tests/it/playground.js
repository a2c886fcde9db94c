"use strict";
// Arguments: browser, profile folder, page. Speaks the DevTools protocol over pipes 3 and 4.
const { spawn } = require("node:child_process");
const [browser, profile, page] = process.argv.slice(2);

const child = spawn(browser, ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const waiting = new Map();
let nextId = 1;
let buffer = "";
child.stdio[4].on("data", (data) => {
  buffer += data;
  for (let end; (end = buffer.indexOf("\0")) >= 0; buffer = buffer.slice(end + 1)) {
    const reply = JSON.parse(buffer.slice(0, end));
    const asked = waiting.get(reply.id);
    waiting.delete(reply.id);
    if (asked) reply.error ? asked.reject(new Error(reply.error.message)) : asked.resolve(reply.result);
  }
});
function ask(method, params = {}, sessionId) {
  const id = nextId++;
  child.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

async function main() {
  const { targetId } = await ask("Target.createTarget", { url: page });
  const { sessionId } = await ask("Target.attachToTarget", { targetId, flatten: true });
  const run = async (expression) => {
    const { result, exceptionDetails } = await ask("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true }, sessionId);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  const until = async (what, expression) => {
    const end = Date.now() + 20000;
    for (;;) {
      const value = await run(expression).catch(() => undefined);
      if (value) return value;
      if (Date.now() > end) throw new Error(`${what}: not within 20 s; page says ${await run("document.body.innerText.slice(0, 600)")}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  await until("both signed in", "document.querySelectorAll('.dot.on').length === 2");
  await until("a conversation is open", "document.querySelector('#left .name')?.textContent === 'bob'");
  await run("document.querySelector('#left .send input').focus()");
  await ask("Input.insertText", { text: "hello bob" }, sessionId);
  for (const type of ["keyDown", "keyUp"]) await ask("Input.dispatchKeyEvent", { type, key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: type === "keyDown" ? "\r" : undefined }, sessionId);
  const seen = await until("bob sees it", "[...document.querySelectorAll('#right .messages li')].map((li) => li.firstChild.textContent).find((text) => text === 'hello bob')");
  console.log("bob sees:", seen);
  await until("the wire shows the outcome", "document.querySelector('#frames').innerText.includes('stored')");
  await ask("Page.reload", {}, sessionId);
  await until("both are back", "document.querySelectorAll('.dot.on').length === 2");
  const again = await until("history", "[...document.querySelectorAll('#right .messages li')].map((li) => li.firstChild.textContent).find((text) => text === 'hello bob')");
  console.log("after reload:", again);
}

main().then(() => { child.kill(); process.exit(0); }, (error) => { console.error(error.message); child.kill(); process.exit(1); });
