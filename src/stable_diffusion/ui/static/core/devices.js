// The form's settings on the server: a browser that has none starts with those used last, another is offered newer ones.
import { api } from "./api.js";
import { allSettings, currentName, replaceSettings, settingsKnown, ui, setUi, toast } from "./state.js";
import { t } from "./i18n.js";

const PATH = "v1/settings/page";
const isFresh = !settingsKnown();
const text = (settings) => JSON.stringify(Object.entries(settings).sort(([a], [b]) => (a < b ? -1 : 1)));

const LISTS = ["controls", "loras", "prompting.styles", "canvas.outpaint"];
const RECORDS = ["_start"];

const plain = (value) => ["string", "number", "boolean"].includes(typeof value);

/** Whether the form can hold a value under this path: lists where it wants lists, records of its own, else plain values. */
function fits(path, value) {
  if (LISTS.includes(path)) return Array.isArray(value);
  if (RECORDS.includes(path)) return value !== null && typeof value === "object" && Object.values(value).every(plain);
  return plain(value) || (path.includes(".") && Array.isArray(value) && value.every(plain)); // sizes are lists of numbers
}

/** What of somebody's settings the form can hold, under today's names; null for none. */
export function usable(settings) {
  if (!settings || typeof settings !== "object" || Array.isArray(settings)) return null;
  const named = Object.entries(settings).map(([path, value]) => [currentName(path), value]);
  return Object.fromEntries(named.filter(([path, value]) => /^_?[a-z]\w*(\.[a-z]\w*)?$/.test(path) && fits(path, value)));
}

/** Keeps the settings with which a picture was asked for. Seeds are text here, so that they lose no digits. */
export function keepSettings() {
  const kept = { settings: allSettings(), at: Date.now() / 1000 };
  setUi("kept", kept.at);
  const body = JSON.stringify(kept);
  api(PATH, { method: "PUT", body, headers: { "Content-Type": "application/json" } }).catch(() => { /* a picture matters more */ });
}

/** Takes over what was used last on another device, or offers it where this browser has settings of its own. */
export async function offerSettings() {
  const { settings: given, at } = await api(PATH), settings = usable(given);
  if (!settings || at === ui("kept").peek()) return;
  const take = () => replaceSettings(settings);
  setUi("kept", at);
  if (isFresh && !allSettings().prompt) take();
  else if (text(settings) !== text(allSettings())) toast(t("settings.elsewhere"), { label: t("settings.take"), undo: take, seconds: 20 });
}
