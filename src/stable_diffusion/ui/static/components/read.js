// A picture that was dropped: what its settings would change, before anything is changed.
import { html, useEffect, useSignal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { dialog, toast } from "../core/state.js";
import { differences, applyRequest, applySome } from "../core/request.js";
import { uploadAsStart } from "../core/actions.js";
import { nameOf } from "./field.js";
import { shown } from "./details.js";
import { Dialog, Button, Icon } from "./basics.js";

export default function Read({ file, found, note }) {
  const url = useSignal(null), chosen = useSignal(null);
  useEffect(() => {
    url.value = URL.createObjectURL(file);
    return () => URL.revokeObjectURL(url.peek());
  }, [file]);
  const request = found?.request, changes = request ? differences(request) : [];
  if (chosen.value === null && request) chosen.value = new Set(changes.map((each) => each.path));
  const close = () => { dialog.value = null; location.hash = "#/paint"; };
  const toggle = (path) => { const next = new Set(chosen.value); if (!next.delete(path)) next.add(path); chosen.value = next; };
  const take = () => {
    if (chosen.value.size === changes.length) applyRequest(request);
    else applySome(request, [...chosen.value]);
    toast(t("read.taken"));
    close();
  };
  return html`<${Dialog} title=${t("read")} wide>
    <div class="read">
      <figure>${url.value && html`<img src=${url.value} alt=${file.name} />`}<figcaption>${file.name}</figcaption></figure>
      <div class="read-text">
        ${request ? html`<p>${t("read.from", { source: found.source })}</p>` : html`<p class="note">${note || t("read.nothing")}</p>`}
        ${(found?.notes || []).map((each) => html`<p class="note" key=${each}><${Icon} name="info" size=${14} /> ${each}</p>`)}
        ${request && !changes.length && html`<p>${t("read.same")}</p>`}
        ${changes.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label=${t("read.changes")}><table class="diff"><thead><tr><th></th><th>${t("read.setting")}</th><th>${t("read.now")}</th><th>${t("read.then")}</th></tr></thead>
          <tbody>${changes.map((each) => html`<tr key=${each.path}><td><input type="checkbox" aria-label=${nameOf(each.path)} checked=${chosen.value.has(each.path)} onChange=${() => toggle(each.path)} /></td>
            <th scope="row">${nameOf(each.path)}</th><td>${shown(each.from)}</td><td><b>${shown(each.to)}</b></td></tr>`)}</tbody></table></div>`}
      </div>
    </div>
    <footer><${Button} icon="image" onClick=${() => { uploadAsStart(file); close(); }}>${t("start.use")}<//>
      ${changes.length > 0 && html`<${Button} kind="primary" icon="check" id="take" onClick=${take}>${t("read.take")}<//>`}</footer><//>`;
}
