// The mask editor: brush, eraser, feather, zoom and pan, undo, pen pressure, touch, and keys for all of it.
import { html, useEffect, useRef, useSignal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { pictureUrl, upload } from "../core/api.js";
import { setting, set, dialog, toast, ui, setUi } from "../core/state.js";
import { generate } from "../core/actions.js";
import { bindKeys } from "../core/keys.js";
import { Mask } from "../core/mask.js";
import { MaskView } from "../core/mask_view.js";
import { Dialog, Button, IconButton } from "./basics.js";

async function bitmap(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(t("mask.no.picture"));
  return createImageBitmap(await answer.blob());
}

export default function MaskEditor() {
  const canvas = useRef(), view = useRef(null), fault = useSignal(""), erase = useSignal(false), steps = useSignal(0);
  const size = ui("brush").value || 48, blur = setting("inpaint.blur").value ?? 0;
  const after = () => { steps.value += 1; view.current?.draw(); };
  const act = (name) => () => { view.current?.mask[name](); after(); };
  useEffect(() => {
    let gone = false;
    (async () => {
      try {
        const picture = await bitmap(pictureUrl(setting("image").peek()));
        const mask = new Mask(picture.width, picture.height), kept = setting("mask").peek();
        if (kept) mask.load(await bitmap(pictureUrl(kept)));
        if (gone) return;
        view.current = new MaskView(canvas.current, picture, mask, after);
        Object.assign(view.current, { size: ui("brush").peek() || 48, blur: setting("inpaint.blur").peek() || 0 });
        after();
      } catch (error) { fault.value = error.message; }
    })();
    return () => { gone = true; view.current?.stop(); };
  }, []);
  useEffect(() => { if (view.current) { Object.assign(view.current, { size, blur, erase: erase.value }); view.current.draw(); } }, [size, blur, erase.value]);
  const grow = (factor) => setUi("brush", Math.max(2, Math.min(400, Math.round(size * factor) + (factor > 1 ? 1 : -1))));
  const keys = {
    B: { run: () => { erase.value = false; } }, E: { run: () => { erase.value = true; } }, X: { run: () => { erase.value = !erase.value; } },
    "[": { run: () => grow(0.85) }, "]": { run: () => grow(1.18) }, I: { run: act("invert") }, "0": { run: () => view.current?.fit() },
    "+": { run: () => view.current?.zoom(1.25) }, "=": { run: () => view.current?.zoom(1.25) }, "-": { run: () => view.current?.zoom(0.8) },
    "Ctrl+Z": { run: act("undo") }, "Ctrl+Y": { run: act("redo") }, "Ctrl+Enter": { fields: true, run: () => { keep(true); } },
  };
  useEffect(() => bindKeys(Object.fromEntries(Object.entries(keys).map(([name, each]) => [name, { ...each, dialogs: true }]))), [size]);
  const keep = async (start) => {
    const mask = view.current?.mask;
    if (!mask) return;
    try {
      set("mask", mask.empty ? undefined : (await upload(await mask.blob())).pic);
      set("inpaint.invert", undefined);
      dialog.value = null;
      if (start) generate();
    } catch (error) { toast(error.message, { kind: "error" }); }
  };
  const mask = steps.value >= 0 && view.current?.mask;  // read, so that each step draws the buttons again
  return html`<${Dialog} title=${t("mask.title")} wide class="mask-dialog">
    <div class="mask-tools" role="toolbar" aria-label=${t("mask.tools")}>
      <${IconButton} icon="brush" label=${t("mask.brush")} keys="B" pressed=${!erase.value} onClick=${() => { erase.value = false; }} />
      <${IconButton} icon="eraser" label=${t("mask.eraser")} keys="E" pressed=${erase.value} onClick=${() => { erase.value = true; }} />
      <label class="inline"><span>${t("mask.size")}</span><input type="range" min="2" max="200" value=${size} onInput=${(event) => setUi("brush", Number(event.target.value))} /><output>${size}</output></label>
      <label class="inline"><span>${t("mask.feather")}</span><input type="range" min="0" max="32" value=${blur} onInput=${(event) => set("inpaint.blur", Number(event.target.value) || undefined)} /><output>${blur}</output></label>
      <${IconButton} icon="contrast" label=${t("mask.invert")} keys="I" onClick=${act("invert")} />
      <${IconButton} icon="square" label=${t("mask.fill")} onClick=${act("fill")} />
      <${IconButton} icon="trash-2" label=${t("mask.clear")} onClick=${act("clear")} />
      <${IconButton} icon="undo-2" label=${t("mask.undo")} keys="Ctrl+Z" disabled=${!mask?.past.length} onClick=${act("undo")} />
      <${IconButton} icon="redo-2" label=${t("mask.redo")} keys="Ctrl+Y" disabled=${!mask?.future.length} onClick=${act("redo")} />
      <${IconButton} icon="maximize" label=${t("mask.fit")} keys="0" onClick=${() => view.current?.fit()} />
    </div>
    ${fault.value ? html`<p class="fault" role="alert">${fault.value}</p>` : ""}
    <div class="mask-area"><canvas ref=${canvas} id="mask-canvas" tabindex="0" role="application" aria-label=${t("mask.canvas")}></canvas></div>
    <p class="help">${t("mask.help")}</p>
    <footer><${Button} icon="check" id="mask-done" onClick=${() => keep(false)}>${t("mask.done")}<//><${Button} kind="primary" icon="sparkles" id="mask-go" onClick=${() => keep(true)}>${t("mask.go")}<//></footer><//>`;
}
