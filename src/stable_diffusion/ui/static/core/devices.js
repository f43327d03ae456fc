// The form's settings on the server: a browser that has none starts with those used last, another is offered newer ones.
import { api } from "./api.js";
import { allSettings, replaceSettings, settingsKnown, ui, setUi, toast } from "./state.js";
import { t } from "./i18n.js";

const PATH = "v1/settings/page";
const isFresh = !settingsKnown();
const text = (settings) => JSON.stringify(Object.entries(settings).sort(([a], [b]) => (a < b ? -1 : 1)));

/** Keeps the settings with which a picture was asked for. Seeds are text here, so that they lose no digits. */
export function keepSettings() {
  const kept = { settings: allSettings(), at: Date.now() / 1000 };
  setUi("kept", kept.at);
  const body = JSON.stringify(kept);
  api(PATH, { method: "PUT", body, headers: { "Content-Type": "application/json" } }).catch(() => { /* a picture matters more */ });
}

/** Takes over what was used last on another device, or offers it where this browser has settings of its own. */
export async function offerSettings() {
  const { settings, at } = await api(PATH);
  if (!settings || typeof settings !== "object" || at === ui("kept").peek()) return;
  const take = () => replaceSettings(settings);
  setUi("kept", at);
  if (isFresh && !allSettings().prompt) take();
  else if (text(settings) !== text(allSettings())) toast(t("settings.elsewhere"), { label: t("settings.take"), undo: take, seconds: 20 });
}
