// Routes made with the `ai` package's own helpers and its mock of a language model. PORT is the port.
//
// `/ui/CASE` answers with toUIMessageStreamResponse, `/pipe/CASE` with pipeUIMessageStreamToResponse, `/create/CASE` with
// createUIMessageStreamResponse, and `/legacy/CASE` with toDataStreamResponse of AI SDK 4.
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import {
  createUIMessageStream, createUIMessageStreamResponse, pipeUIMessageStreamToResponse, stepCountIs, streamText, tool,
} from 'ai';
import { MockLanguageModelV4 } from 'ai/test';
import { streamText as streamTextV4 } from 'ai-v4';
import { MockLanguageModelV1 } from 'ai-v4/test';
import { z } from 'zod';

const CUT = Symbol('cut'), HANG = Symbol('hang');
const USAGE = { inputTokens: { total: 9 }, outputTokens: { total: 2 } };
const text = (...deltas) => [
  { type: 'text-start', id: 't' }, ...deltas.map(delta => ({ type: 'text-delta', id: 't', delta })),
];
const finish = unified => ({ type: 'finish', finishReason: { unified, raw: unified }, usage: USAGE });
const call = { type: 'tool-call', toolCallId: 'call_1', toolName: 'weather', input: '{"city":"Rome"}' };
const BEGIN = { type: 'stream-start', warnings: [] };

// What the model streams.
const SCRIPTS = {
  text: [
    BEGIN, { type: 'reasoning-start', id: 'r' }, { type: 'reasoning-delta', id: 'r', delta: 'hm' },
    { type: 'reasoning-end', id: 'r' }, ...text('Grüß', ' dich 😀'), { type: 'text-end', id: 't' }, finish('stop'),
  ],
  tool: [
    BEGIN, { type: 'tool-input-start', id: 'call_1', toolName: 'weather' },
    { type: 'tool-input-delta', id: 'call_1', delta: '{"city":' }, { type: 'tool-input-delta', id: 'call_1', delta: '"Rome"}' },
    { type: 'tool-input-end', id: 'call_1' }, call, finish('tool-calls'),
  ],
  refusal: [BEGIN, ...text('Grüß'), { type: 'text-end', id: 't' }, finish('content-filter')],
  length: [BEGIN, ...text('Grüß'), { type: 'text-end', id: 't' }, finish('length')],
  error: [BEGIN, ...text('Grüß'), { type: 'error', error: new Error('the model is overloaded') }, finish('error')],
  cut: [BEGIN, ...text('Grüß'), HANG],
  hang: [BEGIN, ...text('Grüß'), HANG],
};
const LEGACY = {
  text: [
    { type: 'reasoning', textDelta: 'hm' }, { type: 'text-delta', textDelta: 'Grüß' },
    { type: 'text-delta', textDelta: ' dich 😀' }, { type: 'finish', finishReason: 'stop' },
  ],
  tool: [
    { type: 'tool-call-delta', toolCallType: 'function', toolCallId: 'call_1', toolName: 'weather', argsTextDelta: '{"city":' },
    { type: 'tool-call-delta', toolCallType: 'function', toolCallId: 'call_1', toolName: 'weather', argsTextDelta: '"Rome"}' },
    { type: 'tool-call', toolCallType: 'function', toolCallId: 'call_1', toolName: 'weather', args: '{"city":"Rome"}' },
    { type: 'finish', finishReason: 'tool-calls' },
  ],
  refusal: [{ type: 'text-delta', textDelta: 'Grüß' }, { type: 'finish', finishReason: 'content-filter' }],
  error: [{ type: 'text-delta', textDelta: 'Grüß' }, { type: 'error', error: new Error('the model is overloaded') }],
  cut: [{ type: 'text-delta', textDelta: 'Grüß' }, HANG],
  hang: [{ type: 'text-delta', textDelta: 'Grüß' }, HANG],
};

const say = fields => console.log(JSON.stringify({ at: Date.now() / 1000, ...fields }));

