// All pictures: a grid that draws only the rows in sight, search, stars, the bin.
import { html, useEffect, useLayoutEffect, useRef, useSignal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { ui, setUi, toast, dialog } from "../core/state.js";
import { found, restore } from "../core/gallery.js";
import { bindKeys } from "../core/keys.js";
import { Icon, IconButton, Button } from "../components/basics.js";
import { Shown } from "../components/stage.js";

const GAP = 8, OVERSCAN = 2;
/** Pixels in a millisecond beyond which tiles only pass, and milliseconds after which the grid rests. */
const FAST = 1.5, REST = 120;

function Tile({ picture, size, chosen, onChoose, onOpen, tabbable, passing }) {
  const source = useRef();
  if (!passing) source.current = picture.thumbnail;
  const drag = (event) => {
    event.dataTransfer.setData("application/x-sd-picture", JSON.stringify(picture));
    event.dataTransfer.effectAllowed = "copy";
  };
  return html`
    <button type="button" role="option" class="tile" id=${`tile-${picture.id}`} style=${{ width: `${size}px`, height: `${size}px` }} aria-selected=${String(chosen)} tabindex=${tabbable ? 0 : -1}
      aria-label=${picture.prompt || t("picture")} draggable="true" onDragStart=${drag} onClick=${() => onChoose(picture)} onDblClick=${() => onOpen(picture)}>
      <img src=${source.current} alt="" decoding="async" loading="lazy" onError=${(event) => event.target.parentElement.classList.add("missing")} />
      ${picture.starred && html`<${Icon} name="star" size=${14} />`}</button>`;
}

function Grid({ onOpen }) {
  const box = useRef(), sizes = useSignal({ width: 800, height: 600 }), top = useSignal(0);
  // Tiles that only pass ask for no picture: those in sight would wait for all of them.
  const passing = useSignal(false), place = useRef({ y: 0, at: 0, timer: 0 });
  const scrolled = (event) => {
    const y = event.target.scrollTop, at = performance.now(), before = place.current;
    passing.value = Math.abs(y - before.y) > FAST * (at - before.at);
    clearTimeout(before.timer);
    place.current = { y, at, timer: setTimeout(() => { passing.value = false; }, REST) };
    top.value = y;
  };
  const items = found.items.value, total = Math.max(found.total.value, items.length);
  const { width, height } = sizes.value;
  const columns = Math.max(2, Math.floor((width + GAP) / (((width < 500 ? 108 : 168)) + GAP)));
  const tile = (width - GAP * (columns - 1)) / columns, row = tile + GAP;
  const first = Math.max(0, Math.floor(top.value / row) - OVERSCAN), last = Math.ceil((top.value + height) / row) + OVERSCAN;
  const shown = items.slice(first * columns, last * columns), id = ui("picture").value;
  const chosen = items.findIndex((each) => each.id === id);
  useLayoutEffect(() => {
    const measure = () => { sizes.value = { width: box.current.clientWidth - 24, height: box.current.clientHeight }; };
    const observer = new ResizeObserver(measure);
    observer.observe(box.current);
    measure();
    return () => observer.disconnect();
  }, []);
  useEffect(() => { found.reach(last * columns + columns * 4); }, [last, columns, found.query.value]);
  // A key that waits for pictures goes on in the layout of then: the first choice opens the side, and columns change.
  const layout = useRef(null);
  layout.current = { columns, row, height };
  const reveal = (at) => {
    const { columns, row, height } = layout.current, y = Math.floor(at / columns) * row;
    if (y < box.current.scrollTop) box.current.scrollTop = y;
    else if (y + row > box.current.scrollTop + height) box.current.scrollTop = y + row - height + GAP;
  };
  useLayoutEffect(() => { if (chosen >= 0) reveal(chosen); }, [columns]);
  const choose = (index, focus = true) => {
    const all = found.items.peek(), at = Math.max(0, Math.min(all.length - 1, index)), next = all[at];
    if (!next) return;
    setUi("picture", next.id);
    reveal(at);
    if (focus) requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(`tile-${next.id}`)?.focus({ preventScroll: true })));
  };
  // A key may come before the last click is drawn, so it asks what is chosen now.
  const now = () => found.items.peek().findIndex((each) => each.id === ui("picture").peek());
  useEffect(() => bindKeys({
    ArrowLeft: { text: t("key.newer"), run: () => choose(now() - 1) }, ArrowRight: { text: t("key.older"), run: () => choose(now() + 1) },
    ArrowUp: { run: () => choose(Math.max(0, now() - columns)) }, ArrowDown: { run: () => choose(now() + columns) },
    Home: { run: () => choose(0) }, End: { run: async () => { await found.reach(found.total.peek()); choose(found.items.peek().length - 1); } },
    Enter: { text: t("key.open"), run: (event) => { const one = found.items.peek()[now()]; return event.target.closest(".tile, body") && one ? onOpen(one) : false; } },
  }), [columns]);
  return html`
    <div class="tiles" ref=${box} onScroll=${scrolled} role="listbox" aria-label=${t("view.gallery")} tabindex=${items.length ? -1 : 0}>
      <div class="tiles-all" role="presentation" style=${{ height: `${Math.ceil(total / columns) * row}px` }}>
        <div class="tiles-shown" role="presentation" style=${{ transform: `translateY(${first * row}px)`, gridTemplateColumns: `repeat(${columns}, ${tile}px)` }}>
          ${shown.map((each, i) => html`<${Tile} key=${each.id} picture=${each} size=${tile} passing=${passing.value} chosen=${each.id === id} tabbable=${each.id === id || (chosen < 0 && i === 0)} onOpen=${onOpen}
            onChoose=${(picture) => { setUi("picture", picture.id); }} />`)}</div></div></div>`;
}

