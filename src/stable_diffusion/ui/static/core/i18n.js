// Texts: `t` of a key, with {name} replaced by values. Each language is one flat JSON file; English stands in for a key that is missing.
import { signal } from "../vendor/preact.js";

export const LANGUAGES = { en: "English", zh: "中文" };
const texts = signal({});
export const lang = signal("en");

export async function useLanguage(name) {
  const chosen = LANGUAGES[name] ? name : "en";
  const answer = await fetch(`static/i18n/${chosen}.json`, { credentials: "same-origin" });
  texts.value = await answer.json();
  lang.value = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
}

/** The text of `key` with `{name}` replaced; the key itself where there is none. */
export function t(key, values) {
  const text = texts.value[key] ?? key;
  return values ? text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all) : text;
}

export const has = (key) => key in texts.value;

/** Whole seconds as the field writes them: 8 s, 1:05, 2:01:00. */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return t("seconds", { n: s });
  const parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
}

export const when = (unix) =>
  new Intl.DateTimeFormat(lang.value === "zh" ? "zh-CN" : "en", { dateStyle: "medium", timeStyle: "short" }).format(new Date(unix * 1000));
