// asyncapi.mjs FILE: what AsyncAPI's own parser says of a description. Fails on errors and warnings.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "node_modules/"));
const { Parser } = require("@asyncapi/parser");

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
// 0 is an error, 1 a warning; what is less is advice.
const wrong = diagnostics.filter(({ severity }) => severity <= 1);
for (const { code, message, path } of wrong) console.error(`${path.join(".")}: ${message} (${code})`);
if (!document || wrong.length > 0) process.exit(1);
console.log(`${document.operations().all().length} operations, ${document.messages().all().length} messages`);