/** The parts of a script; after HANG the stream stays open. */
const partsOf = script => new ReadableStream({
  async start(controller) {
    for (const part of script) {
      if (part === HANG) return;
      controller.enqueue(part);
      await new Promise(setImmediate);
    }
    controller.close();
  },
});

/** The second step of a conversation with a tool is the model's answer to the tool's result. */
function model(name) {
  let step = 0;
  return new MockLanguageModelV4({
    doStream: async () => ({ stream: partsOf(step++ === 0 ? SCRIPTS[name] : SCRIPTS.text) }),
  });
}

const weather = tool({
  description: 'The weather of a city', inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => ({ city, sky: 'clear' }),
});

const usageOf = ({ part }) => (part.type === 'finish' ? { usage: part.totalUsage } : undefined);
const OPTIONS = { sendReasoning: true, onError: error => error.message, messageMetadata: usageOf };

const ask = (name, signal) => streamText({
  model: model(name), prompt: 'hi', tools: { weather }, stopWhen: stepCountIs(2), abortSignal: signal,
  onError: () => {}, onAbort: () => say({ event: 'aborted', case: name }),
});

const legacy = name => {
  const model = new MockLanguageModelV1({
    doStream: async () => ({
      rawCall: { rawPrompt: null, rawSettings: {} },
      stream: partsOf(LEGACY[name].map(part => (
        part.type === 'finish' ? { ...part, usage: { promptTokens: 9, completionTokens: 2 } } : part))),
    }),
  });
  const tools = { weather: { description: 'w', parameters: z.object({ city: z.string() }), execute: weather.execute } };
  return streamTextV4({ model, prompt: 'hi', tools, onError: () => {} })
    .toDataStreamResponse({ sendReasoning: true, getErrorMessage: error => error.message });
};

/** A stream that the route writes itself, with parts that only it knows. */
const created = name => createUIMessageStreamResponse({
  stream: createUIMessageStream({
    execute: async ({ writer }) => {
      writer.write({ type: 'start', messageId: 'a1' });
      writer.write({ type: 'data-weather', id: 'd', data: { sky: 'clear' } });
      writer.write({ type: 'source-url', sourceId: 's', url: 'https://example.com/' });
      writer.write({ type: 'text-start', id: 't' });
      writer.write({ type: 'text-delta', id: 't', delta: 'Grüß' });
      if (name === 'error') throw new Error('the model is overloaded');
      if (name === 'abort') return writer.write({ type: 'abort', reason: 'the user left' });
      if (name === 'short') return;
      writer.write({ type: 'text-end', id: 't' });
      writer.write({ type: 'finish', finishReason: 'stop' });
    },
    onError: error => error.message,
  }),
});

async function respond(kind, name, response, signal) {
  if (kind === 'pipe') {
    const stream = ask(name, signal).toUIMessageStream(OPTIONS);
    return pipeUIMessageStreamToResponse({ response, stream });
  }
  const answer = { ui: () => ask(name, signal).toUIMessageStreamResponse(OPTIONS), legacy: () => legacy(name), create: () => created(name) }[kind]();
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  Readable.fromWeb(answer.body).pipe(response);
}

createServer((request, response) => {
  const [, kind, name] = request.url.split('/');
  const controller = new AbortController();
  request.resume();
  response.on('close', () => {
    if (!response.writableFinished) say({ event: 'closed', path: request.url });
    controller.abort();
  });
  request.on('end', () => {
    respond(kind, name, response, controller.signal).catch(error => response.destroy(error));
    if (name === 'hang') say({ event: 'hanging', path: request.url });
    // The text has been written before the process of a backend that dies closes its connections.
    if (name === 'cut') cutAfter(response, 'Gr');
  });
}).listen(process.env.PORT, '127.0.0.1');

/** Closes the connection as soon as `text` has been written. */
function cutAfter(response, text) {
  const write = response.write;
  response.write = function (chunk, ...rest) {
    const isLast = Buffer.from(chunk).includes(text);
    return write.call(this, chunk, ...rest, ...(isLast ? [() => response.destroy()] : []));
  };
}
