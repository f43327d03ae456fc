// Shows openapi.json as a list of addresses. Text goes into text nodes only.
"use strict";

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function resolved(spec, schema) {
  const reference = schema && schema.$ref;
  return reference ? spec.components.schemas[reference.split("/").pop()] : schema || {};
}

function kind(spec, schema) {
  const found = resolved(spec, schema);
  if (found.enum) return found.enum.join(" | ");
  if (found.anyOf) return found.anyOf.map((each) => kind(spec, each)).join(" or ");
  if (found.type === "array") return "list of " + kind(spec, found.items || {});
  const range = [found.minimum, found.maximum].some((each) => each !== undefined);
  return (found.title && found.properties ? found.title : found.type || "any")
    + (range ? ` ${found.minimum ?? ""} to ${found.maximum ?? ""}` : "");
}

function fields(spec, rows) {
  const table = element("table", null);
  for (const [name, schema, note] of rows) {
    const about = [note, resolved(spec, schema).description].filter(Boolean).join(" ");
    table.append(element("tr", null, element("td", null, element("code", name)), element("td", kind(spec, schema)), element("td", about)));
  }
  return table;
}

function route(spec, method, path, facts) {
  const summary = element("summary", null, element("b", method.toUpperCase()), element("code", path), " ", facts.summary || "");
  const made = element("details", null, summary, element("p", facts.description || ""));
  if (facts.parameters) {
    made.append(fields(spec, facts.parameters.map((each) => [each.name, each.schema, `in ${each.in}.`])));
  }
  for (const [type, body] of Object.entries((facts.requestBody || {}).content || {})) {
    const schema = resolved(spec, body.schema);
    made.append(element("p", `Body: ${type}`), fields(spec, Object.entries(schema.properties || {})));
  }
  made.append(element("p", "Answers: " + Object.keys(facts.responses || {}).join(", ")));
  return made;
}

function show(spec) {
  const main = document.getElementById("routes");
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, facts] of Object.entries(methods)) {
      const tag = (facts.tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, element("section", null, element("h2", tag)));
      groups.get(tag).append(route(spec, method, path, facts));
    }
  }
  main.replaceChildren(...groups.values());
}

async function load() {
  const answer = await fetch("/openapi.json");
  document.getElementById("token").hidden = answer.status !== 401;
  if (answer.ok) show(await answer.json());
}

document.getElementById("find").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const each of document.querySelectorAll("details")) each.hidden = !each.textContent.toLowerCase().includes(wanted);
});
document.getElementById("token").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = new FormData(event.target).get("token");
  await fetch("/v1/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });
  load();
});
load();
