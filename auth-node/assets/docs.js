// Renders /openapi.json. No library, nothing from elsewhere; text goes into the page as text, never as markup.
"use strict";

const METHODS = ["get", "post", "patch", "put", "delete"];
let spec;

function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) node.setAttribute(key, value);
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// `code` spans are the only markup of our texts.
function prose(text) {
  return (text ?? "").split("`").map((piece, at) => (at % 2 ? el("code", {}, piece) : piece));
}

function follow(value) {
  if (!value || !value.$ref) return value ?? {};
  return value.$ref.slice(2).split("/").reduce((at, key) => at[key.replace("~1", "/")], spec);
}

function calls() {
  const all = [];
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const method of METHODS) if (item[method]) all.push({ path, method, ...item[method] });
  }
  return all;
}

function typeOf(schema) {
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return "list of " + (schema.items?.$ref?.split("/").pop() ?? typeOf(follow(schema.items)));
  const type = [schema.type ?? "any"].flat().join(" or ");
  return schema.format && schema.format !== "password" ? `${type} · ${schema.format}` : type;
}

function field(name, raw, must) {
  const schema = follow(raw);
  const inner = schema.type === "array" ? follow(schema.items) : schema;
  const shown = schema.type === "object" && raw.$ref ? raw.$ref.split("/").pop() : typeOf(schema);
  return el("li", {},
    el("span", { class: "name" }, name),
    el("span", { class: "type" }, shown),
    must ? el("span", { class: "must" }, "required") : null,
    schema.description ? el("p", {}, prose(schema.description)) : null,
    inner.properties ? fields(inner, false) : null);
}

function fields(schema, marked) {
  const required = new Set(marked ? schema.required ?? [] : []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, value]) => field(name, value, required.has(name)));
  return el("ul", { class: "fields" }, rows);
}

function parameters(call) {
  const rows = (call.parameters ?? []).map((parameter) =>
    el("li", {},
      el("span", { class: "name" }, parameter.name),
      el("span", { class: "type" }, `${parameter.in} · ${parameter.schema.enum?.length > 4 ? "one of the list below" : typeOf(parameter.schema)}`),
      parameter.required ? el("span", { class: "must" }, "required") : null,
      parameter.description ? el("p", {}, prose(parameter.description)) : null,
      parameter.schema.enum?.length > 4 ? el("p", {}, parameter.schema.enum.map((name) => [el("a", { href: `/problems/${name}` }, name), " "])) : null));
  return rows.length ? [el("h4", {}, "Parameters"), el("ul", { class: "fields" }, rows)] : [];
}

function body(call) {
  const schema = call.requestBody?.content["application/json"]?.schema;
  return schema ? [el("h4", {}, "Body"), fields(follow(schema), true)] : [];
}

function refusalLine(line) {
  const [, name, title] = line.match(/^`([^`]+)`: (.*)$/) ?? [];
  if (!name) return el("p", { class: "refusal" }, prose(line));
  return el("p", { class: "refusal" }, el("a", { href: `/problems/${name}` }, el("code", {}, name)), " ", title);
}

function answer(status, raw) {
  const response = follow(raw);
  const [kind, media] = Object.entries(response.content ?? {})[0] ?? [];
  const refusal = kind === "application/problem+json";
  const schema = refusal || !media ? {} : follow(media.schema);
  const headers = Object.keys(response.headers ?? {});
  return el("li", {},
    el("span", { class: `status s${status[0]}` }, status),
    el("div", {},
      refusal ? response.description.split("\n").map(refusalLine) : el("p", {}, prose(response.description)),
      headers.length ? el("p", { class: "headers" }, "with ", headers.map((name, at) => [at ? ", " : "", el("code", {}, name)])) : null,
      schema.properties ? el("details", {}, el("summary", {}, "What is in it"), fields(schema, false)) : null));
}

// What any call may be told, for reasons that have nothing to do with what it does.
const COMMON = new Set(["malformed", "payload-too-large", "unsupported-media-type", "misdirected", "forbidden", "internal"]);

function isCommon(raw) {
  const names = [...(follow(raw).description ?? "").matchAll(/^`([^`]+)`: /gm)].map((found) => found[1]);
  return names.length > 0 && names.every((name) => COMMON.has(name));
}

function answers(call) {
  const all = Object.entries(call.responses);
  const list = (some) => el("ul", { class: "answers" }, some.map(([status, response]) => answer(status, response)));
  const common = all.filter(([, response]) => isCommon(response));
  const more = common.length ? el("details", {}, el("summary", {}, `And what every such call may be told: ${common.map(([status]) => status).join(", ")}`), list(common)) : null;
  return [el("h4", {}, "Answers"), list(all.filter(([, response]) => !isCommon(response))), more];
}

