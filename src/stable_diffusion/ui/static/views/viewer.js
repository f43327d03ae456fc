// The 360° view: a panorama of the gallery, of a file, or made from the prompt, to look around in.
import { html, useEffect, useRef, useSignal } from "../vendor/preact.js";
import { t, lang } from "../core/i18n.js";
import { api } from "../core/api.js";
import { setting, set } from "../core/state.js";
import { onEvent, progress } from "../core/server.js";
import { generate, stop } from "../core/actions.js";
import { buildRequest } from "../core/request.js";
import { recent } from "../core/gallery.js";
import { Bar, Button, IconButton } from "../components/basics.js";
import { DropZone } from "../components/start.js";

const isSphere = (picture) => Math.abs(picture.width - 2 * picture.height) <= 2;

function useStyle() {
  useEffect(() => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "static/panorama/view.css" });
    document.head.append(link);
    return () => link.remove();
  }, []);
}

/** The picture that the address names, else the latest one that is a sphere; null for none. */
function useSphere(shown) {
  const follow = async () => {
    const id = location.hash.split("/")[2];
    if (id) {
      const picture = await api(`v1/gallery/${encodeURIComponent(id)}`).catch(() => null);
      if (picture) shown.value = { url: `v1/gallery/${picture.id}/file`, key: picture.id };
      return;
    }
    const picture = recent.items.peek().find(isSphere);
    if (picture && !shown.peek()) shown.value = { url: picture.url, key: picture.id };
  };
  useEffect(() => {
    follow();
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, [recent.ready.value]);
}

/** The viewer in its element: three.js comes when the first picture does. */
function Sphere({ shown, depth }) {
  const box = useRef();
  useEffect(() => {
    let viewer = null;
    let gone = false;
    import("../panorama/viewer.js").then(async ({ mountViewer }) => {
      if (gone) return;
      viewer = await mountViewer(box.current, { url: shown.url, blob: shown.blob, depth, lang: lang.value });
      if (gone) viewer.destroy();
    });
    return () => {
      gone = true;
      viewer?.destroy();
    };
  }, [shown.key, depth, lang.value]);
  return html`<div class="sphere" ref=${box}></div>`;
}

function Maker() {
  const job = useSignal(null), step = job.value && progress.value[job.value];
  useEffect(() => onEvent((name, data) => {
    if (data.job !== job.peek()) return;
    if (name === "picture") location.hash = `#/viewer/${data.id}`;
    if (["done", "failed", "cancelled", "lost"].includes(name)) job.value = null;
  }), []);
  const make = async () => {
    const { canvas, image, mask, width, height, strength, ...rest } = buildRequest();
    const spherical = { canvas: { panorama: true }, image: undefined, mask: undefined, strength: undefined, width: undefined, height: undefined };
    const made = await generate({ ...rest, ...spherical, count: 1 });
    job.value = made?.id ?? null;
  };
  const keys = (event) => { if (event.key === "Enter" && !event.isComposing) make(); };
  return html`<div class="sphere-maker">
    <input type="text" aria-label=${t("prompt")} placeholder=${t("viewer.prompt")} value=${setting("prompt").value || ""} onInput=${(event) => set("prompt", event.target.value)} onKeyDown=${keys} />
    ${job.value
      ? html`<${Button} icon="circle-stop" onClick=${stop}>${t("stop")}<//>`
      : html`<${Button} icon="globe" kind="primary" onClick=${make}>${t("viewer.make")}<//>`}
    ${job.value && html`<${Bar} value=${step?.fraction} label=${t("viewer.making")} />`}
  </div>`;
}

export default function Viewer() {
  const shown = useSignal(null), depth = useSignal(null);
  useStyle();
  useSphere(shown);
  const open = (file) => { depth.value = null; shown.value = { blob: file, key: `${file.name}-${file.lastModified}` }; };
  const take = (picture) => { depth.value = null; location.hash = `#/viewer/${picture.id}`; };
  return html`<section class="sphere-view" aria-label=${t("view.viewer")}>
    <h1 class="sphere-title">${t("view.viewer")}</h1>
    <${Maker} />
    ${shown.value ? html`<${Sphere} shown=${shown.value} depth=${depth.value} />` : html`<p class="sphere-none">${t("viewer.none")}</p>`}
    <div class="sphere-files">
      <${DropZone} label=${t("viewer.open")} onFile=${open} onPicture=${take} />
      ${shown.value && html`<${DropZone} label=${t("viewer.depth")} onFile=${(file) => { depth.value = file; }} />`}
      ${depth.value && html`<${IconButton} icon="x" label=${t("viewer.flat")} onClick=${() => { depth.value = null; }} />`}
    </div>
  </section>`;
}
