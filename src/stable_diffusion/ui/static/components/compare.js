// Two pictures, one over the other, with a line to move between them.
import { html, useSignal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { dialog } from "../core/state.js";
import { recent, found, find } from "../core/gallery.js";
import { Dialog } from "./basics.js";

export default function Compare({ a, b }) {
  const items = found.items.value.length ? found.items.value : recent.items.value;
  const first = find(a) || items[0], at = items.findIndex((each) => each.id === first?.id);
  const other = useSignal(b || items[at + 1]?.id || items[at - 1]?.id), split = useSignal(50);
  const second = find(other.value);
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    event.preventDefault();
    event.currentTarget.setPointerCapture(event.pointerId);
    const box = event.currentTarget.getBoundingClientRect();
    split.value = Math.round(Math.max(0, Math.min(100, ((event.clientX - box.left) / box.width) * 100)));
  };
  if (!first || !second) return html`<${Dialog} title=${t("compare")}><p class="help">${t("compare.two")}</p><//>`;
  const ratio = first.width / first.height;
  return html`<${Dialog} title=${t("compare")} wide class="compare">
    <div class="compare-box" style=${{ aspectRatio: String(ratio), width: `min(100%, calc(62vh * ${ratio}))` }} onPointerDown=${drag} onPointerMove=${drag}>
      <img src=${second.url} alt=${`B: ${second.prompt}`} draggable=${false} style=${{ clipPath: `inset(0 0 0 ${split.value}%)` }} />
      <img src=${first.url} alt=${`A: ${first.prompt}`} draggable=${false} style=${{ clipPath: `inset(0 ${100 - split.value}% 0 0)` }} />
      <span class="compare-line" style=${{ left: `${split.value}%` }}></span><b class="tag a">A</b><b class="tag b">B</b>
    </div>
    <input type="range" min="0" max="100" value=${split.value} aria-label=${t("compare.line")} onInput=${(event) => { split.value = Number(event.target.value); }} />
    <dl class="compare-text"><div><dt>A</dt><dd>${first.prompt} · ${t("seed.is", { seed: first.seed_text ?? first.seed })}</dd></div><div><dt>B</dt><dd>${second.prompt} · ${t("seed.is", { seed: second.seed_text ?? second.seed })}</dd></div></dl>
    <div class="strip" role="group" aria-label=${t("compare.with")}>${items.slice(0, 60).filter((each) => each.id !== first.id).map((each) => html`
      <button key=${each.id} type="button" class="thumb" aria-pressed=${String(each.id === second.id)} aria-label=${each.prompt || t("picture")} onClick=${() => { other.value = each.id; }}><img src=${each.thumbnail} alt="" loading="lazy" /></button>`)}</div>
    <footer><button type="button" class="button" onClick=${() => { dialog.value = { name: "compare", a: second.id, b: first.id }; other.value = first.id; }}>${t("compare.swap")}</button></footer><//>`;
}
