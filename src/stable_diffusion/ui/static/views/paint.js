// The first view: picture, strip, prompt and button; the settings beside it when wanted.
import { html, useEffect, useRef, signal } from "../vendor/preact.js";
import { ui, setUi } from "../core/state.js";
import { bindKeys } from "../core/keys.js";
import { t } from "../core/i18n.js";
import { walk } from "../core/actions.js";
import { Stage, Strip } from "../components/stage.js";
import { Composer, StartButtons } from "../components/composer.js";

/** The settings, loaded when they are first opened. */
const panel = signal(null);

export default function Paint() {
  useEffect(() => bindKeys({
    ArrowLeft: { text: t("key.newer"), run: () => walk(-1) },
    ArrowRight: { text: t("key.older"), run: () => walk(1) },
    P: { text: t("key.prompt"), run: () => document.getElementById("f-prompt").focus() },
    ",": { text: t("key.settings"), run: () => setUi("panel", (open) => !open) },
  }), []);
  const open = Boolean(ui("panel").value);
  useEffect(() => { if (open && !panel.value) import("../components/panel.js").then((module) => { panel.value = module.Panel; }); }, [open]);
  const before = useRef(open);
  useEffect(() => {
    if (open && !panel.value) return;
    if (open && !before.current) document.getElementById("panel").scrollIntoView({ block: "start" }); // on a phone it is below
    before.current = open;
  }, [open, panel.value]);
  return html`
    <div class=${`paint ${open ? "with-panel" : ""}`}>
      <div class="desk"><${Stage} /><${Strip} /><${Composer} /></div>
      ${open && (panel.value ? html`<${panel.value} />` : html`<aside class="panel"></aside>`)}
      <div class="sticky"><${StartButtons} id="generate-sticky" /></div>
    </div>`;
}
