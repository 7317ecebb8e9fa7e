// An agent that speaks AG-UI with the encoder of `@ag-ui/encoder`. PORT is the port.
import { createServer } from 'node:http';
import { EventType } from '@ag-ui/core';
import { EventEncoder } from '@ag-ui/encoder';

const RUN = { threadId: 'th1', runId: 'run1' };
const STARTED = { type: EventType.RUN_STARTED, ...RUN };
const finished = fields => ({
  type: EventType.RUN_FINISHED, ...RUN, ...fields, usage: [{ inputTokens: 9, outputTokens: 2, totalTokens: 11 }],
});
const said = delta => ({ type: EventType.TEXT_MESSAGE_CONTENT, messageId: 'm1', delta });
const BEGIN = { type: EventType.TEXT_MESSAGE_START, messageId: 'm1', role: 'assistant' };
const END = { type: EventType.TEXT_MESSAGE_END, messageId: 'm1' };
const SCRIPTS = {
  text: [
    STARTED, { type: EventType.REASONING_MESSAGE_START, messageId: 'r1', role: 'reasoning' },
    { type: EventType.REASONING_MESSAGE_CONTENT, messageId: 'r1', delta: 'hm' },
    { type: EventType.REASONING_MESSAGE_END, messageId: 'r1' }, BEGIN, said('Grüß'), said(' dich 😀'), END, finished(),
  ],
  tool: [
    STARTED, { type: EventType.TOOL_CALL_START, toolCallId: 'call_1', toolCallName: 'weather' },
    { type: EventType.TOOL_CALL_ARGS, toolCallId: 'call_1', delta: '{"city":' },
    { type: EventType.TOOL_CALL_ARGS, toolCallId: 'call_1', delta: '"Rome"}' },
    { type: EventType.TOOL_CALL_END, toolCallId: 'call_1' },
    { type: EventType.TOOL_CALL_RESULT, messageId: 'm2', toolCallId: 'call_1', content: 'clear' }, finished(),
  ],
  cancelled: [STARTED, BEGIN, said('Grüß'), END, finished({ outcome: { type: 'cancelled' } })],
  error: [STARTED, BEGIN, said('Grüß'), { type: EventType.RUN_ERROR, message: 'the model is overloaded', code: 'overloaded' }],
  cut: [STARTED, BEGIN, said('Grüß')],
  short: [STARTED, BEGIN, said('Grüß'), END],
  hang: [STARTED, BEGIN, said('Grüß')],
};

createServer(async (request, response) => {
  const name = request.url.slice(1);
  const encoder = new EventEncoder({ accept: request.headers.accept });
  const say = event => console.log(JSON.stringify({ event, at: Date.now() / 1000, path: request.url }));
  request.resume();
  response.on('close', () => response.writableFinished || say('closed'));
  response.writeHead(200, { 'content-type': encoder.getContentType() });
  for (const event of SCRIPTS[name]) {
    await new Promise(written => response.write(encoder.encode(event), written));
  }
  if (name === 'cut') return response.destroy();
  if (name === 'hang') return say('hanging');
  response.end();
}).listen(process.env.PORT, '127.0.0.1');
