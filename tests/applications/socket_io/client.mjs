// Three clients in two rooms, acknowledgements, binary data, a namespace with a password, and each way to end.
import assert from "node:assert/strict";
import { once } from "node:events";
import { io } from "socket.io-client";

const { URL: url, TOKEN: token } = process.env;
const options = { forceNew: true, timeout: 60_000, extraHeaders: { cookie: `access_token=${token}` } };

async function join(room, more = {}) {
  const socket = io(url, { ...options, ...more });
  const transports = [];
  const heard = [];
  socket.on("said", (where, text) => heard.push([where, text]));
  socket.io.on("open", () => {
    transports.push(socket.io.engine.transport.name);
    socket.io.engine.on("upgrade", (transport) => transports.push(transport.name));
  });
  await once(socket, "connect");
  if (transports.at(-1) !== "websocket" && !more.transports) await once(socket.io.engine, "upgrade");
  assert.equal(await socket.emitWithAck("join", room), true);
  return { socket, transports, heard };
}

const ana = await join("a");
const ben = await join("a");
const cleo = await join("b");
const poller = await join("a", { transports: ["polling"] });
const direct = await join("b", { transports: ["websocket"] });

const everybody = [ana, ben, cleo, poller, direct];
const rounds = everybody.map(({ socket }) => once(socket, "said"));
ana.socket.emit("say", "a", "hello");
cleo.socket.emit("say", "b", "bonjour");
await Promise.all(rounds);

const bytes = Buffer.alloc(300_000, 7);
const doubled = [];
for (const { socket } of [ana, poller]) {
  doubled.push(Buffer.from(await socket.emitWithAck("double", bytes)).equals(Buffer.concat([bytes, bytes])));
}

const admin = io(`${url}/admin`, { ...options, auth: { password: "open" } });
await once(admin, "connect");
const intruder = io(`${url}/admin`, { ...options, auth: { password: "wrong" } });
const [refused] = await once(intruder, "connect_error");

const ended = once(ben.socket, "disconnect");
ben.socket.emit("leave me");
const [reason] = await ended;

const page = await fetch(url, { headers: { cookie: `access_token=${token}` } });
const seen = {
  transports: everybody.map(({ transports }) => transports),
  heard: everybody.map(({ heard }) => heard),
  doubled,
  refused: refused.message,
  reason,
  page: [page.status, await page.text()],
};
assert.deepEqual(seen, {
  transports: [["polling", "websocket"], ["polling", "websocket"], ["polling", "websocket"], ["polling"], ["websocket"]],
  heard: [[["a", "hello"]], [["a", "hello"]], [["b", "bonjour"]], [["a", "hello"]], [["b", "bonjour"]]],
  doubled: [true, true],
  refused: "wrong password",
  reason: "io server disconnect",
  page: [200, "the page"],
});
console.log(JSON.stringify(seen));
for (const socket of [...everybody.map(({ socket }) => socket), admin, intruder]) socket.disconnect();
