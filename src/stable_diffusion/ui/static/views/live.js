// The live picture: a camera or a clip on one side, what the model makes of it on the other, while the settings change.
import { html, useEffect, useMemo, useRef } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { setting, set, ui, setUi, toast } from "../core/state.js";
import { caps } from "../core/server.js";
import { bindKeys } from "../core/keys.js";
import { Button, Icon, IconButton, Segments, download } from "../components/basics.js";
import { LiveSession } from "../live/session.js";
import { InYourRoom } from "../live/room.js";

const SIZES = [128, 192, 256, 384, 512];
const SEEDS = 2 ** 32;
const STEP = 0.05; // of the picture, that an arrow key moves a sticker
const USUAL = { mode: "change", strength: 0.5, size: 256, seed: 0, steps: 4, facing: "user" };

/** A setting of this view alone. */
const live = (name) => ui(`live.${name}`).value ?? USUAL[name];
const setLive = (name, value) => setUi(`live.${name}`, value);

function models() {
  return caps.value?.models || [];
}

/** The model of live pictures: the chosen one, else the built-in one of four steps, else the server's. */
function modelName() {
  const names = models().map((each) => each.name), chosen = live("model");
  return names.includes(chosen) ? chosen : names.includes("embedded-fast") ? "embedded-fast" : caps.value?.default_model;
}

/** What the next frames are made with; every signal that it reads makes the session send it again. */
function readSettings() {
  const settings = { prompt: setting("prompt").value || "" };
  for (const name of ["mode", "strength", "size", "seed", "steps"]) settings[name] = live(name);
  const model = modelName();
  return model ? { ...settings, model } : settings;
}

function useStyle() {
  useEffect(() => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "static/live/view.css" });
    document.head.append(link);
    return () => link.remove();
  }, []);
}

function Range({ setting: name, label, least, most, step }) {
  const id = `live-${name}`;
  return html`<div class="field"><div class="field-head"><label for=${id}>${label}</label>
      <input class="number" type="number" aria-label=${label} min=${least} max=${most} step=${step} value=${live(name)}
        onChange=${(event) => setLive(name, Math.min(most, Math.max(least, Number(event.target.value) || least)))} /></div>
    <input id=${id} type="range" min=${least} max=${most} step=${step} value=${live(name)} onInput=${(event) => setLive(name, Number(event.target.value))} /></div>`;
}

function Seed() {
  const change = (event) => setLive("seed", Math.min(SEEDS - 1, Math.max(0, Math.floor(Number(event.target.value)) || 0)));
  return html`<div class="field"><div class="field-head"><label for="live-seed">${t("field.seed")}</label>
      <${IconButton} icon="dices" label=${t("live.seed.new")} onClick=${() => setLive("seed", Math.floor(Math.random() * SEEDS))} /></div>
    <input id="live-seed" class="number" type="number" min="0" max=${SEEDS - 1} value=${live("seed")} onChange=${change} /></div>`;
}

function Settings() {
  const sticker = live("mode") === "sticker", few = models();
  return html`<div class="live-settings">
    ${sticker
      ? html`<p class="help live-hint">${t("live.sticker.help")}</p>`
      : html`<${Range} setting="strength" label=${t("field.strength")} least=${0.05} most=${1} step=${0.05} />`}
    <${Range} setting="steps" label=${t("field.steps")} least=${1} most=${20} step=${1} />
    <${Seed} />
    <div class="field"><span class="label">${t("live.size")}</span>
      <${Segments} label=${t("live.size")} value=${live("size")} options=${SIZES.map((each) => [each, String(each)])} onChange=${(each) => setLive("size", each)} /></div>
    ${few.length > 1 && html`<div class="field"><label class="label" for="live-model">${t("field.model")}</label>
      <select id="live-model" value=${modelName()} onChange=${(event) => setLive("model", event.target.value)}>${few.map((each) => html`<option key=${each.name} value=${each.name}>${each.title || each.name}</option>`)}</select></div>`}
  </div>`;
}

/** Why there is no camera, and what to do. */
function Fault({ kind, again }) {
  return html`<div class="live-fault" role="alert"><${Icon} name="triangle-alert" /><div><p>${t(`live.fault.${kind}`)}</p>
    ${["denied", "none", "busy", "failed"].includes(kind) && html`<button type="button" class="button" onClick=${again}>${t("live.again")}</button>`}</div></div>`;
}

