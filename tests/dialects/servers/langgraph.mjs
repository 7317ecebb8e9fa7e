// The server of LangGraph.js with the graph of `graph.mjs`. PORT is the port.
import { startServer } from '@langchain/langgraph-api/server';

await startServer({
  port: Number(process.env.PORT), host: '127.0.0.1', nWorkers: 10, cwd: process.cwd(),
  graphs: { agent: './graph.mjs:graph' },
});
