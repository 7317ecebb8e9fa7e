// Microsoft's client, over the transports that the server does as Microsoft's own: it negotiates by POST, calls, streams, and hears its group.
import assert from "node:assert/strict";
import { HttpTransportType, HubConnectionBuilder, LogLevel } from "@microsoft/signalr";

const { URL: url, TOKEN: token } = process.env;
const transports = {
  negotiated: undefined,
  "WebSockets only": HttpTransportType.WebSockets,
  "server-sent events": HttpTransportType.ServerSentEvents,
};

async function join(transport) {
  const connection = new HubConnectionBuilder()
    .withUrl(`${url}/hub`, { transport, headers: { Cookie: `access_token=${token}` } })
    .configureLogging(LogLevel.None)
    .build();
  const said = new Promise((resolve) => connection.on("said", (room, text) => resolve([room, text])));
  await connection.start();
  assert.equal(await connection.invoke("Join", "a"), true);
  return { connection, said };
}

function all(stream) {
  return new Promise((complete, error) => {
    const items = [];
    stream.subscribe({ next: (item) => items.push(item), complete: () => complete(items), error });
  });
}

const people = {};
for (const [name, transport] of Object.entries(transports)) people[name] = await join(transport);
await people.negotiated.connection.invoke("Say", "a", "hello");

const seen = {};
for (const [name, { connection, said }] of Object.entries(people)) {
  const counted = await all(connection.stream("Count", 3));
  seen[name] = [connection.connection.transport.constructor.name, await said, counted];
  await connection.stop();
}
const expected = (transport) => [transport, ["a", "hello"], [1, 2, 3]];
assert.deepEqual(seen, {
  negotiated: expected("WebSocketTransport"),
  "WebSockets only": expected("WebSocketTransport"),
  "server-sent events": expected("ServerSentEventsTransport"),
});
console.log(JSON.stringify(seen));
