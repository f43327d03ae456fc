// The page: bar, views (each loaded when first shown), dialogs, keys that hold everywhere, files dropped anywhere.
import { html, render, signal, useEffect, useErrorBoundary } from "./vendor/preact.js";
import { t, lang, LANGUAGES, useLanguage } from "./core/i18n.js";
import { ui, setUi, dialog, toast } from "./core/state.js";
import { locked } from "./core/api.js";
import { start, online, queue, running, queued, caps } from "./core/server.js";
import { bindKeys, startKeys } from "./core/keys.js";
import { generate, generateNow, stop, chosen, useAgain, editPicture, readFile, followPictures } from "./core/actions.js";
import { star, discard } from "./core/gallery.js";
import { offerSettings } from "./core/devices.js";
import { Icon, IconButton, Toasts } from "./components/basics.js";
import Paint from "./views/paint.js";

/** Views by name: icon and module. `paint` is there at once, the others are loaded when first shown. */
const VIEWS = {
  paint: { icon: "sparkles", load: async () => ({ default: Paint }) },
  gallery: { icon: "images", load: () => import("./views/gallery.js") },
  queue: { icon: "list-ordered", load: () => import("./views/queue.js") },
  grid: { icon: "grid-3x3", load: () => import("./views/grid.js") },
  viewer: { icon: "globe", load: () => import("./views/viewer.js") },
  live: { icon: "video", load: () => import("./views/live.js") },
};
const DIALOGS = {
  mask: () => import("./components/mask.js"),
  compare: () => import("./components/compare.js"),
  details: () => import("./components/details.js"),
  read: () => import("./components/read.js"),
  loras: () => import("./components/loras.js").then((module) => ({ default: module.LoraDialog })),
  keys: () => import("./components/help.js"),
};

const loaded = signal({ paint: Paint });
const view = signal("paint");

