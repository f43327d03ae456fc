// What the server knows: capabilities, jobs and the queue, kept up to date by one stream of events.
import { signal, computed } from "../vendor/preact.js";
import { api, post } from "./api.js";
import { previews, faults, toast } from "./state.js";
import { recent, found, added, patched } from "./gallery.js";
import { t } from "./i18n.js";

export const caps = signal(null);
export const jobs = signal([]);
export const queue = signal({ paused: false, queued: 0, running: 0, reason: null });
/** Whether the stream of events is open. */
export const online = signal(true);
export const running = computed(() => jobs.value.filter((job) => job.state === "running"));
export const queued = computed(() => jobs.value.filter((job) => job.state === "queued").sort((a, b) => a.position - b.position));
export const finished = computed(() => jobs.value.filter((job) => job.state !== "running" && job.state !== "queued"));
/** Steps of running jobs: job id -> progress. */
export const progress = signal({});

const watchers = new Set();
/** Calls `f(name, data)` for each event until the function that it returns is called. */
export function onEvent(f) {
  watchers.add(f);
  return () => watchers.delete(f);
}

export async function loadCapabilities() {
  caps.value = await api("v1/capabilities");
}

let asked = 0;
export async function loadJobs() {
  const ask = ++asked;
  const answer = await api("v1/jobs?limit=100");
  if (ask !== asked) return; // a later question is on its way, and answers may overtake each other
  jobs.value = answer.jobs;
  queue.value = { ...queue.value, paused: answer.paused, queued: answer.queued, running: answer.running };
  const steps = {};
  for (const job of answer.jobs) if (job.state === "running" && job.progress) steps[job.id] = job.progress;
  progress.value = { ...steps, ...Object.fromEntries(Object.entries(progress.value).filter(([id]) => id in steps)) };
}

let refreshing = 0;
function refresh() {
  if (refreshing) return;
  refreshing = setTimeout(async () => {
    refreshing = 0;
    try { await loadJobs(); } catch { /* the next event tries again */ }
  }, 120);
}

function jobChanged(id, changes) {
  jobs.value = jobs.value.map((job) => (job.id === id ? { ...job, ...changes } : job));
  refresh();
}

function forget(id) {
  const { [id]: gone, ...rest } = previews.value;
  if (gone) previews.value = rest;
  const { [id]: step, ...steps } = progress.value;
  if (step) progress.value = steps;
}

const HANDLERS = {
  queued: (data) => jobChanged(data.job, { state: "queued", position: data.position }),
  running: (data) => jobChanged(data.job, { state: "running", position: null, started: data.at }),
  started: (data) => HANDLERS.running(data),
  progress: (data) => { progress.value = { ...progress.value, [data.job]: { ...data, seconds_left: data.seconds_left ?? guess(data) } }; },
  preview: (data) => { previews.value = { ...previews.value, [data.job]: data }; },
  picture: (data) => {
    const { [data.job]: gone, ...rest } = previews.value;
    if (gone) previews.value = rest;
    const job = jobs.value.find((each) => each.id === data.job);
    added({ prompt: job?.request?.prompt || "", created: data.at, format: "png", starred: false, deleted: null, fresh: true, ...data });
  },
  done: (data) => { jobChanged(data.job, { state: "done", notes: data.notes }); forget(data.job); kept(data.job); },
  failed: (data) => { jobChanged(data.job, { state: "failed", error: data.error }); forget(data.job); failed(data); },
  cancelled: (data) => { jobChanged(data.job, { state: "cancelled" }); forget(data.job); },
  lost: (data) => { jobChanged(data.job, { state: "lost", error: data.error }); forget(data.job); failed(data); },
  queue: (data) => { queue.value = { ...queue.value, ...data }; refresh(); },
  gallery: (data) => patched(data.id, data.change),
};

/** Seconds left by the share that is done, where the server does not say yet. */
function guess(step) {
  const started = jobs.value.find((each) => each.id === step.job)?.started;
  return started && step.fraction > 0.1 ? ((step.at - started) / step.fraction) * (1 - step.fraction) : null;
}

/** The pictures of a job as the gallery has them, once they are in it. */
async function kept(id) {
  try {
    for (const picture of (await api(`v1/jobs/${id}`)).pictures) {
      added(picture);
      for (const list of [recent, found]) list.patch(picture.id, { ...picture, fresh: false });
    }
  } catch { /* pruned meanwhile */ }
}

function failed(data) {
  const text = typeof data.error === "string" ? data.error : data.error?.message || t("job.failed");
  faults.value = { ...faults.value, "": text };
}

let source = null, behind = true;
function listen() {
  source?.close();
  source = new EventSource(`v1/events${document.hidden ? "?previews=false" : ""}`);
  for (const [name, handle] of Object.entries(HANDLERS)) {
    source.addEventListener(name, (event) => {
      const data = JSON.parse(event.data);
      handle(data);
      for (const each of watchers) each(name, data);
    });
  }
  source.onopen = () => {
    if (behind) { refresh(); recent.reload(); if (found.ready.peek()) found.reload(); } // what happened before it was open
    behind = false;
    online.value = true;
  };
  source.onerror = () => {
    online.value = false;
    behind = true;
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

/** Loads everything and listens; previews are asked for only while the page can be seen. */
export async function start() {
  await Promise.all([loadCapabilities(), loadJobs(), recent.reload()]);
  listen();
  document.addEventListener("visibilitychange", () => { listen(); if (!document.hidden) refresh(); });
}

export async function submit(request) {
  const job = await api("v1/jobs", { json: request, headers: { "Idempotency-Key": crypto.randomUUID?.() || String(Math.random()) } });
  refresh();
  return job;
}

/** Runs an action on the queue or a job, and shows what the server says where it fails. */
export async function act(path) {
  try {
    await post(path);
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
  refresh();
}

export const cancel = (id) => act(`v1/jobs/${id}/cancel`);
export const skip = (id) => act(`v1/jobs/${id}/skip`);
export const retry = (id) => act(`v1/jobs/${id}/retry`);

export async function move(id, where) {
  try {
    await post(`v1/jobs/${id}/move`, where);
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
  refresh();
}

export const modelOf = (name) => {
  const models = caps.value?.models || [];
  const wanted = name || caps.value?.default_model;
  return models.find((each) => each.name === wanted || each.title === wanted) || models[0] || {};
};
