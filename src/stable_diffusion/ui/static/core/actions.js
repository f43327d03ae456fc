// What buttons and keys do: generate, stop, use again, edit, enlarge, drop a file.
import { signal } from "../vendor/preact.js";
import { api, upload } from "./api.js";
import { buildRequest, applyRequest, startFrom } from "./request.js";
import { allSettings, set, setting, setUi, ui, faults, toast, dialog } from "./state.js";
import { submit, running, queued, cancel, skip, modelOf, act, onEvent } from "./server.js";
import { find, recent } from "./gallery.js";
import { keepSettings } from "./devices.js";
import { t } from "./i18n.js";

export const sending = signal(false);

/** Shows a failure at its field, or above the button. */
export function showFault(error) {
  faults.value = { [error.param || ""]: error.message, ...(error.param ? { "": error.message } : {}) };
}

export async function generate(changes = {}) {
  if (sending.value) return null;
  sending.value = true;
  faults.value = {};
  try {
    const request = { ...buildRequest(), ...changes };
    const job = await submit(request);
    keepSettings();
    setUi("follow", true);
    return job;
  } catch (error) {
    showFault(error);
    return null;
  } finally {
    sending.value = false;
  }
}

/** Clears what waits and what runs, then starts this one. */
export async function generateNow() {
  await act("v1/queue/clear");
  await Promise.all(running.value.map((job) => cancel(job.id)));
  return generate();
}

export function stop() {
  const job = running.value[0];
  if (job) cancel(job.id);
  return Boolean(job);
}

export function skipPicture() {
  if (running.value[0]) skip(running.value[0].id);
}

export const detailsOf = (id) => api(`v1/gallery/${id}`);

/** Takes over every setting of a picture, and says which could not come back. */
export async function useAgain(picture, { seed = true } = {}) {
  try {
    const details = await detailsOf(picture.id);
    const request = { ...details.request, count: 1 };
    applyRequest(request, { seed: seed ? details.seed_text ?? details.seed : null });
    toast(t("used.again"));
    for (const note of details.notes || []) toast(note, { seconds: 12 });
    location.hash = "#/paint";
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

/** The picture becomes the start; with `mask` the editor opens. */
export function editPicture(picture, { mask = false } = {}) {
  const factor = modelOf(setting("model").value).factor || 8;
  startFrom(`picture:${picture.id}`, picture.width, picture.height, factor);
  if (!setting("prompt").peek()) set("prompt", picture.prompt || "");
  location.hash = "#/paint";
  openGroup("start");
  if (mask) dialog.value = { name: "mask" };
}

export function openGroup(name) {
  setUi("panel", true);
  setUi("open", [...new Set([...(ui("open").peek() || []), name])]);
}

/** The same settings and seed with one thing changed, as a new job. */
export async function vary(picture, changes) {
  try {
    const details = await detailsOf(picture.id);
    await submit({ ...details.request, count: 1, seed: String(details.seed_text ?? details.seed), ...changes });
    setUi("follow", true);
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

/** Enlarges a picture by generating it again from itself, in windows of the model's own size. */
export async function enlarge(picture, scale = 2, strength = 0.3) {
  const details = await detailsOf(picture.id).catch(() => ({ request: {} }));
  const { prompt = "", negative_prompt, model, steps, guidance, sampler, schedule, loras } = details.request || {};
  const own = modelOf(model), factor = own.factor || 8;
  const side = (n) => Math.round((n * scale) / factor) * factor;
  const request = { prompt, negative_prompt, model, steps, guidance, sampler, schedule, loras, strength, image: `picture:${picture.id}`,
    width: side(picture.width), height: side(picture.height) };
  const window = Math.min(...(own.size || [512, 512]));
  if (Math.max(request.width, request.height) > window) request.canvas = { window };
  for (const key of Object.keys(request)) if (request[key] === undefined || request[key] === null) delete request[key];
  try {
    await submit({ ...request, seed: String(details.seed_text ?? picture.seed ?? 0) });
    setUi("follow", true);
    toast(t("enlarging", { size: `${request.width} × ${request.height}` }));
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

export async function uploadAsStart(file) {
  try {
    const got = await upload(file);
    startFrom(got.pic, got.width, got.height, modelOf(setting("model").value).factor || 8);
    openGroup("start");
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

/** A file was dropped on the page: read its settings, and let the user choose what to do with it. */
export async function readFile(file) {
  if (!file) return;
  if (!/^image\/(png|jpeg|webp)$/.test(file.type)) {
    toast(t("drop.kind", { name: file.name }), { kind: "error" });
    return;
  }
  let found = null, note = null;
  try {
    found = await api("v1/read", { body: file, headers: { "Content-Type": file.type } });
  } catch (error) {
    note = error.message;
  }
  dialog.value = { name: "read", file, found, note };
}

/** Walks the latest pictures by `step`. */
export function walk(step, items = recent.items.value) {
  const at = items.findIndex((each) => each.id === ui("picture").peek());
  const next = items[Math.max(0, Math.min(items.length - 1, at < 0 ? 0 : at + step))];
  if (next) setUi("picture", next.id);
  setUi("follow", false);
  return next;
}

export const chosen = () => find(ui("picture").value) || recent.items.value[0];
export const busy = () => running.value.length + queued.value.length > 0;

/** New pictures are shown as they come, unless the user looks at another one. */
export function followPictures() {
  onEvent((name, data) => {
    if (name === "picture" && ui("follow").peek() !== false) setUi("picture", data.id);
  });
}

export const snapshot = () => buildRequest(allSettings());
