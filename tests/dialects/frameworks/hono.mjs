// Hono on Node, with its helper for streams.
import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import { stream } from 'hono/streaming';
import { TYPE, pieces } from './script.mjs';

const app = new Hono();
app.post('/stream/:name', context => {
  context.header('content-type', TYPE);
  return stream(context, async out => {
    for await (const piece of pieces(context.req.param('name'))) {
      // Writing to a client that has gone does not fail.
      if (out.aborted) break;
      await out.write(piece);
    }
  });
});
serve({ fetch: app.fetch, port: Number(process.env.PORT), hostname: '127.0.0.1' });
