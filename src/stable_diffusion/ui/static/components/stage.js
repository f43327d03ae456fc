// The large picture: the one being made, or the chosen one with what can be done to it.
import { html, useEffect, useSignal } from "../vendor/preact.js";
import { t, duration } from "../core/i18n.js";
import { ui, setUi, previews, set, dialog } from "../core/state.js";
import { running, progress, modelOf, caps } from "../core/server.js";
import { recent, star, discard } from "../core/gallery.js";
import { chosen, detailsOf, useAgain, editPicture, enlarge, vary, generate } from "../core/actions.js";
import { Icon, IconButton, Bar, download } from "./basics.js";

const EXAMPLES = ["example.1", "example.2", "example.3"];

const Welcome = () => html`
  <div class="welcome">
    <h1>${t("welcome")}</h1>
    <p>${t("welcome.how")}</p>
    <div class="examples">${EXAMPLES.map((key) => html`
      <button key=${key} type="button" onClick=${() => { set("prompt", t(key)); generate(); }}>${t(key)}</button>`)}</div>
  </div>`;

/** A box of the picture's shape, as large as the stage allows. */
const Frame = ({ width, height, children, class: extra = "" }) => html`
  <div class=${`frame ${extra}`} style=${{ aspectRatio: `${width} / ${height}`, width: `min(100cqw, calc(100cqh * ${width / height}))` }}>${children}</div>`;

function Live({ job }) {
  const step = progress.value[job.id], preview = previews.value[job.id], request = job.request || {};
  const model = modelOf(request.model), scale = request.hires?.scale || 1;
  const width = (request.width || model.size?.[0] || 1) * scale, height = (request.height || model.size?.[1] || 1) * scale;
  const many = (step?.pictures || request.count || 1) > 1;
  const left = step?.seconds_left;
  return html`
    <div class="picture-area"><${Frame} width=${width} height=${height} class="live">
      ${preview ? html`<img src=${preview.image} alt=${t("preview")} />` : html`<div class="shimmer"></div>`}
    <//></div>
    <div class="caption"><div class="caption-text" aria-live="off">
      <span>${step ? t("step", { index: step.index, total: step.total }) : t("preparing")}</span>
      ${many && html`<span>${t("picture.of", { n: (step?.picture ?? 0) + 1, count: step?.pictures || request.count })}</span>`}
      ${left > 0 && html`<span>${t("left", { time: duration(left) })}</span>`}
    </div><${Bar} value=${step?.fraction} label=${t("progress")} /></div>`;
}

const VARIATIONS = 6;

function Menu({ picture }) {
  const open = useSignal(false);
  const samplers = (caps.value?.samplers || []).slice(0, VARIATIONS);
  return html`
    <div class="menu" onFocusOut=${(event) => { if (!event.currentTarget.contains(event.relatedTarget)) open.value = false; }}>
      <${IconButton} icon="wand-sparkles" label=${t("vary")} aria-expanded=${String(open.value)} onClick=${() => { open.value = !open.value; }} />
      ${open.value && html`<div class="menu-list" role="group" aria-label=${t("vary")}>
        <button type="button" onClick=${() => vary(picture, { seed: null })}>${t("vary.seed")}</button>
        <button type="button" onClick=${() => vary(picture, { variation: { strength: 0.2 } })}>${t("vary.little")}</button>
        <p>${t("vary.sampler")}</p>
        ${samplers.map((each) => html`<button key=${each.id} type="button" onClick=${() => vary(picture, { sampler: each.id })}>${each.label}</button>`)}
      </div>`}
    </div>`;
}

function Actions({ picture }) {
  return html`<div class="actions" role="toolbar" aria-label=${t("picture.actions")}>
    <${IconButton} icon="star" label=${t("star")} keys="S" pressed=${picture.starred} class="starring" onClick=${() => star(picture)} />
    <${IconButton} icon="rotate-cw" label=${t("use.again")} keys="U" onClick=${() => useAgain(picture)} />
    <${IconButton} icon="brush" label=${t("edit")} keys="E" onClick=${() => editPicture(picture, { mask: true })} />
    <${Menu} picture=${picture} />
    <${IconButton} icon="maximize" label=${t("enlarge")} onClick=${() => enlarge(picture)} />
    ${Math.abs(picture.width - 2 * picture.height) <= 2 && html`<${IconButton} icon="globe" label=${t("viewer.look")} onClick=${() => { location.hash = `#/viewer/${picture.id}`; }} />`}
    <${IconButton} icon="columns-2" label=${t("compare")} keys="C" onClick=${() => { dialog.value = { name: "compare", a: picture.id }; }} />
    <${IconButton} icon="info" label=${t("details")} keys="I" onClick=${() => { dialog.value = { name: "details", id: picture.id }; }} />
    <${IconButton} icon="download" label=${t("download")} onClick=${() => download(picture.url, `${picture.id}.${picture.format || "png"}`)} />
    <${IconButton} icon="trash-2" label=${t("delete")} keys="Del" onClick=${() => discard(picture)} />
  </div>`;
}

export function Shown({ picture }) {
  const notes = useSignal([]);
  useEffect(() => {
    let wanted = true;
    notes.value = [];
    if (!picture.fresh) detailsOf(picture.id).then((details) => { if (wanted) notes.value = details.notes || []; }, () => {});
    return () => { wanted = false; };
  }, [picture.id, picture.fresh]);
  return html`
    <div class="picture-area"><${Frame} width=${picture.width} height=${picture.height} class="still">
      <img key=${picture.id} src=${picture.url} alt=${picture.prompt || t("picture")} draggable="true" /><//></div>
    <div class="caption">
      <div class="caption-text"><span class="said" title=${picture.prompt}>${picture.prompt}</span>
        <span class="numbers">${picture.width} × ${picture.height}</span><span class="numbers">${t("seed.is", { seed: picture.seed_text ?? picture.seed })}</span></div>
      <${Actions} picture=${picture} />
      ${notes.value.map((note) => html`<p key=${note} class="note"><${Icon} name="info" size=${14} /> ${note}</p>`)}
    </div>`;
}

export function Strip() {
  const items = recent.items.value, job = running.value[0], picture = chosen();
  const following = job && ui("follow").value !== false;
  if (!items.length && !job) return null;
  return html`
    <div class="strip" role="group" aria-label=${t("latest")}>
      ${job && html`<button type="button" class="thumb live" aria-pressed=${String(Boolean(following))} aria-label=${t("picture.running")} onClick=${() => setUi("follow", true)}>
        ${previews.value[job.id] ? html`<img src=${previews.value[job.id].image} alt="" />` : html`<span class="shimmer"></span>`}</button>`}
      ${items.map((each) => html`
        <button type="button" key=${each.id} class="thumb" aria-pressed=${String(!following && each.id === picture?.id)} aria-label=${each.prompt || t("picture")}
          onClick=${() => { setUi("picture", each.id); setUi("follow", false); }}>
          <img src=${each.thumbnail} alt="" loading="lazy" decoding="async" />${each.starred && html`<${Icon} name="star" size=${12} />`}</button>`)}
    </div>`;
}

export function Stage() {
  const job = running.value[0], picture = chosen();
  const live = job && ui("follow").value !== false;
  return html`
    <section class="stage" aria-label=${t("picture")}>${(live || picture) && html`<h1 class="unseen">${t("view.paint")}</h1>`}
      ${live ? html`<${Live} job=${job} />` : picture ? html`<${Shown} picture=${picture} />` : recent.ready.value && html`<${Welcome} />`}
    </section>`;
}
