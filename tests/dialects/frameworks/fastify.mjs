// Fastify, which answers with a stream of Node.
import fastify from 'fastify';
import { Readable } from 'node:stream';
import { TYPE, pieces } from './script.mjs';

const app = fastify();
app.post('/stream/:name', (request, reply) => reply.type(TYPE).send(Readable.from(pieces(request.params.name))));
app.listen({ port: process.env.PORT, host: '127.0.0.1' });
