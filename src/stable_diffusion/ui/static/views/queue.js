// The queue: what runs, what waits (reordered by dragging or keys), what is done or failed.
import { html, useSignal } from "../vendor/preact.js";
import { t, duration } from "../core/i18n.js";
import { previews, setUi } from "../core/state.js";
import { queue, running, queued, finished, progress, act, cancel, skip, retry, move, modelOf } from "../core/server.js";
import { Icon, IconButton, Button, Bar } from "../components/basics.js";

const KINDS = { done: "check", failed: "triangle-alert", lost: "triangle-alert", cancelled: "x" };

/** Seconds that waiting jobs will take: by what the running one takes for each step and pixel. */
export function secondsLeft() {
  const job = running.value[0], step = job && progress.value[job.id];
  if (!step?.seconds_left || !step.fraction || step.fraction >= 1) return null;
  const cost = (request = {}) => {
    const model = modelOf(request.model), scale = request.hires?.scale || 1;
    const pixels = (request.width || model.size?.[0] || 512) * (request.height || model.size?.[1] || 512) * scale * scale;
    return (request.count || 1) * (request.steps || model.steps || 20) * (request.strength && request.image ? request.strength : 1) * pixels;
  };
  const whole = step.seconds_left / (1 - step.fraction);
  const each = whole / cost(job.request);
  return step.seconds_left + queued.value.reduce((sum, other) => sum + cost(other.request) * each, 0);
}

const About = ({ job }) => html`<span class="job-text"><b>${job.request?.prompt || t("no.prompt")}</b>
  <small>${[t(`kind.${job.request?.image ? (job.request.mask ? "inpaint" : "img2img") : "txt2img"}`), (job.request?.count || 1) > 1 && `${job.request.count} ×`, job.request?.model, job.request?.sampler].filter(Boolean).join(" · ")}</small></span>`;

function Running({ job }) {
  const step = progress.value[job.id], preview = previews.value[job.id];
  return html`<li class="job running">
    <span class="job-picture">${preview ? html`<img src=${preview.image} alt=${t("preview")} />` : html`<span class="shimmer"></span>`}</span>
    <${About} job=${job} />
    <span class="job-state">${step ? t("step", { index: step.index, total: step.total }) : t("preparing")}${step?.seconds_left > 0 ? ` · ${t("left", { time: duration(step.seconds_left) })}` : ""}</span>
    ${(job.request?.count || 1) > 1 && html`<${IconButton} icon="skip-forward" label=${t("skip")} onClick=${() => skip(job.id)} />`}
    <${IconButton} icon="circle-stop" label=${t("stop")} onClick=${() => cancel(job.id)} /><${Bar} value=${step?.fraction} label=${t("progress")} /></li>`;
}

function Waiting() {
  const held = useSignal(null), over = useSignal(null), items = queued.value;
  const drop = (target) => {
    const id = held.value;
    held.value = over.value = null;
    if (!id || id === target) return;
    const from = items.findIndex((each) => each.id === id), to = items.findIndex((each) => each.id === target);
    move(id, from < to ? { after: target } : { before: target });
  };
  const shift = (index, by) => {
    const other = items[index + by];
    if (other) move(items[index].id, by < 0 ? { before: other.id } : { after: other.id });
  };
  return html`<ol class="jobs" id="waiting">${items.map((job, i) => html`
    <li key=${job.id} class=${`job ${over.value === job.id ? "over" : ""} ${held.value === job.id ? "held" : ""}`} draggable="true" data-job=${job.id}
      onDragStart=${(event) => { held.value = job.id; event.dataTransfer.effectAllowed = "move"; event.dataTransfer.setData("text/plain", job.id); }}
      onDragEnd=${() => { held.value = over.value = null; }} onDragOver=${(event) => { if (held.value) { event.preventDefault(); over.value = job.id; } }} onDrop=${(event) => { event.preventDefault(); event.stopPropagation(); drop(job.id); }}>
      <span class="handle"><${Icon} name="grip-vertical" /></span><span class="place">${i + 1}</span><${About} job=${job} />
      <${IconButton} icon="arrow-up" label=${t("queue.up")} disabled=${i === 0} onClick=${() => shift(i, -1)} />
      <${IconButton} icon="arrow-down" label=${t("queue.down")} disabled=${i === items.length - 1} onClick=${() => shift(i, 1)} />
      <${IconButton} icon="x" label=${t("cancel")} onClick=${() => cancel(job.id)} /></li>`)}</ol>`;
}

function Finished({ job }) {
  const bad = job.state === "failed" || job.state === "lost";
  const error = typeof job.error === "string" ? job.error : job.error?.message;
  const open = () => { setUi("picture", job.pictures[0].id); setUi("follow", false); location.hash = "#/paint"; };
  return html`<li class=${`job ${job.state}`}>
    <span class="job-picture">${job.pictures?.[0] ? html`<button type="button" aria-label=${t("key.open")} onClick=${open}><img src=${job.pictures[0].thumbnail} alt="" loading="lazy" /></button>` : html`<${Icon} name=${KINDS[job.state]} />`}</span>
    <${About} job=${job} /><span class="job-state">${t(`state.${job.state}`)}${job.started && job.finished ? ` · ${duration(job.finished - job.started)}` : ""}</span>
    ${job.state !== "done" && html`<${IconButton} icon="rotate-cw" label=${t("retry")} onClick=${() => retry(job.id)} />`}
    ${bad && error && html`<p class="fault">${error}</p>`}</li>`;
}

export default function Queue() {
  const paused = queue.value.paused, left = secondsLeft(), failed = finished.value.filter((job) => job.state === "failed" || job.state === "lost");
  const nothing = !running.value.length && !queued.value.length && !finished.value.length;
  return html`
    <div class="queue">
      <div class="queue-bar"><h1>${t("view.queue")}</h1>
        <span class="count" role="status">${t("queue.state", { running: running.value.length, queued: queued.value.length })}${left ? ` · ${t("left", { time: duration(left) })}` : ""}</span><span class="grow"></span>
        <${Button} icon=${paused ? "play" : "pause"} id="pause" onClick=${() => act(`v1/queue/${paused ? "resume" : "pause"}`)}>${paused ? t("queue.resume") : t("queue.pause")}<//>
        ${failed.length > 0 && html`<${Button} icon="rotate-cw" onClick=${() => act("v1/queue/retry")}>${t("queue.retry")}<//>`}
        ${queued.value.length > 0 && html`<${Button} icon="trash-2" onClick=${() => act("v1/queue/clear")}>${t("queue.clear")}<//>`}</div>
      ${queue.value.reason && html`<p class="note" role="status">${queue.value.reason}</p>`}
      ${nothing && html`<div class="nothing"><${Icon} name="list-ordered" size=${40} /><p>${t("queue.none")}</p></div>`}
      ${running.value.length > 0 && html`<section><h2>${t("queue.running")}</h2><ol class="jobs">${running.value.map((job) => html`<${Running} key=${job.id} job=${job} />`)}</ol></section>`}
      ${queued.value.length > 0 && html`<section><h2>${t("queue.waiting")}</h2><${Waiting} /></section>`}
      ${finished.value.length > 0 && html`<section><h2>${t("queue.finished")}</h2><ol class="jobs">${finished.value.slice(0, 60).map((job) => html`<${Finished} key=${job.id} job=${job} />`)}</ol></section>`}
    </div>`;
}
