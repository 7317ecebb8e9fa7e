// What every server here streams: `end` ends, `raise` fails in the middle, and `kill` kills the server there.
import { setTimeout } from 'node:timers/promises';

export const TYPE = 'text/event-stream';

export async function* pieces(name) {
  yield 'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n';
  // What was yielded has been written before the server is killed.
  await setTimeout(50);
  if (name === 'raise') throw new Error('failure');
  if (name === 'kill') process.kill(process.pid, 'SIGKILL');
  yield 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n';
}
