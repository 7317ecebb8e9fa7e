// The service on Node: ws and ioredis. Each socket is on the channel that its path ends with. POST /publish/{channel}
// delivers the body, or each line of it. Messages are relayed to an HTTP upstream, or to a list in Redis.
import http from "node:http";
import { createRequire } from "node:module";
import { randomUUID } from "node:crypto";

const require = createRequire(`${process.env.MODULES}/`);
const { WebSocketServer } = require("ws");
const Redis = require("ioredis");

const { PORT, REDIS_PORT, UPSTREAM, LIST } = process.env;
const channels = new Map();
const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });
const subscriber = REDIS_PORT ? new Redis(Number(REDIS_PORT), "127.0.0.1") : null;
const commands = REDIS_PORT ? new Redis(Number(REDIS_PORT), "127.0.0.1", { enableAutoPipelining: true }) : null;

function deliver(channel, data) {
  for (const socket of channels.get(channel) ?? []) socket.send(data, { binary: false });
}

function relay(message, done) {
  const task = randomUUID();
  const body = JSON.stringify({ ...message, task_id: task });
  const queued = JSON.stringify({ event: "task_queued", task_id: task });
  if (LIST) {
    commands.lpush(LIST, body).then(() => done([queued]));
    return;
  }
  const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
  const request = http.request(UPSTREAM, { method: "POST", agent, headers }, (response) => {
    let text = "";
    response.setEncoding("utf8");
    response.on("data", (piece) => (text += piece));
    response.on("end", () => {
      const events = text.split("\n").filter((line) => line.startsWith("data: "));
      done([queued, ...events.map((line) => line.slice(6))]);
    });
  });
  request.end(body);
}

const server = http.createServer((request, response) => {
  const channel = request.url.split("/").pop();
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    for (const line of Buffer.concat(pieces).toString().split("\n")) deliver(channel, Buffer.from(line));
    response.writeHead(200, { "Content-Length": 2 });
    response.end("{}");
  });
});
server.keepAliveTimeout = 600000;

new WebSocketServer({ server, perMessageDeflate: false }).on("connection", (socket, request) => {
  const channel = request.url.split("/").pop();
  if (!channels.has(channel)) {
    channels.set(channel, new Set());
    subscriber?.subscribe(channel);
  }
  channels.get(channel).add(socket);
  socket.on("message", (data) => {
    relay(JSON.parse(data), (events) => events.forEach((event) => socket.send(event)));
  });
  socket.on("close", () => {
    const sockets = channels.get(channel);
    sockets.delete(socket);
    if (sockets.size === 0) {
      channels.delete(channel);
      subscriber?.unsubscribe(channel);
    }
  });
});
subscriber?.on("messageBuffer", (channel, data) => deliver(channel.toString(), data));
server.listen(Number(PORT), "127.0.0.1", 4096);
