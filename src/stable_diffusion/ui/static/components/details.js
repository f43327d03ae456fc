// What was really done: every setting of a picture as the server kept it, with its notes.
import { html, useEffect, useSignal } from "../vendor/preact.js";
import { t, when } from "../core/i18n.js";
import { toast } from "../core/state.js";
import { find } from "../core/gallery.js";
import { detailsOf, useAgain } from "../core/actions.js";
import { flatten } from "../core/request.js";
import { nameOf } from "./field.js";
import { Dialog, Button, Icon } from "./basics.js";

export const shown = (value) => {
  if (value === undefined || value === null) return "–";
  if (Array.isArray(value)) return value.map((each) => (typeof each === "object" ? `${each.name} ${each.strength ?? each.weight ?? ""}`.trim() : each)).join(", ");
  if (typeof value === "boolean") return value ? t("yes") : t("no");
  const text = String(value);
  return /^(sha256|input|picture):/.test(text) ? t("a.picture") : text;
};

export default function Details({ id }) {
  const details = useSignal(null);
  useEffect(() => { detailsOf(id).then((got) => { details.value = got; }, (error) => toast(error.message, { kind: "error" })); }, [id]);
  const got = details.value;
  const copy = async () => {
    try { await navigator.clipboard.writeText(got.parameters || ""); toast(t("copied")); } catch { toast(t("copy.failed"), { kind: "error" }); }
  };
  return html`<${Dialog} title=${t("details")} wide>
    ${!got ? html`<p class="help">${t("loading")}</p>` : html`
      ${(got.notes || []).map((note) => html`<p class="note" key=${note}><${Icon} name="info" size=${14} /> ${note}</p>`)}
      <table class="facts"><tbody>
        <tr><th scope="row">${t("field.seed")}</th><td>${got.seed_text ?? got.seed}</td></tr>
        ${Object.entries(flatten(got.request || {})).filter(([path]) => path !== "seed").map(([path, value]) => html`
          <tr key=${path}><th scope="row">${nameOf(path)}</th><td>${shown(value)}</td></tr>`)}
        <tr><th scope="row">${t("made")}</th><td>${when(got.created)}</td></tr>
      </tbody></table>
      ${got.parameters && html`<h3>${t("parameters")}</h3><pre tabindex="0">${got.parameters}</pre>`}
      <footer><${Button} icon="copy" onClick=${copy}>${t("copy")}<//><${Button} kind="primary" icon="rotate-cw" onClick=${() => useAgain(find(id) || got)}>${t("use.again")}<//></footer>`}
    <//>`;
}
