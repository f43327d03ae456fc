// Pictures that guide through control networks, each with what the network will see of it.
import { html, useEffect, useSignal } from "../vendor/preact.js";
import { t, has } from "../core/i18n.js";
import { api, upload, pictureUrl } from "../core/api.js";
import { setting, set, toast } from "../core/state.js";
import { caps } from "../core/server.js";
import { DropZone } from "./start.js";
import { Fault, usual } from "./field.js";
import { Button, IconButton } from "./basics.js";

/** The preprocessed picture, made by the server when the settings rest. */
function Preprocessed({ control, image }) {
  const url = useSignal(null), fault = useSignal("");
  const { preprocessor = "none", threshold_a, threshold_b } = control;
  const width = setting("width").value ?? usual("width"), height = setting("height").value ?? usual("height");
  useEffect(() => {
    if (!image || preprocessor === "none") { url.value = null; return undefined; }
    const stopper = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const json = { image, preprocessor, width, height, ...(threshold_a != null ? { threshold_a } : {}), ...(threshold_b != null ? { threshold_b } : {}) };
        const blob = await api("v1/preprocess", { json, raw: true, signal: stopper.signal });
        if (url.peek()) URL.revokeObjectURL(url.peek());
        url.value = URL.createObjectURL(blob);
        fault.value = "";
      } catch (error) {
        if (error.name !== "AbortError") fault.value = error.message;
      }
    }, 250);
    return () => { clearTimeout(timer); stopper.abort(); };
  }, [image, preprocessor, threshold_a, threshold_b, width, height]);
  if (fault.value) return html`<p class="fault">${fault.value}</p>`;
  return url.value ? html`<figure><img src=${url.value} alt=${t("control.seen")} /><figcaption>${t("control.seen")}</figcaption></figure>` : null;
}

function Slider({ label, value, min, max, step = 0.05, onChange }) {
  return html`<label class="field inline"><span>${label}</span><input type="range" min=${min} max=${max} step=${step} value=${value} onInput=${(event) => onChange(Number(event.target.value))} /><output>${value}</output></label>`;
}

const Choice = ({ label, value, options, onChange }) => html`
  <label class="field inline"><span>${label}</span><select value=${value} onChange=${(event) => onChange(event.target.value)}>
    ${options.map((each) => html`<option key=${each} value=${each}>${has(`value.${each}`) ? t(`value.${each}`) : each}</option>`)}</select></label>`;

function Control({ control, change, drop }) {
  const names = (caps.value?.controls || []).map((each) => each.name);
  const image = control.image || setting("image").value;
  const take = async (file) => {
    try { change({ image: (await upload(file)).pic }); } catch (error) { toast(error.message, { kind: "error" }); }
  };
  return html`
    <div class="card">
      <div class="card-head"><select aria-label=${t("control.network")} value=${control.name} onChange=${(event) => change({ name: event.target.value })}>
        ${names.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}</select>
        <${IconButton} icon="x" size=${14} label=${t("control.remove")} onClick=${drop} /></div>
      ${image ? html`<div class="control-pictures"><figure><img src=${pictureUrl(image)} alt=${t("control.picture")} /><figcaption>${control.image ? t("control.picture") : t("control.start")}</figcaption></figure>
        <${Preprocessed} control=${control} image=${image} /></div>` : null}
      ${control.image ? html`<${Button} icon="x" onClick=${() => change({ image: undefined })}>${t("control.other")}<//>`
        : html`<${DropZone} label=${t("control.drop")} onFile=${take} onPicture=${(picture) => change({ image: `picture:${picture.id}` })} />`}
      <${Choice} label=${t("field.controls.preprocessor")} value=${control.preprocessor || "none"} options=${caps.value?.preprocessors || ["none"]} onChange=${(value) => change({ preprocessor: value })} />
      ${["canny", "threshold"].includes(control.preprocessor) && html`<${Slider} label=${t("field.controls.threshold_a")} min=${0} max=${255} step=${1} value=${control.threshold_a ?? (control.preprocessor === "canny" ? 100 : 127)} onChange=${(value) => change({ threshold_a: value })} />`}
      ${control.preprocessor === "canny" && html`<${Slider} label=${t("field.controls.threshold_b")} min=${0} max=${255} step=${1} value=${control.threshold_b ?? 200} onChange=${(value) => change({ threshold_b: value })} />`}
      <${Slider} label=${t("field.controls.weight")} min=${0} max=${2} value=${control.weight ?? 1} onChange=${(value) => change({ weight: value })} />
      <${Slider} label=${t("field.controls.start")} min=${0} max=${1} value=${control.start ?? 0} onChange=${(value) => change({ start: Math.min(value, (control.end ?? 1) - 0.05) })} />
      <${Slider} label=${t("field.controls.end")} min=${0} max=${1} value=${control.end ?? 1} onChange=${(value) => change({ end: Math.max(value, (control.start ?? 0) + 0.05) })} />
      <${Choice} label=${t("field.controls.mode")} value=${control.mode || "balanced"} options=${["balanced", "prompt", "control"]} onChange=${(value) => change({ mode: value })} />
      <${Choice} label=${t("field.controls.resize")} value=${control.resize || "crop"} options=${["stretch", "crop", "fill"]} onChange=${(value) => change({ resize: value })} />
    </div>`;
}

export function ControlsGroup() {
  const controls = setting("controls").value || [], networks = caps.value?.controls || [];
  if (!networks.length && !controls.length) return html`<p class="help">${t("control.none")}</p>`;
  const change = (index, changes) => set("controls", controls.map((each, i) => (i === index ? JSON.parse(JSON.stringify({ ...each, ...changes })) : each)));
  return html`
    ${controls.map((each, i) => html`<${Control} key=${i} control=${each} change=${(changes) => change(i, changes)} drop=${() => set("controls", controls.filter((_, k) => k !== i))} />`)}
    <${Button} icon="plus" onClick=${() => set("controls", [...controls, { name: networks[0]?.name, preprocessor: "none" }])}>${t("control.add")}<//><${Fault} path="controls" />`;
}
