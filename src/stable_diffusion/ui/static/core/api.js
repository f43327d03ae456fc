// Calls of the server's own API. Every failure is an ApiError with the server's sentence.
import { signal } from "../vendor/preact.js";
import { t } from "./i18n.js";

/** Set when the server wants a token. */
export const locked = signal(false);

export class ApiError extends Error {
  constructor(status, message, code, param, retryAfter) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter });
  }
}

export async function api(path, { method, json, body, headers = {}, raw = false, signal } = {}) {
  const options = { method: method || (json || body ? "POST" : "GET"), headers: { ...headers }, signal, credentials: "same-origin" };
  if (json !== undefined) {
    // Seeds are kept as text, because numbers beyond 2^53 lose digits; they go out as the numbers they are.
    options.body = JSON.stringify(json).replace(/"seed":"(-?\d+)"/g, '"seed":$1');
    options.headers["Content-Type"] = "application/json";
  } else if (body !== undefined) options.body = body;
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, t("error.offline"), "offline");
  }
  if (answer.ok) return raw ? answer.blob() : answer.status === 204 ? null : answer.json();
  if (answer.status === 401) locked.value = true;
  let fault = {};
  try { fault = (await answer.json()).error || {}; } catch { /* no JSON: the status says it */ }
  throw new ApiError(answer.status, fault.message || t("error.status", { status: answer.status }), fault.code, fault.param,
    Number(answer.headers.get("Retry-After")) || null);
}

export const post = (path, json = {}) => api(path, { method: "POST", json });
export const remove = (path) => api(path, { method: "DELETE" });

/** Uploads a picture (Blob); {hash, pic, width, height}. */
export async function upload(blob) {
  return api("v1/inputs", { body: blob, headers: { "Content-Type": blob.type || "image/png" } });
}

/** The address of what a request calls a picture: "sha256:HASH" of an upload or "picture:ID" of the gallery. */
export function pictureUrl(pic, size) {
  if (!pic) return null;
  const [kind, id] = pic.split(/:(.*)/s);
  if (kind === "sha256" || kind === "input") return `v1/inputs/${id}${size ? `?size=${size}` : ""}`;
  if (kind === "picture") return `v1/gallery/${id}/${size ? "thumbnail" : "file"}`;
  return pic;
}
