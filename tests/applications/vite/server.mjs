// Vite's development server with a page whose module accepts its own updates.
import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "vite";

await mkdir("site", { recursive: true });
await writeFile("site/index.html", `<!doctype html><title>Page</title><link rel="icon" href="data:,">
<p id="text"></p><script type="module" src="/main.js"></script>`);
await writeFile("site/main.js", `import { text } from "./text.js";
const show = (found) => (document.querySelector("#text").textContent = found);
show(text);
import.meta.hot.accept("./text.js", (module) => show(module.text));
import.meta.hot.on("answer", (data) => (document.title = data));
window.ask = (question) => import.meta.hot.send("question", question);`);
await writeFile("site/text.js", `export const text = "none";`);

const server = await createServer({
  root: "site",
  cacheDir: "cache",
  configFile: false,
  logLevel: "warn",
  server: { host: "127.0.0.1", port: Number(process.env.PORT), strictPort: true },
});
server.ws.on("question", (question, client) => client.send("answer", `${question}, yes`));
await server.listen();
