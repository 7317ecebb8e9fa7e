// Two people edit one document at the same time and see each other; a third one comes late.
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

const { URL: url, TOKEN: token } = process.env;
const LARGE = 500_000;
// The server keeps the documents of earlier clients.
const document = `minutes-${process.pid}`;

class WithCookie extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols, { headers: { cookie: `access_token=${token}` }, origin: url });
  }
}

async function open() {
  const doc = new Y.Doc();
  const provider = new WebsocketProvider(`${url.replace("http", "ws")}/documents`, document, doc, {
    WebSocketPolyfill: WithCookie,
    disableBc: true,
  });
  await until(() => provider.synced, (check) => provider.on("sync", check));
  return { doc, provider, text: doc.getText("text") };
}

function until(condition, listen) {
  return new Promise((resolve) => {
    const check = () => condition() && resolve();
    listen(check);
    check();
  });
}

const [ana, ben] = [await open(), await open()];
ana.provider.awareness.setLocalState({ name: "Ana" });
await until(
  () => [...ben.provider.awareness.getStates().values()].some(({ name }) => name === "Ana"),
  (check) => ben.provider.awareness.on("change", check),
);

ana.text.insert(0, "Hello ");
ben.text.insert(0, "x".repeat(LARGE));
const whole = ({ text }) => text.length === LARGE + 6;
for (const person of [ana, ben]) await until(() => whole(person), (check) => person.doc.on("update", check));
const late = await open();

const texts = [ana, ben, late].map(({ text }) => text.toString());
const seen = { same: new Set(texts).size, has: texts[0].includes("Hello "), length: texts[2].length };
assert.deepEqual(seen, { same: 1, has: true, length: LARGE + 6 });
console.log(JSON.stringify(seen));
for (const { provider } of [ana, ben, late]) provider.destroy();
// Awareness keeps a timer of its own.
process.exit(0);
