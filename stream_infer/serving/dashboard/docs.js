// The API page: each route of /openapi.json, with a form that tries it.

import { ask, events, problem, setToken } from "/static/api.js";

const LIVE_EVENTS = 10;
const $ = (id) => document.getElementById(id);

function make(tag, classes = "", text = "") {
  const made = document.createElement(tag);
  made.className = classes;
  made.textContent = text;
  return made;
}

function labelled(text, input) {
  const label = make("label", "", text);
  label.append(input);
  return label;
}

const paragraphs = (text) => text.replace(/([^\n])\n(?!\n)/g, "$1 ");
const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

// A form with a field for each parameter, and the body's examples to choose from.
function tryForm(method, path, operation) {
  const form = make("form");
  const inputs = (operation.parameters ?? []).map((parameter) => {
    const input = make("input");
    input.value = parameter.example ?? "";
    input.required = parameter.required ?? false;
    form.append(labelled(`${parameter.name} (${parameter.in})`, input));
    return { parameter, input };
  });
  let body = null;
  const content = operation.requestBody?.content["application/json"];
  if (content) {
    const examples = Object.entries(content.examples ?? {});
    const choice = make("select");
    choice.append(...examples.map(([name]) => new Option(name, name)));
    body = make("textarea");
    body.spellcheck = false;
    const fill = () => { body.value = pretty(content.examples?.[choice.value]?.value ?? {}); };
    choice.addEventListener("change", fill);
    fill();
    form.append(labelled("example", choice), labelled("body", body));
  }
  const send = make("button", "", "Try it");
  const status = make("small");
  const shown = make("pre");
  shown.hidden = true;
  form.append(send, status, shown);
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    let url = path;
    const query = new URLSearchParams();
    for (const { parameter, input } of inputs) {
      if (parameter.in === "path") url = url.replace(new RegExp(`\\{${parameter.name}(:path)?\\}`), encodeURIComponent(input.value));
      else if (input.value) query.set(parameter.name, input.value);
    }
    if (query.size) url += `?${query}`;
    send.disabled = true;
    try {
      await tryIt(method, url, body, status, shown);
    } catch (error) {
      status.textContent = error.message;
    } finally {
      send.disabled = false;
    }
  });
  return form;
}

async function tryIt(method, url, body, status, shown) {
  const began = performance.now();
  const options = { method: method.toUpperCase() };
  if (body) Object.assign(options, { body: body.value, headers: { "Content-Type": "application/json" } });
  const answer = await ask(url, options);
  status.textContent = `${answer.status} ${answer.statusText} · ${(performance.now() - began).toFixed(1)} ms`;
  shown.hidden = false;
  shown.textContent = "";
  if ((answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
    let n = 0;
    for await (const { event, data } of events(answer.body)) {
      shown.textContent += `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
      if (++n >= LIVE_EVENTS) break;
    }
    return;
  }
  const text = await answer.text();
  try {
    shown.textContent = pretty(JSON.parse(text));
  } catch {
    shown.textContent = text;
  }
}

function route(method, path, operation) {
  const details = make("details", "card route");
  const summary = make("summary");
  summary.append(make("span", `method ${method}`, method.toUpperCase()), make("span", "path", path), make("span", "", operation.summary));
  details.append(summary, make("p", "", paragraphs(operation.description ?? "")), tryForm(method, path, operation));
  for (const [status, response] of Object.entries(operation.responses)) {
    const example = Object.values(response.content ?? {})[0]?.example;
    if (example === undefined || status !== "200") continue;
    details.append(make("p", "", "An answer:"), make("pre", "", pretty(example)));
  }
  return details;
}

async function start() {
  const answer = await ask("/openapi.json");
  $("token-form").hidden = answer.status !== 401;
  if (!answer.ok) {
    $("notice").hidden = answer.status === 401;
    $("notice").textContent = await problem(answer);
    return;
  }
  const description = await answer.json();
  const intro = make("section", "card intro");
  intro.append(make("strong", "", `${description.info.title} API`), make("p", "", description.info.description));
  const routes = Object.entries(description.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => route(method, path, operation)));
  $("routes").replaceChildren(intro, ...routes);
}

$("token-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  setToken($("token").value);
  start();
});
start();