function Source({ session, video, image, openCamera }) {
  const pick = useRef(), kind = session.source.value, moving = kind === "camera" || kind === "clip";
  const choose = (event) => { if (event.target.files[0]) session.openFile(event.target.files[0]); event.target.value = ""; };
  return html`<figure class="live-pane"><figcaption>${kind ? t(`live.from.${kind}`) : t("live.source")}
      ${kind === "camera" && session.cameras.value > 1 && html`<${IconButton} icon="rotate-cw" label=${t("live.switch")} onClick=${session.switchCamera} />`}
      ${kind && html`<${IconButton} icon="x" label=${t("live.close")} onClick=${() => session.stop()} />`}</figcaption>
    <div class="live-square">
      <video ref=${video} class=${session.mirrored.value ? "mirrored" : ""} muted playsinline loop hidden=${!moving} aria-label=${t("live.source")}></video>
      <img ref=${image} alt=${t("live.source")} hidden=${kind !== "picture"} />
      ${!kind && html`<div class="live-choose">
        ${session.fault.value ? html`<${Fault} kind=${session.fault.value} again=${openCamera} />` : html`<p>${t("live.choose")}</p>`}
        <div class="row"><${Button} icon="video" kind="primary" onClick=${openCamera}>${t("live.camera")}<//>
          <${Button} icon="upload" onClick=${() => pick.current.click()}>${t("live.clip")}<//></div></div>`}
      <input ref=${pick} type="file" accept="video/*,image/png,image/jpeg,image/webp" hidden onChange=${choose} />
    </div></figure>`;
}

/** Moves and sizes a sticker: dragged, by wheel, or by arrow keys and + and -. */
function stickerHandlers(session) {
  const change = (by) => {
    const { x, y, size } = session.place.peek(), limit = (value) => Math.min(1, Math.max(0, value));
    session.place.value = { x: limit(x + (by.x || 0)), y: limit(y + (by.y || 0)), size: Math.min(1.5, Math.max(0.1, size * (by.size || 1))) };
  };
  const keys = { ArrowLeft: { x: -STEP }, ArrowRight: { x: STEP }, ArrowUp: { y: -STEP }, ArrowDown: { y: STEP }, "+": { size: 1.1 }, "=": { size: 1.1 }, "-": { size: 1 / 1.1 } };
  return {
    onPointerDown: (event) => event.currentTarget.setPointerCapture(event.pointerId),
    onPointerMove: (event) => {
      if (!event.currentTarget.hasPointerCapture(event.pointerId)) return;
      const side = event.currentTarget.clientWidth;
      change({ x: event.movementX / side, y: event.movementY / side });
    },
    onWheel: (event) => { event.preventDefault(); change({ size: event.deltaY < 0 ? 1.06 : 1 / 1.06 }); },
    onKeyDown: (event) => { if (keys[event.key]) { event.preventDefault(); event.stopPropagation(); change(keys[event.key]); } },
  };
}

function Result({ session, canvas }) {
  const sticker = live("mode") === "sticker", made = session.answers.value > 0;
  const save = () => canvas.current.toBlob((blob) => {
    const url = URL.createObjectURL(blob);
    download(url, "live.png");
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  return html`<figure class="live-pane"><figcaption>${t("live.result")}<${State} session=${session} />
      <${IconButton} icon="download" label=${t("live.save")} disabled=${!made} onClick=${save} /></figcaption>
    <div class="live-square"><canvas ref=${canvas} class=${sticker ? "sticker" : ""} width="256" height="256" role="img" tabindex=${sticker ? "0" : undefined}
      aria-label=${sticker ? t("live.sticker.label") : t("live.result")} ...${sticker ? stickerHandlers(session) : {}}></canvas>
      ${!made && session.source.value && html`<p class="live-wait" role="status"><span class="shimmer"></span><span>${t("live.first")}</span></p>`}</div></figure>`;
}

function State({ session }) {
  const { rate, latency, server } = session.figures.value || {};
  if (session.link.value === "elsewhere") return html`<span class="chip bad" role="status">${t("live.elsewhere")}</span>`;
  if (session.link.value === "lost") return html`<span class="chip bad" role="status">${t("offline")}</span>`;
  if (session.hidden.value) return html`<span class="chip" role="status">${t("live.hidden")}</span>`;
  if (session.paused.value) return html`<span class="chip" role="status">${t("live.paused")}</span>`;
  if (!rate || !session.source.value) return html`<span class="grow"></span>`;
  return html`<span class="live-figures" data-rate=${rate.toFixed(2)} data-latency=${latency.toFixed(1)} data-server=${server.toFixed(1)} title=${t("live.figures.tip", { server: Math.round(server) })}>
    ${t("live.figures", { rate: rate.toFixed(1), latency: Math.round(latency) })}</span>`;
}

const keptToast = (picture) => toast(t("live.kept"), { label: t("live.kept.show"), undo: () => { setUi("picture", picture.id); location.hash = "#/gallery"; } });

export default function Live() {
  const video = useRef(), image = useRef(), canvas = useRef();
  const session = useMemo(() => new LiveSession(readSettings, keptToast), []);
  const openCamera = () => session.openCamera({ facing: live("facing") });
  const pause = () => session.source.peek() && session.pause(!session.paused.peek());
  useStyle();
  useEffect(() => {
    session.start({ video: video.current, image: image.current, canvas: canvas.current });
    const unbind = bindKeys({ " ": { text: t("live.pause"), run: (event) => (event.target.closest("button, canvas, a") ? false : (pause(), true)) }, K: { text: t("live.keep"), run: session.keep } });
    return () => { unbind(); session.close(); };
  }, []);
  const room = () => ({ prompt: setting("prompt").peek() || "", background: "transparent", seed: live("seed"), steps: live("steps"), model: modelName(), count: 1 });
  return html`<section class="live-view" aria-label=${t("view.live")}>
    <h1 class="unseen">${t("view.live")}</h1>
    <div class="live-panes"><${Source} session=${session} video=${video} image=${image} openCamera=${openCamera} /><${Result} session=${session} canvas=${canvas} /></div>
    <div class="live-desk">
      <div class="live-prompt">
        <input type="text" id="live-prompt" aria-label=${t("prompt")} placeholder=${t("live.prompt")} value=${setting("prompt").value || ""} onInput=${(event) => set("prompt", event.target.value)} />
        <div class="row">
          <${Button} icon=${session.paused.value ? "play" : "pause"} disabled=${!session.source.value} onClick=${pause}>${session.paused.value ? t("live.go") : t("live.pause")}<//>
          <${Button} icon="download" kind="primary" disabled=${!session.answers.value} onClick=${session.keep}>${t("live.keep")}<//></div></div>
      ${session.notice.value && html`<p class="fault" role="alert">${session.notice.value}</p>`}
      <${Segments} label=${t("live.mode")} value=${live("mode")} options=${[["change", t("live.mode.change")], ["sticker", t("live.mode.sticker")]]} onChange=${(each) => setLive("mode", each)} />
      <${Settings} />
      <${InYourRoom} request=${room} before=${() => session.stop()} />
    </div>
  </section>`;
}
