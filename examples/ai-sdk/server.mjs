// A chat route as the documentation of the AI SDK writes it, for useChat. PORT is the port.
//
// The model is the SDK's mock, which repeats what it is asked; put any other in its place.
import { createServer } from 'node:http';
import { convertToModelMessages, pipeUIMessageStreamToResponse, simulateReadableStream, streamText } from 'ai';
import { MockLanguageModelV4 } from 'ai/test';

const model = new MockLanguageModelV4({
  doStream: async ({ prompt }) => {
    const asked = prompt.at(-1).content.map(part => part.text).join('');
    const words = `You said: ${asked}`.split(/(?= )/);
    return {
      stream: simulateReadableStream({
        chunkDelayInMs: 50,
        chunks: [
          { type: 'text-start', id: '1' },
          ...words.map(delta => ({ type: 'text-delta', id: '1', delta })),
          { type: 'text-end', id: '1' },
          {
            type: 'finish', finishReason: { unified: 'stop', raw: 'stop' },
            usage: { inputTokens: { total: asked.split(' ').length }, outputTokens: { total: words.length } },
          },
        ],
      }),
    };
  },
});

createServer(async (request, response) => {
  const stopped = new AbortController();
  response.on('close', () => stopped.abort());
  const { messages } = JSON.parse((await request.setEncoding('utf8').toArray()).join(''));
  const result = streamText({ model, messages: await convertToModelMessages(messages), abortSignal: stopped.signal });
  const stream = result.toUIMessageStream({
    messageMetadata: ({ part }) => (part.type === 'finish' ? { usage: part.totalUsage } : undefined),
  });
  pipeUIMessageStreamToResponse({ response, stream });
}).listen(process.env.PORT, '127.0.0.1');
