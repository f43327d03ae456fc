// The place of the 360° viewer.
import { html } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { Icon } from "../components/basics.js";

export default function Viewer() {
  return html`<div class="nothing"><${Icon} name="globe" size=${40} /><h1>${t("view.viewer")}</h1><p>${t("view.later")}</p></div>`;
}
