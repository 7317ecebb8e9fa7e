// GraphQL on one path: queries by POST, subscriptions over a WebSocket.
import { createServer } from "node:http";
import { setImmediate } from "node:timers/promises";
import { buildSchema } from "graphql";
import { createHandler } from "graphql-http/lib/use/http";
import { useServer } from "graphql-ws/use/ws";
import { WebSocketServer } from "ws";

const schema = buildSchema(`
  type Query { hello(name: String!): String! }
  type Subscription { count(to: Int!): Int! }
`);
const rootValue = {
  hello: ({ name }) => `Hello ${name}`,
  async *count({ to }) {
    for (let number = 1; number <= to; number += 1) {
      yield { count: number };
      await setImmediate(); // so that it can be ended
    }
  },
};

const graphql = createHandler({ schema, rootValue });
const http = createServer((request, response) => {
  if (request.url.startsWith("/graphql")) return graphql(request, response);
  response.writeHead(404).end();
});
useServer(
  { schema, roots: { subscription: rootValue, query: rootValue }, onConnect: ({ connectionParams }) => connectionParams?.key === "open" },
  new WebSocketServer({ server: http, path: "/graphql" }),
);
http.listen(Number(process.env.PORT), "127.0.0.1");
