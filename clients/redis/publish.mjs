// Publishes with history: node publish.mjs REDIS_URL CHANNEL JSON…
//
// Needs the `ioredis` package. In a worker, use `publisher` and publish.lua.

import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import Redis from "ioredis";

const script = readFileSync(new URL("publish.lua", import.meta.url), "utf8");

// `size` and `ttlMs` are those of the gateway's [route.history].
export function publisher(url, { prefix = "tg:", size = 1000, ttlMs = 300_000 } = {}) {
  const redis = new Redis(url);
  redis.defineCommand("publishWithHistory", { numberOfKeys: 2, lua: script });
  return {
    async publish(channel, event) {
      const base = `${prefix}{${channel}}`;
      const keys = [`${base}:stream`, `${base}:meta`];
      const [epoch, offset] = await redis.publishWithHistory(...keys, channel, size, ttlMs, JSON.stringify(event));
      return { epoch, offset };
    },
    close: () => redis.quit(),
  };
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [url, channel, ...events] = process.argv.slice(2);
  const client = publisher(url);
  for (const event of events) {
    const { epoch, offset } = await client.publish(channel, JSON.parse(event));
    console.log(epoch, offset);
  }
  await client.close();
}
