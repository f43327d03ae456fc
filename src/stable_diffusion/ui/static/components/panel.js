// The settings: groups that open on demand and remember it. Fields come from the server's schema.
import { html } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { setting, set, ui, setUi, allSettings, replaceSettings, toast } from "../core/state.js";
import { caps, modelOf } from "../core/server.js";
import { recent } from "../core/gallery.js";
import { Field, Fault, usual } from "./field.js";
import { PromptBox, TokenCounter } from "./composer.js";
import { StartGroup } from "./start.js";
import { ControlsGroup } from "./controls.js";
import { LoraList } from "./loras.js";
import { Icon, IconButton, Button, Switch } from "./basics.js";

/** A group that remembers being open; `mark` says in a word what is set in it. */
export function Group({ name, mark, children }) {
  const open = (ui("open").value || []).includes(name);
  const toggle = () => setUi("open", (names = []) => (open ? names.filter((each) => each !== name) : [...names, name]));
  return html`
    <section class="group">
      <h2><button type="button" aria-expanded=${String(open)} aria-controls=${`g-${name}`} id=${`group-${name}`} onClick=${toggle}>
        <${Icon} name="chevron-down" size=${16} /><span>${t(`group.${name}`)}</span>${mark && html`<small>${mark}</small>`}</button></h2>
      ${open && html`<div class="group-body" id=${`g-${name}`}>${children()}</div>`}
    </section>`;
}

const SHAPES = [["1:1", 1, 1], ["4:3", 4, 3], ["3:2", 3, 2], ["16:9", 16, 9], ["3:4", 3, 4], ["2:3", 2, 3], ["9:16", 9, 16]];

/** Sizes of the model's own area in common shapes. */
function Shapes() {
  const model = modelOf(setting("model").value), factor = model.factor || 8;
  const [w, h] = model.size || [512, 512], area = w * h;
  const width = setting("width").value ?? w, height = setting("height").value ?? h;
  const size = (a, b) => [Math.sqrt((area * a) / b), Math.sqrt((area * b) / a)].map((side) => Math.round(side / factor) * factor);
  return html`
    <div class="shapes" role="group" aria-label=${t("shape")}>
      ${SHAPES.map(([name, a, b]) => {
        const [x, y] = size(a, b), k = 22 / Math.max(a, b);
        return html`<button key=${name} type="button" aria-pressed=${String(width === x && height === y)} title=${`${x} × ${y}`}
          onClick=${() => { set("width", x === w ? undefined : x); set("height", y === h ? undefined : y); }}>
          <i style=${{ width: `${a * k}px`, height: `${b * k}px` }}></i>${name}</button>`;
      })}
    </div>`;
}

function Seed() {
  const locked = Boolean(setting("_lock").value), last = recent.items.value[0];
  const lock = (seed) => { set("seed", String(seed)); set("_lock", true); };
  return html`
    <div class="field"><div class="field-head"><label for="f-seed">${t("field.seed")}</label>
      <input id="f-seed" class="number seed" inputmode="numeric" pattern="[0-9]*" value=${locked ? setting("seed").value ?? "" : ""} placeholder=${t("random")}
        onInput=${(event) => { const digits = event.target.value.replace(/\D/g, ""); set("seed", digits || undefined); set("_lock", digits !== ""); }} />
      <${IconButton} icon=${locked ? "lock" : "lock-open"} pressed=${locked} label=${t("seed.lock")}
        onClick=${() => (locked ? set("_lock", false) : lock(setting("seed").value ?? last?.seed_text ?? last?.seed ?? Math.floor(Math.random() * 2 ** 32)))} />
      <${IconButton} icon="dices" label=${t("seed.random")} onClick=${() => { set("_lock", false); set("seed", undefined); }} /></div>
      <p class="help">${locked ? t("seed.locked") : t("seed.free")}</p><${Fault} path="seed" /></div>`;
}

const SizeGroup = () => html`
  <${Field} path="model" /><${Shapes} /><div class="pair-row"><${Field} path="width" />
  <${IconButton} icon="arrow-left-right" label=${t("size.swap")} onClick=${() => { const w = setting("width").peek() ?? usual("width"), h = setting("height").peek() ?? usual("height"); set("width", h); set("height", w); }} />
  <${Field} path="height" /></div>
  <${Field} path="count" /><${Seed} /><${Field} path="background" />`;

const NegativeGroup = () => html`<div class="field"><${PromptBox} path="negative_prompt" label=${t("field.negative_prompt")} placeholder=${t("negative.placeholder")} />
  <div class="field-foot"><${TokenCounter} which="negative_prompt" /></div><${Fault} path="negative_prompt" /></div>`;

