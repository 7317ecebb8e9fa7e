// An agent with one tool. The first message is the name of the script that its model follows.
import { AIMessageChunk } from '@langchain/core/messages';
import { SimpleChatModel } from '@langchain/core/language_models/chat_models';
import { ChatGenerationChunk } from '@langchain/core/outputs';
import { tool } from '@langchain/core/tools';
import { MessagesAnnotation, StateGraph } from '@langchain/langgraph';
import { ToolNode } from '@langchain/langgraph/prebuilt';
import { z } from 'zod';

const call = piece => ({ content: '', tool_call_chunks: [{ index: 0, ...piece }] });
const USAGE = { input_tokens: 9, output_tokens: 2, total_tokens: 11 };
const END = { content: '', usage_metadata: USAGE, response_metadata: { finish_reason: 'stop' } };
const SCRIPTS = {
  text: [{ content: 'Grüß' }, { content: ' dich 😀' }, END],
  tool: [call({ id: 'call_1', name: 'weather', args: '' }), call({ args: '{"city":' }), call({ args: '"Rome"}' })],
  error: [{ content: 'Grüß' }],
  hang: [{ content: 'Grüß' }],
};
const say = event => console.log(JSON.stringify({ event, at: Date.now() / 1000, path: '/hang' }));

class ScriptedModel extends SimpleChatModel {
  _llmType() { return 'scripted'; }

  async* _streamResponseChunks(messages, options, manager) {
    const asked = messages.find(message => message.getType() === 'human').content;
    const name = messages.some(message => message.getType() === 'tool') ? 'text' : asked;
    for (const fields of SCRIPTS[name]) {
      const chunk = new ChatGenerationChunk({ message: new AIMessageChunk(fields), text: fields.content });
      yield chunk;
      await manager?.handleLLMNewToken(chunk.text, undefined, undefined, undefined, undefined, { chunk });
    }
    if (name === 'error') throw new Error('the model is overloaded');
    if (name === 'hang') {
      say('hanging');
      await new Promise((_, reject) => options.signal?.addEventListener('abort', () => {
        say('closed');
        reject(new Error('aborted'));
      }));
    }
  }
}

const weather = tool(async ({ city }) => `clear in ${city}`, {
  name: 'weather', description: 'The weather of a city', schema: z.object({ city: z.string() }),
});

async function agent({ messages }, config) {
  return { messages: [await new ScriptedModel({}).invoke(messages, config)] };
}

export const graph = new StateGraph(MessagesAnnotation)
  .addNode('agent', agent)
  .addNode('tools', new ToolNode([weather]))
  .addEdge('__start__', 'agent')
  .addConditionalEdges('agent', ({ messages }) => (messages.at(-1).tool_calls?.length ? 'tools' : '__end__'))
  .addEdge('tools', 'agent')
  .compile();
