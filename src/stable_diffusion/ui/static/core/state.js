// What the user has set, kept in the browser. Each setting is a signal of its own, so that typing redraws one field only.
// Paths are those of a request: "prompt", "hires.scale"; undefined means "not given", the model's own holds.
import { signal, batch } from "../vendor/preact.js";

const SETTINGS = "sd.settings", UI = "sd.ui";

/** What the last release called otherwise, under its name of today. */
export const currentName = (path) => path.replace(/^told_size(?=$|\.)/, "micro_conditioning");

function read(key) {
  try {
    const saved = Object.entries(JSON.parse(localStorage.getItem(key)) || {});
    return Object.fromEntries(saved.map(([path, value]) => [currentName(path), value]));
  } catch { return {}; }
}

function shelf(key, defaults) {
  const cells = new Map(), saved = { ...defaults, ...read(key) };
  let timer = 0;
  const cell = (path) => {
    if (!cells.has(path)) cells.set(path, signal(saved[path]));
    return cells.get(path);
  };
  const all = () => {
    const found = { ...saved };
    for (const [path, each] of cells) found[path] = each.peek();
    for (const path of Object.keys(found)) if (found[path] === undefined) delete found[path];
    return found;
  };
  const flush = () => {
    clearTimeout(timer);
    timer = 0;
    try { localStorage.setItem(key, JSON.stringify(all())); } catch { /* full or forbidden: the page works without */ }
  };
  const set = (path, value) => {
    const each = cell(path);
    const next = typeof value === "function" ? value(each.peek()) : value;
    if (Object.is(next, each.peek())) return;
    each.value = next;
    if (!timer) timer = setTimeout(flush, 300);
  };
  const replace = (values) => batch(() => {
    for (const path of new Set([...cells.keys(), ...Object.keys(saved), ...Object.keys(values)])) set(path, values[path]);
  });
  addEventListener("pagehide", () => timer && flush());
  addEventListener("storage", (event) => {
    if (event.key !== key) return;
    const other = read(key);
    batch(() => {
      for (const path of new Set([...Object.keys(saved), ...Object.keys(other)])) {
        const each = cell(path);
        if (JSON.stringify(each.peek()) !== JSON.stringify(other[path])) each.value = other[path];
        saved[path] = other[path];
      }
    });
  });
  return { cell, set, all, replace, known: () => Object.keys(read(key)).length > 0 };
}

const settings = shelf(SETTINGS, { prompt: "", count: 1 });
export const setting = settings.cell, set = settings.set, allSettings = settings.all, replaceSettings = settings.replace;
export const settingsKnown = settings.known;

/** View state: which groups are open, the chosen picture, theme and language. */
const view = shelf(UI, { theme: "auto", open: ["size"], panel: false });
export const ui = view.cell, setUi = view.set;

/** Short messages at the bottom: {id, text, kind, undo}. */
export const toasts = signal([]);
let nextToast = 1;

export function toast(text, { kind = "info", undo = null, label = null, seconds = 6 } = {}) {
  const id = nextToast++;
  toasts.value = [...toasts.value.slice(-3), { id, text, kind, undo, label }];
  setTimeout(() => dropToast(id), seconds * 1000);
}

export function dropToast(id) {
  toasts.value = toasts.value.filter((each) => each.id !== id);
}

/** Sentences of the server by the setting they are about; "" is for none in particular. */
export const faults = signal({});
/** The dialog that is open: null or {name, ...}. */
export const dialog = signal(null);
/** Pictures of running jobs: job id -> {image, picture}. */
export const previews = signal({});
