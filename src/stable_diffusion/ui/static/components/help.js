// The keys, as they hold now.
import { html } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { listKeys } from "../core/keys.js";
import { Dialog } from "./basics.js";

const SHOWN = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", "Ctrl+ArrowUp": "Ctrl+↑ / ↓", Escape: "Esc", Delete: "Del" };

export default function Keys() {
  return html`<${Dialog} title=${t("keys")}>
    <dl class="keys">${listKeys().map(([name, text]) => html`<div key=${name}><dt>${(SHOWN[name] || name).split(/(?<=.)\+(?=.)/).map((part) => html`<kbd>${part}</kbd>`)}</dt><dd>${text}</dd></div>`)}</dl>
    <p class="help">${t("keys.mask")}</p><//>`;
}
