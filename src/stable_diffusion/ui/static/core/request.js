// Between the settings of the form and the JSON of a request: build one, read one, and say what it would change.
import { allSettings, currentName, replaceSettings, set, setting } from "./state.js";

export const GROUPS = ["prompting", "noise", "variation", "hires", "refiner", "micro_conditioning", "inpaint", "canvas"];
const NEEDS_IMAGE = ["mask", "strength", "image_guidance", "inpaint"];
const empty = (value) => value === undefined || value === null || value === "" || (Array.isArray(value) && !value.length);

/** The request that the settings ask for. Paths with "_" are the form's own. */
export function buildRequest(all = allSettings()) {
  const request = { prompt: all.prompt || "" };
  for (const [path, value] of Object.entries(all)) {
    if (path.startsWith("_") || empty(value)) continue;
    const [group, field] = path.split(".");
    if (field) (request[group] ??= {})[field] = value;
    else request[path] = value;
  }
  if (!all._hires || request.image) delete request.hires;
  else request.hires ??= { scale: 2 };
  if (!request.refiner?.model) delete request.refiner;
  if (!all._lock) delete request.seed;
  if (!request.image) {
    for (const name of NEEDS_IMAGE) delete request[name];
    if (request.canvas) delete request.canvas.outpaint;
  }
  if (request.canvas?.outpaint && !request.canvas.outpaint.some(Boolean)) delete request.canvas.outpaint;
  if (request.canvas?.outpaint) { delete request.mask; delete request.inpaint?.only_masked; delete request.inpaint?.invert; }
  if (request.controls) request.controls = request.controls.filter((each) => each.name && (each.image || request.image));
  for (const name of ["controls", "canvas", "inpaint"]) if (request[name] && !Object.keys(request[name]).length) delete request[name];
  return request;
}

/** A request's settings by path. */
export function flatten(request) {
  const flat = {};
  for (const [given, value] of Object.entries(request || {})) {
    const name = currentName(given);
    if (["priority", "format"].includes(name) || value === null) continue;
    if (GROUPS.includes(name) && typeof value === "object") {
      for (const [field, inner] of Object.entries(value)) if (inner !== null) flat[`${name}.${field}`] = inner;
    } else flat[name] = value;
  }
  return flat;
}

const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);

/** What taking `request` over would change: [{path, from, to}]. */
export function differences(request) {
  const now = flatten(buildRequest()), then = flatten(request);
  if (now.count === 1) delete now.count;
  if (then.count === 1) delete then.count;
  if (then.seed !== undefined) then.seed = String(then.seed);
  if (now.seed !== undefined) now.seed = String(now.seed);
  return [...new Set([...Object.keys(now), ...Object.keys(then)])]
    .filter((path) => !same(now[path] || undefined, then[path] || undefined))
    .map((path) => ({ path, from: now[path], to: then[path] }));
}

/** Takes over all of `request`: what it leaves out goes back to the model's own. */
export function applyRequest(request, { seed = request.seed } = {}) {
  const flat = flatten(request);
  const values = { prompt: "", count: 1, ...flat };
  if (seed !== undefined && seed !== null && Number(seed) >= 0) Object.assign(values, { seed: String(seed), _lock: true });
  else delete values.seed;
  values._hires = Boolean(request.hires);
  replaceSettings(values);
}

/** Takes over some of it. */
export function applySome(request, paths) {
  const flat = flatten(request);
  for (const path of paths) {
    if (path === "seed") {
      set("seed", flat.seed === undefined ? undefined : String(flat.seed));
      set("_lock", flat.seed !== undefined);
    } else set(path, flat[path]);
    if (path.startsWith("hires.")) set("_hires", Boolean(request.hires));
  }
}

/** Makes `pic` ("sha256:HASH", "picture:ID") the picture to start from; its mask belongs to another one and goes. */
export function startFrom(pic, width, height, factor = 8) {
  set("image", pic);
  set("mask", undefined);
  set("canvas.outpaint", undefined);
  const whole = (side) => Math.max(factor, Math.round(side / factor) * factor);
  if (width && height) { set("width", whole(width)); set("height", whole(height)); }
  set("_start", { width, height });
}

export const hasMask = () => Boolean(setting("mask").value);