function curl(call) {
  const lines = [`curl ${location.origin}${call.path.replace("{file}", "docs.css").replace("{name}", "validation").replace("{id}", "$session")}`];
  if (call.method !== "get") lines[0] = lines[0].replace("curl ", `curl -X ${call.method.toUpperCase()} `);
  if (call.security) lines.push(`-H "Authorization: Bearer $access"`);
  const example = call.requestBody?.content["application/json"]?.example;
  const shown = JSON.stringify(example, null, 2)?.replaceAll("\n", "\n  ");
  if (example) lines.push(`-H "Content-Type: application/json"`, `-d '${shown}'`);
  return lines.join(" \\\n  ");
}

const EXAMPLES = { uuid: "019a2f6e-7c1d-8a3b-9c44-5f0e2d7a1b90", "date-time": "2026-01-31T09:30:00.000Z", uri: "https://…" };

function example(raw, name) {
  const schema = follow(raw);
  const type = [schema.type].flat()[0];
  if ("const" in schema) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (type === "object") {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([key, value]) => [key, example(value, key)]));
  }
  if (type === "array") return [example(schema.items, name)];
  if (type === "integer") return name === "expires_in" ? 300 : 0;
  if (type === "boolean") return name === "current";
  const known = { email: "ada@example.com", name: "Ada", ip: "192.0.2.7", user_agent: "curl/8", access_token: "eyJ…", refresh_token: "tsr_…" };
  return EXAMPLES[schema.format] ?? known[name] ?? "…";
}

function figure(title, text, copies) {
  const button = copies ? el("button", { type: "button" }, "copy") : null;
  button?.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  return el("figure", {}, el("figcaption", {}, title, button), el("pre", {}, text));
}

function samples(call) {
  const shown = [figure("Request", curl(call), true)];
  const [status, response] = Object.entries(call.responses).find(([code]) => code.startsWith("2")) ?? [];
  const media = Object.entries(response?.content ?? {}).find(([kind]) => kind.endsWith("json"))?.[1];
  if (media && follow(media.schema).properties) {
    shown.push(figure(`Answer · ${status}`, JSON.stringify(example(media.schema), null, 2), false));
  } else if (response && !response.content) {
    const headers = Object.keys(response.headers ?? {}).filter((name) => name !== "X-Auth-Roles");
    const lines = headers.map((name) => `${name}: ${example(follow(response.headers[name]).schema)}`);
    if (lines.length) shown.push(figure(`Answer · ${status}`, lines.join("\n"), false));
  }
  return el("div", { class: "sample" }, shown);
}

function article(call) {
  return el("article", { id: call.operationId },
    el("header", {},
      el("h3", {}, call.summary),
      el("div", { class: "route" },
        el("span", { class: `method ${call.method}` }, call.method), el("span", {}, call.path),
        call.security ? el("span", { class: "lock" }, "access token") : null),
      call.description ? el("p", { class: "text" }, prose(call.description)) : null),
    el("div", {}, parameters(call), body(call), answers(call)),
    samples(call));
}

function intro() {
  return el("div", { class: "intro" },
    el("h1", {}, `${spec.info.title} API`),
    el("p", { class: "meta" }, `version ${spec.info.version} · `, el("a", { href: "/openapi.json" }, "openapi.json"), ` · ${location.origin}`),
    el("p", {}, prose(spec.info.description)));
}

function render() {
  const all = calls();
  const tiles = el("span", { class: "tiles" }, [1, 2, 3, 4].map(() => el("i")));
  const nav = document.getElementById("nav");
  const main = document.getElementById("main");
  nav.append(el("a", { class: "brand", href: "#main" }, tiles, spec.info.title));
  main.append(intro());
  for (const tag of spec.tags) {
    const group = all.filter((call) => call.tags.includes(tag.name));
    nav.append(el("h2", {}, tag.name), ...group.map((call) =>
      el("a", { class: "call", href: `#${call.operationId}` }, el("span", { class: `method ${call.method}` }, call.method), el("span", {}, call.summary))));
    main.append(el("section", {}, el("h2", {}, tag.name), el("p", {}, prose(tag.description)), group.map(article)));
  }
  if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
}

async function start() {
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`status ${response.status}`);
    spec = await response.json();
    render();
  } catch (error) {
    document.getElementById("main").append(el("p", {}, `openapi.json could not be read: ${error.message}`));
  }
}

start();