function HiresGroup() {
  const on = Boolean(setting("_hires").value);
  if (setting("image").value) return html`<p class="help">${t("hires.text.only")}</p>`;
  return html`<${Switch} label=${t("hires.on")} checked=${on} onChange=${(value) => set("_hires", value)} /><p class="help">${t("hires.help")}</p>
    ${on && html`<${Fields} paths=${["hires.scale", "hires.steps", "hires.strength", "hires.upscaler"]} />`}`;
}

function Styles() {
  const styles = caps.value?.styles || [], chosen = setting("prompting.styles").value || [];
  if (!styles.length) return null;
  const toggle = (name) => set("prompting.styles", chosen.includes(name) ? chosen.filter((each) => each !== name) : [...chosen, name]);
  return html`<div class="field"><p class="label">${t("field.prompting.styles")}</p><div class="chips">
    ${styles.map((each) => html`<button key=${each.name} type="button" class="chip-button" title=${each.prompt} aria-pressed=${String(chosen.includes(each.name))}
      onClick=${() => toggle(each.name)}>${each.name}</button>`)}</div></div>`;
}

const Fields = ({ paths }) => paths.map((path) => html`<${Field} key=${path} path=${path} />`);
const SHARP = ["steps", "guidance", "sampler", "schedule", "speed"];
const TILES = ["canvas.tiling", "canvas.panorama", "canvas.window", "canvas.window_overlap"];
const NOISE = ["noise.eta", "noise.s_churn", "noise.s_tmin", "noise.s_tmax", "noise.s_noise", "noise.source", "noise.seed_delta", "noise.shift", "noise.compat", "guidance_rescale", "guidance_interval", "token_merging"];
const WORDS = ["clip_skip", "prompting.emphasis", "prompting.variants"];
const VARIATION = ["variation.strength", "variation.seed", "variation.resize_from"];
const REFINER = ["refiner.model", "refiner.switch", "micro_conditioning.original", "micro_conditioning.crop", "micro_conditioning.target", "micro_conditioning.aesthetic_score", "micro_conditioning.negative_aesthetic_score"];

/** Every setting that the form shows; a test compares it with the server's schema. */
export const SHOWN = [...SHARP, ...TILES, ...NOISE, ...WORDS, ...VARIATION, ...REFINER];

const marked = (...paths) => paths.some((path) => { const value = setting(path).value; return value !== undefined && value !== "" && value?.length !== 0; }) ? "•" : "";

export function Panel() {
  const loras = setting("loras").value || [], controls = setting("controls").value || [];
  return html`
    <aside class="panel" id="panel" aria-label=${t("settings")}>
      <${Group} name="size" mark=${marked("width", "height", "model", "background") && `${setting("width").value ?? usual("width")} × ${setting("height").value ?? usual("height")}`}>${SizeGroup}<//>
      <${Group} name="negative" mark=${marked("negative_prompt")}>${NegativeGroup}<//>
      <${Group} name="sampling" mark=${marked(...SHARP)}>${() => html`<${Fields} paths=${SHARP} />`}<//>
      <${Group} name="start" mark=${setting("image").value ? (setting("mask").value ? t("inpaint") : t("img2img")) : ""}>${() => html`<${StartGroup} />`}<//>
      <${Group} name="loras" mark=${loras.length || ""}>${() => html`<${LoraList} />`}<//>
      <${Group} name="controls" mark=${controls.length || ""}>${() => html`<${ControlsGroup} />`}<//>
      <${Group} name="hires" mark=${setting("_hires").value && !setting("image").value ? `${setting("hires.scale").value ?? 2}×` : ""}>${HiresGroup}<//>
      <${Group} name="canvas" mark=${marked(...TILES)}>${() => html`<${Fields} paths=${TILES} />`}<//>
      <${Group} name="variation" mark=${marked(...VARIATION)}>${() => html`<${Fields} paths=${VARIATION} />`}<//>
      <${Group} name="words" mark=${marked(...WORDS, "prompting.styles")}>${() => html`<${Styles} /><${Fields} paths=${WORDS} />`}<//>
      <${Group} name="noise" mark=${marked(...NOISE)}>${() => html`<${Fields} paths=${NOISE} />`}<//>
      <${Group} name="refiner" mark=${marked(...REFINER)}>${() => html`<${Fields} paths=${REFINER} />`}<//>
      <${Reset} />
    </aside>`;
}

const Reset = () => html`<div class="panel-foot"><${Button} icon="undo-2" onClick=${resetAll}>${t("settings.reset")}<//></div>`;

function resetAll() {
  const before = allSettings();
  replaceSettings({ prompt: before.prompt, negative_prompt: before.negative_prompt, count: 1 });
  toast(t("settings.were.reset"), { undo: () => replaceSettings(before) });
}