async function route() {
  const hash = location.hash;
  const name = location.hash.replace(/^#\//, "").split("/")[0] || ui("view").peek() || "paint";
  const wanted = VIEWS[name] ? name : "paint";
  if (!loaded.value[wanted]) {
    try {
      loaded.value = { ...loaded.value, [wanted]: (await VIEWS[wanted].load()).default };
    } catch {
      toast(t("view.missing"), { kind: "error" });
      return;
    }
    if (hash !== location.hash) return; // the user has gone on while the view was loaded
  }
  view.value = wanted;
  setUi("view", wanted);
  document.title = wanted === "paint" ? "Stable Diffusion" : `${t(`view.${wanted}`)} · Stable Diffusion`;
}

const go = (name) => { location.hash = `#/${name}`; };

const THEMES = { auto: "contrast", light: "sun", dark: "moon" };
function nextTheme() {
  const names = Object.keys(THEMES), next = names[(names.indexOf(ui("theme").peek() || "auto") + 1) % 3];
  setUi("theme", next);
}

function Bar() {
  const waiting = queued.value.length + running.value.length;
  const theme = ui("theme").value || "auto";
  const other = lang.value === "zh" ? "en" : "zh";
  return html`
    <header class="bar">
      <a class="brand" href="#/paint" aria-label="Stable Diffusion"><img src="static/icons/icon.svg" width="24" height="24" alt="" /><b>Stable Diffusion</b></a>
      <nav aria-label=${t("views")}>${Object.entries(VIEWS).map(([name, each]) => html`
        <a key=${name} href=${`#/${name}`} aria-current=${view.value === name ? "page" : undefined} aria-label=${t(`view.${name}`)}><${Icon} name=${each.icon} />
          <span>${t(`view.${name}`)}</span>${name === "queue" && waiting > 0 && html`<em>${waiting}</em>`}</a>`)}</nav>
      <div class="bar-end">
        ${!online.value ? html`<span class="chip bad" role="status"><${Icon} name="triangle-alert" size=${14} /><span>${t("offline")}</span></span>`
          : queue.value.paused && html`<a class="chip" href="#/queue" title=${t("queue.paused")}><${Icon} name="pause" size=${14} /><span>${t("queue.paused")}</span></a>`}
        <button type="button" class="tool lang" lang=${other === "zh" ? "zh-CN" : "en"} aria-label=${`${t("language")}: ${LANGUAGES[other]}`} title=${LANGUAGES[other]}
          onClick=${() => { setUi("lang", other); useLanguage(other); }}>${other === "zh" ? "中" : "EN"}</button>
        <${IconButton} icon=${THEMES[theme]} label=${`${t("theme")}: ${t(`theme.${theme}`)}`} onClick=${nextTheme} />
        <${IconButton} icon="keyboard" label=${t("keys")} keys="?" class="wide-only" onClick=${() => { dialog.value = { name: "keys" }; }} />
      </div>
    </header>`;
}

const parts = signal({});
function Dialogs() {
  const open = dialog.value;
  const Part = open && parts.value[open.name];
  useEffect(() => {
    if (open && !parts.value[open.name]) DIALOGS[open.name]().then((module) => { parts.value = { ...parts.value, [open.name]: module.default }; }, () => toast(t("view.missing"), { kind: "error" }));
  }, [open?.name]);
  return Part ? html`<${Part} key=${open.name} ...${open} />` : null;
}

const login = signal(null);
function Login() {
  useEffect(() => { if (locked.value && !login.value) import("./components/login.js").then((module) => { login.value = module.default; }); }, [locked.value]);
  return locked.value && login.value ? html`<${login.value} />` : null;
}

function App() {
  const [fault, reset] = useErrorBoundary();
  if (fault) return html`<main class="broken"><h1>${t("broken")}</h1><p>${String(fault.message)}</p><button type="button" class="button primary" onClick=${reset}>${t("again")}</button></main>`;
  const View = loaded.value[view.value];
  return html`<${Bar} /><main class=${`view ${view.value}`} id="main">${View && html`<${View} />`}</main><${Dialogs} /><${Login} /><${Toasts} />`;
}

function bindEverywhere() {
  const picture = (run) => () => { const each = chosen(); return each ? run(each) : false; };
  const views = Object.keys(VIEWS).map((name, i) => [`Alt+${i + 1}`, { text: t(`view.${name}`), fields: true, run: () => go(name) }]);
  return bindKeys({
    "Ctrl+Enter": { text: t("generate"), fields: true, run: () => { generate(); } },
    "Ctrl+Shift+Enter": { text: t("key.now"), fields: true, run: () => { generateNow(); } },
    Escape: { text: t("stop"), fields: true, run: () => (dialog.peek() ? false : stop()) },
    "?": { text: t("keys"), run: () => { dialog.value = { name: "keys" }; } },
    "/": { text: t("key.search"), run: () => { go("gallery"); setTimeout(() => document.getElementById("search")?.focus(), 150); } },
    S: { text: t("star"), run: picture(star) },
    U: { text: t("use.again"), run: picture((each) => { useAgain(each); }) },
    E: { text: t("edit"), run: picture((each) => { editPicture(each, { mask: true }); }) },
    C: { text: t("compare"), run: picture((each) => { dialog.value = { name: "compare", a: each.id }; }) },
    I: { text: t("details"), run: picture((each) => { dialog.value = { name: "details", id: each.id }; }) },
    Delete: { text: t("delete"), run: picture((each) => { discard(each); }) },
    ...Object.fromEntries(views),
    "Ctrl+ArrowUp": { text: t("key.weight"), fields: true, run: () => false },
  });
}

function acceptFiles() {
  addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
  addEventListener("drop", (event) => { if (event.dataTransfer?.files.length) { event.preventDefault(); readFile(event.dataTransfer.files[0]); } });
  addEventListener("paste", (event) => { const file = event.clipboardData?.files[0]; if (file && !event.defaultPrevented) { event.preventDefault(); readFile(file); } });
}

async function main() {
  await useLanguage(document.documentElement.lang.startsWith("zh") ? "zh" : "en");
  ui("theme").subscribe((name) => { if (name === "auto" || !name) delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name; });
  ui("lang").subscribe((name) => { if (name && name !== lang.peek()) useLanguage(name); });
  let unbind = bindEverywhere();
  lang.subscribe(() => { unbind(); unbind = bindEverywhere(); });
  startKeys();
  acceptFiles();
  followPictures();
  addEventListener("hashchange", route);
  const root = document.getElementById("app");
  root.textContent = "";
  await route();
  render(html`<${App} />`, root);
  const begin = () => start().then(() => { offerSettings().catch(() => {}); }).catch((error) => { if (!locked.peek()) { toast(error.message, { kind: "error" }); setTimeout(begin, 3000); } });
  locked.subscribe((on) => { if (!on && !caps.peek()) begin(); });
  if ("serviceWorker" in navigator && isSecureContext) navigator.serviceWorker.register("sw.js").catch(() => {});
}

main();
