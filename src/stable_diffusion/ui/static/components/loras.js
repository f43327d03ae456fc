// LoRAs: the list of the chosen ones with their strengths, and the picker with previews and trigger words.
import { html, useSignal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { setting, set, dialog } from "../core/state.js";
import { caps } from "../core/server.js";
import { Fault } from "./field.js";
import { Dialog, Button, IconButton, Icon } from "./basics.js";

const entry = (name) => (caps.value?.loras || []).find((each) => each.name === name) || { name };

/** Adds words to the end of the prompt, unless they are in it. */
export function addWords(words) {
  const prompt = setting("prompt").peek() || "";
  if (!prompt.toLowerCase().includes(words.toLowerCase())) set("prompt", prompt.trim() ? `${prompt.trim().replace(/,$/, "")}, ${words}` : words);
}

const Triggers = ({ words }) => (words?.length ? html`<span class="chips">${words.slice(0, 12).map((each) => html`
  <button key=${each} type="button" class="chip-button small" title=${t("lora.trigger")} onClick=${() => addWords(each)}>${each}</button>`)}</span>` : null);

export function LoraList() {
  const loras = setting("loras").value || [];
  const change = (index, changes) => set("loras", loras.map((each, i) => (i === index ? { ...each, ...changes } : each)));
  return html`
    ${loras.map((each, i) => html`
      <div class="card" key=${each.name}><div class="card-head"><b>${entry(each.name).title || each.name}</b>
        <input class="number" type="number" step="0.05" value=${each.strength ?? 1} aria-label=${t("lora.strength", { name: each.name })}
          onInput=${(event) => change(i, { strength: Number(event.target.value) })} />
        <${IconButton} icon="x" size=${14} label=${t("lora.remove", { name: each.name })} onClick=${() => set("loras", loras.filter((other) => other !== each))} /></div>
        <input type="range" min="-1" max="2" step="0.05" value=${each.strength ?? 1} aria-label=${t("lora.strength", { name: each.name })}
          onInput=${(event) => change(i, { strength: Number(event.target.value) })} />
        <${Triggers} words=${entry(each.name).triggers} /></div>`)}
    <${Button} icon="plus" onClick=${() => { dialog.value = { name: "loras" }; }}>${t("lora.add")}<//><${Fault} path="loras" />`;
}

export function LoraDialog() {
  const search = useSignal(""), all = caps.value?.loras || [], chosen = setting("loras").value || [];
  const shown = all.filter((each) => `${each.name} ${each.title} ${(each.triggers || []).join(" ")}`.toLowerCase().includes(search.value.toLowerCase()));
  const toggle = (name) => set("loras", chosen.some((each) => each.name === name) ? chosen.filter((each) => each.name !== name) : [...chosen, { name, strength: 1 }]);
  return html`
    <${Dialog} title=${t("loras")} wide>
      ${all.length > 0 && html`<input type="search" class="search" placeholder=${t("lora.search")} aria-label=${t("lora.search")} value=${search.value} onInput=${(event) => { search.value = event.target.value; }} />`}
      ${!all.length && html`<p class="empty">${t("lora.none")}</p>`}
      <div class="lora-grid">${shown.map((each) => {
        const on = chosen.some((other) => other.name === each.name);
        return html`<div class="lora" key=${each.name}><button type="button" class="lora-main" aria-pressed=${String(on)} onClick=${() => toggle(each.name)}>
          ${each.preview ? html`<img src=${each.preview} alt="" loading="lazy" />` : html`<span class="no-preview"><${Icon} name="layers" size=${28} /></span>`}
          <b>${each.title || each.name}</b>${each.family && html`<small>${each.family}</small>`}${on && html`<${Icon} name="check" />`}</button>
          <${Triggers} words=${each.triggers} /></div>`;
      })}</div>
      <footer><${Button} kind="primary" onClick=${() => { dialog.value = null; }}>${t("done")}<//></footer>
    <//>`;
}
