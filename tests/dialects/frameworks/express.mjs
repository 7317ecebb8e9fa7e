// Express, which answers with a stream of Node.
import express from 'express';
import { Readable, pipeline } from 'node:stream';
import { TYPE, pieces } from './script.mjs';

const app = express();
app.post('/stream/:name', (request, response) => {
  response.type(TYPE);
  pipeline(Readable.from(pieces(request.params.name)), response, () => {});
});
app.listen(process.env.PORT, '127.0.0.1');
