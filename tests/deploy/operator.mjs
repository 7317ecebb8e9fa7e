// Objects of the Prometheus operator, each checked against its kind's schema: operator.mjs NODE_MODULES FILE. The
// schemas are those of @kubernetes-models/prometheus-operator.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, file] = process.argv.slice(2);
for (const object of JSON.parse(fs.readFileSync(file, "utf8"))) {
  const name = `${object.kind}/${object.metadata.name}`;
  try {
    const kind = `@kubernetes-models/prometheus-operator/${object.apiVersion}/${object.kind}.js`;
    const schema = await import(pathToFileURL(path.resolve(modules, kind)));
    new schema[object.kind](object).validate();
    console.log(`ok: ${name}`);
  } catch (error) {
    process.exitCode = 1;
    console.error(`${name}: ${error.message}`);
  }
}
