// Each quality of service, a retained message, a large one, and the last will of a client that is cut off.
import assert from "node:assert/strict";
import { once } from "node:events";
import mqtt from "mqtt";

const { URL: url, TOKEN: token } = process.env;

function connect(more = {}) {
  return mqtt.connectAsync(`${url.replace("http", "ws")}/mqtt`, {
    reconnectPeriod: 0,
    connectTimeout: 60_000,
    wsOptions: { headers: { cookie: `access_token=${token}` }, origin: url },
    ...more,
  });
}

async function next(client) {
  const [topic, payload] = await once(client, "message");
  return [topic, payload.toString()];
}

const [sensor, reader] = [await connect(), await connect()];
await reader.subscribeAsync(["rooms/#"], { qos: 2 });
const read = [];
for (const qos of [0, 1, 2]) {
  const message = next(reader);
  await sensor.publishAsync(`rooms/${qos}`, `${20 + qos} °C`, { qos });
  read.push(await message);
}

const large = Buffer.alloc(1 << 20, "m");
const message = once(reader, "message");
await sensor.publishAsync("rooms/large", large, { qos: 1 });
const [, arrived] = await message;

await sensor.publishAsync("kept/state", "on", { qos: 1, retain: true });
const late = await connect();
const retained = next(late);
await late.subscribeAsync("kept/#");

const lost = await connect({ will: { topic: "rooms/will", payload: "gone", qos: 1 } });
const will = next(reader);
lost.stream.destroy();

const seen = {
  read,
  large: arrived.equals(large),
  retained: await retained,
  will: await will,
};
assert.deepEqual(seen, {
  read: [["rooms/0", "20 °C"], ["rooms/1", "21 °C"], ["rooms/2", "22 °C"]],
  large: true,
  retained: ["kept/state", "on"],
  will: ["rooms/will", "gone"],
});
console.log(JSON.stringify(seen));
for (const client of [sensor, reader, late]) await client.endAsync();
lost.end(true);
