// The live page: follows one topology's results. Content of events is shown as text only.

import { ask, events, problem, setToken } from "/static/api.js";
import { drawChart } from "/static/chart.js";

const ROWS = 20;
const PER_SECOND = 40;
const MARKED = 5; // more new rows than these at once are not marked: all would be
const SUMMARIES = 300;
const $ = (id) => document.getElementById(id);

let topologies = [];
let following = null; // aborts the stream that is open
let seen = empty();

function empty() {
  return { summaries: [], predictions: 0, outcomes: 0, degraded: 0, squares: 0, running: [], lost: 0, waiting: [] };
}

function setState(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

function notify(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function cell(row, text, classes = "") {
  const made = row.insertCell();
  made.textContent = text;
  made.className = classes;
  return made;
}

const number = (value, digits = 1) =>
  value === null || value === undefined ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const whole = (value) => Math.round(value).toLocaleString("en");
const milliseconds = (value) => (value === null || value === undefined ? "–" : `${number(value, value < 100 ? 1 : 0)} ms`);

function addRow(prediction, isNew) {
  const row = $("rows").insertRow(0);
  row.classList.toggle("new", isNew);
  cell(row, prediction.key, "key-cell").title = prediction.prediction_id;
  cell(row, number(prediction.score, 2), "number score");
  const models = cell(row, "", "models");
  for (const [name, score] of Object.entries(prediction.scores)) {
    const model = document.createElement("span");
    model.textContent = `${name} ${number(score)}`;
    model.title = `version ${prediction.models[name]}`;
    models.append(model, " ");
  }
  cell(row, milliseconds(prediction.latency_ms), "number latency");
  cell(row, prediction.event_time.replace("T", " ").slice(0, 19), "event-time");
  const reasons = cell(row, "", "degraded");
  for (const reason of prediction.degraded) {
    const chip = document.createElement("span");
    chip.className = "chip";
    chip.textContent = reason;
    reasons.append(chip);
  }
  while ($("rows").rows.length > ROWS) $("rows").deleteRow(-1);
}

function addSummary(summary) {
  seen.summaries.push(summary);
  seen.predictions += summary.predictions;
  seen.outcomes += summary.outcomes;
  seen.degraded += summary.degraded;
  seen.squares += summary.error_squares;
  seen.running.push([summary.at_s, seen.outcomes ? Math.sqrt(seen.squares / seen.outcomes) : null]);
  if (seen.summaries.length > SUMMARIES) {
    seen.summaries.shift();
    seen.running.shift();
  }
}

// Rows wait for the next frame, and only the newest are shown: a page needs no more.
function render() {
  if (seen.waiting.length) {
    for (const row of $("rows").querySelectorAll(".new")) row.classList.remove("new");
    const arrived = seen.waiting.splice(0).slice(-ROWS);
    for (const prediction of arrived) addRow(prediction, arrived.length <= MARKED);
  }
  $("empty").hidden = $("rows").rows.length > 0;
  const last = seen.summaries.at(-1);
  if (last) {
    const recent = seen.summaries.slice(-5);
    const rate = recent.reduce((sum, s) => sum + s.predictions, 0) / recent.length;
    const newest = [...recent].reverse().find((s) => s.latency_p50_ms !== null);
    $("rate").textContent = `${rate < 10 ? number(rate) : whole(rate)} /s`;
    $("total").textContent = `${whole(seen.predictions)} in these minutes`;
    $("p50").textContent = milliseconds(newest?.latency_p50_ms);
    $("p99").textContent = milliseconds(newest?.latency_p99_ms);
    $("rmse").textContent = number(seen.running.at(-1)[1], 2);
    $("outcomes").textContent = seen.outcomes ? `${whole(seen.outcomes)} outcomes` : "no outcomes yet";
    $("degraded").textContent = seen.predictions ? `${number((100 * seen.degraded) / seen.predictions)} %` : "–";
    const shown = Math.min(ROWS, $("rows").rows.length);
    $("shown").textContent = shown ? `the last ${shown}${seen.lost ? `; ${whole(seen.lost)} came too fast for this page` : ""}` : "";
  }
  drawCharts();
}

function drawCharts() {
  const nowS = seen.summaries.at(-1)?.at_s ?? Date.now() / 1000;
  const line = (of) => seen.summaries.map((s) => [s.at_s, of(s)]);
  drawChart($("latency-chart"), [
    { color: "--second", points: line((s) => s.latency_p99_ms) },
    { color: "--first", points: line((s) => s.latency_p50_ms) },
  ], nowS);
  drawChart($("error-chart"), [
    { color: "--first", width: 1, points: line((s) => (s.outcomes ? Math.sqrt(s.error_squares / s.outcomes) : null)) },
    { color: "--second", width: 2.25, points: seen.running },
  ], nowS);
}

function take({ event, data }) {
  if (event === "prediction") seen.waiting.push(data);
  else if (event === "summary") addSummary(data);
  else if (event === "history") data.forEach(addSummary);
  else if (event === "lost") seen.lost = data.lost;
}

function reset() {
  seen = empty();
  $("rows").replaceChildren();
  for (const id of ["rate", "p50", "p99", "rmse", "degraded"]) $(id).textContent = "–";
  $("total").textContent = "none yet";
  $("outcomes").textContent = "no outcomes yet";
  $("shown").textContent = "";
}

const wait = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); });
});

// Follows a topology until another is chosen, connecting again after every failure.
async function follow(topology) {
  following?.abort();
  const mine = (following = new AbortController());
  $("key-name").textContent = topology.key;
  let delay = 500;
  while (!mine.signal.aborted) {
    reset();
    setState("connecting", "connecting");
    try {
      const answer = await ask(`/v1/topologies/${encodeURIComponent(topology.name)}/predictions?per_second=${PER_SECOND}`, { signal: mine.signal });
      if (!answer.ok) throw new Error(await problem(answer));
      setState("live", "live");
      notify("");
      delay = 500;
      for await (const event of events(answer.body)) {
        if (mine.signal.aborted) return;
        take(event);
      }
      throw new Error("the server ended the stream");
    } catch (error) {
      if (mine.signal.aborted) return;
      setState("lost", "disconnected");
      notify(`${error.message}. Trying again…`);
    }
    await wait(delay, mine.signal);
    delay = Math.min(delay * 2, 5000);
  }
}

async function start() {
  for (let delay = 500; ; delay = Math.min(delay * 2, 5000)) {
    try {
      const answer = await ask("/v1/topologies");
      $("token-form").hidden = answer.status !== 401;
      if (answer.status === 401) return setState("lost", "token needed");
      if (!answer.ok) throw new Error(await problem(answer));
      ({ topologies } = await answer.json());
      break;
    } catch (error) {
      setState("lost", "disconnected");
      notify(`${error.message}. Trying again…`);
      await new Promise((resolve) => setTimeout(resolve, delay));
    }
  }
  notify(topologies.length ? "" : "This server serves no topology.");
  const options = topologies.map((topology) => new Option(topology.name, topology.name));
  $("topology").replaceChildren(...options);
  if (topologies.length) follow(topologies[0]);
}

$("topology").addEventListener("change", () => {
  follow(topologies.find((topology) => topology.name === $("topology").value));
});
$("token-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  setToken($("token").value);
  start();
});
window.addEventListener("resize", drawCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
setInterval(render, 250);
render();
start();
