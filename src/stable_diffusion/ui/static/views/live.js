// The place of the live picture.
import { html } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { Icon } from "../components/basics.js";

export default function Live() {
  return html`<div class="nothing"><${Icon} name="video" size=${40} /><h1>${t("view.live")}</h1><p>${t("view.later")}</p></div>`;
}
