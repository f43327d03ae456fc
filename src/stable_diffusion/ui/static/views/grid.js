// X/Y grid: two settings varied, each cell a normal job and picture, filled as they come.
import { html, useEffect, useSignal, signal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { api } from "../core/api.js";
import { setting, setUi, set, ui, previews, dialog } from "../core/state.js";
import { caps, jobs, onEvent, submit, cancel, modelOf } from "../core/server.js";
import { buildRequest } from "../core/request.js";
import { axisValues, withAxis } from "../core/axes.js";
import { nameOf } from "../components/field.js";
import { Icon, Button } from "../components/basics.js";

const NUMBERS = ["steps", "guidance", "seed", "strength", "clip_skip", "lora", "hires.scale", "hires.strength", "variation.strength", "guidance_rescale", "noise.eta"];
const AXES = ["none", "sampler", "schedule", ...NUMBERS, "model", "words"];
const named = (path) => (["none", "lora", "words"].includes(path) ? t(`axis.${path}`) : nameOf(path));
const EXAMPLES = { steps: "2, 4, 8", guidance: "1-7 (+2)", seed: "1, 2, 3", strength: "0.3-0.9 [3]", lora: "0-1 (+0.25)" };

/** What each cell has: job id -> {state, picture, error}. */
const cells = signal({});

function options(path) {
  const all = { sampler: caps.value?.samplers?.map((each) => each.id), schedule: caps.value?.schedules?.map((each) => each.id), model: caps.value?.models?.map((each) => each.name) };
  return all[path] || null;
}

function Axis({ which }) {
  const path = setting(`_${which}`).value || "none", text = setting(`_${which}_values`).value || "", known = options(path);
  const chosen = axisValues(text, false);
  const toggle = (name) => set(`_${which}_values`, (chosen.includes(name) ? chosen.filter((each) => each !== name) : [...chosen, name]).join(", "));
  return html`
    <fieldset class="axis"><legend>${t(`axis.${which}`)}</legend>
      <select id=${`axis-${which}`} aria-label=${t(`axis.${which}`)} value=${path} onChange=${(event) => { set(`_${which}`, event.target.value); set(`_${which}_values`, EXAMPLES[event.target.value] || ""); }}>
        ${AXES.map((each) => html`<option key=${each} value=${each}>${named(each)}</option>`)}</select>
      ${path !== "none" && (known ? html`<div class="chips scroll" tabindex="0" role="group" aria-label=${t("axis.values")}>${known.map((each) => html`
        <button key=${each} type="button" class="chip-button small" aria-pressed=${String(chosen.includes(each))} onClick=${() => toggle(each)}>${each}</button>`)}</div>`
        : html`<input id=${`values-${which}`} type="text" aria-label=${t("axis.values")} value=${text} placeholder=${EXAMPLES[path] || ""} onInput=${(event) => set(`_${which}_values`, event.target.value)} />
          <p class="help">${path === "words" ? t("axis.words.help") : t("axis.help")}</p>`)}
    </fieldset>`;
}

function plan() {
  const axis = (which) => {
    const path = setting(`_${which}`).value || "none";
    if (path === "none") return { path, values: [null] };
    const values = axisValues(setting(`_${which}_values`).value || "", NUMBERS.includes(path));
    return { path, values };
  };
  return { x: axis("x"), y: axis("y") };
}

function title(path, value) {
  if (path === "none") return "";
  const label = path === "sampler" ? caps.value?.samplers?.find((each) => each.id === value)?.label : null;
  return label || (typeof value === "string" ? value : `${named(path)} ${value}`);
}

/** Fills `cells` from what the server knows of the grid's jobs: after a reload, and for jobs that are no longer listed. */
async function restore(ids) {
  for (const id of ids) {
    if (cells.peek()[id]?.picture) continue;
    try {
      const job = jobs.peek().find((each) => each.id === id) || (await api(`v1/jobs/${id}`));
      cells.value = { ...cells.peek(), [id]: { state: job.state, picture: job.pictures?.[0], error: job.error } };
    } catch {
      cells.value = { ...cells.peek(), [id]: { state: "lost" } };
    }
  }
}

function Cell({ id }) {
  const cell = cells.value[id] || {}, job = jobs.value.find((each) => each.id === id), state = cell.picture ? "done" : job?.state || cell.state || "queued";
  if (cell.picture) return html`<button type="button" class="cell" aria-label=${t("key.open")} onClick=${() => { setUi("picture", cell.picture.id); setUi("follow", false); dialog.value = { name: "details", id: cell.picture.id }; }}>
    <img src=${cell.picture.url} alt=${cell.picture.prompt || t("picture")} loading="lazy" /></button>`;
  if (previews.value[id]) return html`<span class="cell"><img src=${previews.value[id].image} alt=${t("preview")} /></span>`;
  if (["failed", "lost", "cancelled"].includes(state)) return html`<span class="cell bad" title=${String(cell.error || job?.error || "")}><${Icon} name="triangle-alert" /><small>${String(cell.error || job?.error || t(`state.${state}`))}</small></span>`;
  return html`<span class="cell">${state === "running" ? html`<span class="shimmer"></span>` : html`<small>${t("state.queued")}</small>`}</span>`;
}

export default function Grid() {
  const fault = useSignal(""), busy = useSignal(false), grid = ui("grid").value;
  const { x, y } = plan(), count = (x.values?.length || 0) * (y.values?.length || 0);
  useEffect(() => { if (grid) restore(grid.rows.flat()); }, []);
  useEffect(() => { // pictures that came while no events did
    const ready = new Set(jobs.value.filter((each) => each.pictures?.length).map((each) => each.id));
    if (grid) restore(grid.rows.flat().filter((id) => ready.has(id)));
  }, [jobs.value]);
  useEffect(() => onEvent((name, data) => {
    const ids = ui("grid").peek()?.rows.flat() || [];
    if (!ids.includes(data.job)) return;
    if (name === "picture") cells.value = { ...cells.peek(), [data.job]: { state: "done", picture: data } };
    if (["failed", "lost", "cancelled"].includes(name)) cells.value = { ...cells.peek(), [data.job]: { state: name, error: data.error?.message || data.error } };
  }), []);
  const start = async () => {
    fault.value = "";
    if (!x.values || !y.values) { fault.value = t("axis.number"); return; }
    if (!x.values.length || !y.values.length) { fault.value = t("axis.empty"); return; }
    busy.value = true;
    const base = { ...buildRequest(), count: 1 };
    base.seed ??= String(Math.floor(Math.random() * 2 ** 32));
    const rows = y.values.map(() => []);
    try {
      for (const [j, v] of y.values.entries()) {
        for (const u of x.values) {
          let request = x.path === "none" ? base : withAxis(base, x.path, u, x.values);
          if (y.path !== "none") request = withAxis(request, y.path, v, y.values);
          rows[j].push((await submit(request)).id);
          setUi("grid", { x, y, rows: rows.map((each) => [...each]), prompt: base.prompt, size: [base.width, base.height] });
        }
      }
    } catch (error) {
      fault.value = error.message;
    }
    busy.value = false;
  };
  const stopAll = () => grid.rows.flat().forEach((id) => { if (["queued", "running"].includes(jobs.value.find((each) => each.id === id)?.state)) cancel(id); });
  const waiting = grid?.rows.flat().some((id) => ["queued", "running"].includes(jobs.value.find((each) => each.id === id)?.state));
  const own = modelOf(setting("model").value).size || [1, 1], ratio = grid ? (grid.size?.[0] || own[0]) / (grid.size?.[1] || own[1]) : 1;
  return html`
    <div class="grid-view">
      <div class="grid-bar"><h1>${t("view.grid")}</h1><p class="help">${t("grid.help")}</p>
        <div class="axes"><${Axis} which="x" /><${Axis} which="y" /></div>
        <label class="field"><span class="label">${t("prompt")}</span><input type="text" id="grid-prompt" value=${setting("prompt").value || ""} onInput=${(event) => set("prompt", event.target.value)} /></label>
        ${fault.value && html`<p class="fault" role="alert">${fault.value}</p>`}
        <div class="row"><${Button} kind="primary" icon="grid-3x3" id="grid-start" disabled=${busy.value || !count || (x.path === "none" && y.path === "none")} onClick=${start}>${t("grid.start", { n: count })}<//>
          ${waiting && html`<${Button} icon="circle-stop" kind="stop" onClick=${stopAll}>${t("stop")}<//>`}</div></div>
      ${grid && html`<div class="grid-scroll" tabindex="0" role="region" aria-label=${t("view.grid")}><table class="xy"><thead><tr><td></td>${grid.x.values.map((u) => html`<th scope="col" key=${u}>${title(grid.x.path, u)}</th>`)}</tr></thead>
        <tbody>${grid.y.values.map((v, j) => html`<tr key=${v}><th scope="row">${title(grid.y.path, v)}</th>${grid.x.values.map((u, i) => html`<td key=${u} style=${{ aspectRatio: String(ratio) }}>${grid.rows[j]?.[i] ? html`<${Cell} id=${grid.rows[j][i]} />` : html`<span class="cell"></span>`}</td>`)}</tr>`)}</tbody></table></div>`}
    </div>`;
}
