// The picture to start from: given by file, paste or gallery; masked, kept, or continued beyond its edges.
import { html, useRef, useSignal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { pictureUrl } from "../core/api.js";
import { setting, set, dialog } from "../core/state.js";
import { modelOf } from "../core/server.js";
import { uploadAsStart } from "../core/actions.js";
import { startFrom } from "../core/request.js";
import { Field, Fault } from "./field.js";
import { Icon, IconButton, Button } from "./basics.js";

/** A place to drop, paste or choose a picture. `onFile(file)` takes files, `onPicture(picture)` those of the gallery. */
export function DropZone({ onFile, onPicture, label }) {
  const pick = useRef(), over = useSignal(false);
  const drop = (event) => {
    event.preventDefault();
    event.stopPropagation();
    over.value = false;
    const own = event.dataTransfer.getData("application/x-sd-picture");
    if (own && onPicture) onPicture(JSON.parse(own));
    else if (event.dataTransfer.files[0]) onFile(event.dataTransfer.files[0]);
  };
  return html`
    <button type="button" class=${`drop ${over.value ? "over" : ""}`} onClick=${() => pick.current.click()}
      onDragOver=${(event) => { event.preventDefault(); event.stopPropagation(); over.value = true; }} onDragLeave=${() => { over.value = false; }} onDrop=${drop}
      onPaste=${(event) => { const file = event.clipboardData.files[0]; if (file) onFile(file); }}>
      <${Icon} name="upload" size=${20} /><span>${label}</span></button>
    <input ref=${pick} type="file" accept="image/png,image/jpeg,image/webp" hidden onChange=${(event) => { if (event.target.files[0]) onFile(event.target.files[0]); event.target.value = ""; }} />`;
}

const SIDES = ["left", "top", "right", "bottom"];

function Outpaint() {
  const start = setting("_start").value || {}, model = modelOf(setting("model").value), factor = model.factor || 8;
  const margins = setting("canvas.outpaint").value || [0, 0, 0, 0];
  const change = (index, value) => {
    const next = margins.map((each, i) => (i === index ? Math.max(0, Math.round(value / factor) * factor) : each));
    set("canvas.outpaint", next.some(Boolean) ? next : undefined);
    if (start.width) { set("width", undefined); set("height", undefined); }
  };
  return html`
    <fieldset class="field outpaint"><legend>${t("outpaint")}</legend><p class="help">${t("outpaint.help")}</p>
      ${SIDES.map((side, i) => html`<label key=${side} class=${`margin ${side}`}><span>${t(`side.${side}`)}</span>
        <input type="number" min="0" step=${factor} value=${margins[i]} onChange=${(event) => change(i, Number(event.target.value) || 0)} /></label>`)}
      <${Fault} path="canvas.outpaint" /></fieldset>`;
}

export function StartGroup() {
  const pic = setting("image").value, mask = setting("mask").value;
  const factor = modelOf(setting("model").value).factor || 8;
  if (!pic) return html`<${DropZone} label=${t("start.drop")} onFile=${uploadAsStart}
    onPicture=${(picture) => startFrom(`picture:${picture.id}`, picture.width, picture.height, factor)} /><p class="help">${t("start.help")}</p><${Fault} path="image" />`;
  return html`
    <div class="start-picture"><img src=${pictureUrl(pic)} alt=${t("start.picture")} />
      ${mask && html`<img class="mask-over" src=${pictureUrl(mask)} alt=${t("mask")} />`}
      <${IconButton} icon="x" label=${t("start.remove")} onClick=${() => { set("image", undefined); set("mask", undefined); set("canvas.outpaint", undefined); }} /></div>
    <div class="row"><${Button} icon="brush" onClick=${() => { dialog.value = { name: "mask" }; }}>${mask ? t("mask.edit") : t("mask.paint")}<//>
      ${mask && html`<${Button} icon="x" onClick=${() => set("mask", undefined)}>${t("mask.remove")}<//>`}</div>
    <${Fault} path="image" /><${Field} path="strength" /><${Field} path="image_guidance" />
    ${mask && ["inpaint.blur", "inpaint.fill", "inpaint.only_masked", "inpaint.padding", "inpaint.invert", "inpaint.soft"].map((path) => html`<${Field} key=${path} path=${path} />`)}
    ${!mask && html`<${Outpaint} />`}`;
}
