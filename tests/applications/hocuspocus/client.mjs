// Two people edit one document; one with a wrong token may not.
import assert from "node:assert/strict";
import { HocuspocusProvider, HocuspocusProviderWebsocket } from "@hocuspocus/provider";
import { WebSocket } from "ws";

const { URL: url, TOKEN: token } = process.env;

class WithCookie extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols, { headers: { cookie: `access_token=${token}` }, origin: url });
  }
}

const sockets = [];
function provider(key, more) {
  const websocketProvider = new HocuspocusProviderWebsocket({
    url: `${url.replace("http", "ws")}/collaboration`,
    WebSocketPolyfill: WithCookie,
  });
  sockets.push(websocketProvider);
  const made = new HocuspocusProvider({ websocketProvider, name: `minutes-${process.pid}`, token: key, ...more });
  made.attach();
  return made;
}

const opened = (key) => new Promise((resolve) => {
  const made = provider(key, { onSynced: () => resolve(made) });
});
const [ana, ben] = [await opened("open"), await opened("open")];
const text = new Promise((resolve) => {
  const shared = ben.document.getText("text");
  shared.observe(() => resolve(shared.toString()));
});
ana.document.getText("text").insert(0, "Hello");
const refused = new Promise((resolve) => {
  provider("wrong", { onAuthenticationFailed: ({ reason }) => resolve(reason) });
});

const seen = { text: await text, refused: await refused };
assert.deepEqual(seen, { text: "Hello", refused: "permission-denied" });
console.log(JSON.stringify(seen));
for (const socket of sockets) socket.destroy();
process.exit(0);
