// A query by POST, a query and subscriptions over a WebSocket, a client that ends one early, and one without the key.
import assert from "node:assert/strict";
import { createClient } from "graphql-ws";
import { WebSocket } from "ws";

const { URL: url, TOKEN: token } = process.env;
const headers = { cookie: `access_token=${token}` };

class WithCookie extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols, { headers, origin: url });
  }
}

function client(key, on = {}) {
  return createClient({
    url: `${url.replace("http", "ws")}/graphql`,
    webSocketImpl: WithCookie,
    connectionParams: { key },
    retryAttempts: 0,
    lazy: false,
    onNonLazyError: () => {},
    on,
  });
}

async function post(query) {
  const answer = await fetch(`${url}/graphql`, {
    method: "POST",
    headers: { ...headers, "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify({ query }),
  });
  return [answer.status, await answer.json()];
}

async function all(iterator, most = Infinity) {
  const values = [];
  for await (const value of iterator) {
    values.push(value);
    if (values.length === most) break;
  }
  return values;
}

let subprotocol;
const graphql = client("open", { connected: (socket) => (subprotocol = socket.protocol) });
const refused = new Promise((resolve) => {
  client("wrong", { closed: ({ code, reason }) => resolve([code, reason]) });
});

const seen = {
  posted: await post('{ hello(name: "Ana") }'),
  wrong: (await post("{ nothing }"))[1].errors.length,
  queried: await all(graphql.iterate({ query: '{ hello(name: "Ben") }' })),
  counted: (await all(graphql.iterate({ query: "subscription { count(to: 500) }" }))).length,
  ended: await all(graphql.iterate({ query: "subscription { count(to: 1000000) }" }), 2),
  after: await all(graphql.iterate({ query: "subscription { count(to: 1) }" })),
  refused: await refused,
  subprotocol,
};
await graphql.dispose();
assert.deepEqual(seen, {
  posted: [200, { data: { hello: "Hello Ana" } }],
  wrong: 1,
  queried: [{ data: { hello: "Hello Ben" } }],
  counted: 500,
  ended: [{ data: { count: 1 } }, { data: { count: 2 } }],
  after: [{ data: { count: 1 } }],
  refused: [4403, "Forbidden"],
  subprotocol: "graphql-transport-ws",
});
console.log(JSON.stringify(seen));