export default function Gallery() {
  const query = found.query.value, timer = useRef(0), picture = found.items.value.find((each) => each.id === ui("picture").value);
  const ask = (changes, wait = 0) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      found.query.value = { ...found.query.peek(), ...changes };
      found.reload().catch((error) => toast(error.message, { kind: "error" }));
    }, wait);
  };
  useEffect(() => { found.reload().catch((error) => toast(error.message, { kind: "error" })); }, []);
  const open = (each) => { setUi("picture", each.id); setUi("follow", false); location.hash = "#/paint"; };
  const none = found.ready.value && !found.items.value.length;
  return html`
    <div class=${`gallery ${picture ? "with-side" : ""}`}>
      <div class="gallery-main">
        <div class="gallery-bar">
          <h1>${t("view.gallery")}</h1><span class="count">${t("gallery.count", { n: found.total.value })}</span><span class="grow"></span>
          <input id="search" type="search" class="search" placeholder=${t("gallery.search")} aria-label=${t("gallery.search")} value=${query.search} onInput=${(event) => ask({ search: event.target.value }, 250)} />
          <${IconButton} icon="star" label=${t("gallery.starred")} pressed=${query.starred} onClick=${() => ask({ starred: !query.starred })} />
          <${IconButton} icon="trash-2" label=${t("gallery.bin")} pressed=${query.deleted} onClick=${() => ask({ deleted: !query.deleted })} />
        </div>
        ${none ? html`<div class="nothing"><${Icon} name="images" size=${40} /><p>${query.search || query.starred || query.deleted ? t("gallery.none.found") : t("gallery.none")}</p>
          ${!query.search && !query.starred && !query.deleted && html`<a class="button primary" href="#/paint">${t("gallery.first")}</a>`}</div>` : html`<${Grid} onOpen=${open} />`}
      </div>
      ${picture && html`<aside class="side" aria-label=${t("picture")}>
        <${IconButton} icon="x" class="side-close" label=${t("close")} onClick=${() => setUi("picture", undefined)} />
        ${query.deleted ? html`<img class="side-picture" src=${picture.thumbnail} alt=${picture.prompt} /><${Button} icon="undo-2" onClick=${() => restore(picture)}>${t("gallery.restore")}<//>`
          : html`<${Shown} picture=${picture} /><${Button} icon="columns-2" onClick=${() => { dialog.value = { name: "compare", a: picture.id }; }}>${t("compare")}<//>`}
      </aside>`}
    </div>`;
}
