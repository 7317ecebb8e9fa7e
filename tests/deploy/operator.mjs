// Objects of the Prometheus operator, each checked against its kind's schema: operator.mjs NODE_MODULES FILE. The
// schemas are those of @kubernetes-models/prometheus-operator. They let fields pass that they do not know, which a
// cluster refuses or drops, so names are held to the package's declarations.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, file] = process.argv.slice(2);
const home = path.resolve(modules, "@kubernetes-models/prometheus-operator");

// The declared type of what stands in a field.
const types = {
  endpoints: "Endpoint",
  podMetricsEndpoints: "PodMetricsEndpoint",
  relabelings: "RelabelConfig",
  groups: "RuleGroup",
  rules: "Rule",
};

function check(value, type, version, where) {
  const declared = fs.readFileSync(path.join(home, version, `${type}.d.ts`), "utf8");
  for (const [name, inner] of Object.entries(value)) {
    if (!new RegExp(`^\\s*"${name}"\\??:`, "m").test(declared)) {
      throw new Error(`${where}: ${type} has no ${name}`);
    }
    for (const one of name in types ? inner : []) check(one, types[name], version, `${where}.${name}`);
  }
}

for (const object of JSON.parse(fs.readFileSync(file, "utf8"))) {
  const name = `${object.kind}/${object.metadata.name}`;
  try {
    const schema = await import(pathToFileURL(path.join(home, object.apiVersion, `${object.kind}.js`)));
    new schema[object.kind](object).validate();
    check(object.spec, `${object.kind}Spec`, object.apiVersion, "spec");
    console.log(`ok: ${name}`);
  } catch (error) {
    process.exitCode = 1;
    console.error(`${name}: ${error.message}`);
  }
}
