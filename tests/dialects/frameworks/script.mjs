// What every server here streams, by the name of the case: that of script.py.
import { setTimeout } from 'node:timers/promises';

export const TYPE = 'text/event-stream';
// What was yielded has been written before the server is killed, and keep-alives are this far apart.
const PAUSE = 50;

export async function* pieces(name) {
  if (name === 'early') throw new Error('failure');
  yield 'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n';
  try {
    while (name === 'hang') {
      await setTimeout(PAUSE);
      yield ': ping\n\n';
    }
  } finally {
    if (name === 'hang') console.log('closed');
  }
  await setTimeout(PAUSE);
  if (name === 'raise') throw new Error('failure');
  if (name === 'kill') process.kill(process.pid, 'SIGKILL');
  yield 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n';
}
