// The APIs of models as aimock plays them, which is compared with the real services every day. PORT is the port.
import { LLMock } from '@copilotkit/aimock';

const mock = new LLMock({ port: Number(process.env.PORT), host: '127.0.0.1' });
mock.onMessage('text', { content: 'Grüß dich 😀' });
mock.onMessage('tool', { toolCalls: [{ id: 'call_1', name: 'weather', arguments: '{"city":"Rome"}' }] });
await mock.start();
