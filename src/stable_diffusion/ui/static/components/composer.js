// The one box and the one button, with what belongs to typing: weights, completion, the token counter.
import { html, useEffect, useRef, useSignal, signal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { api, pictureUrl } from "../core/api.js";
import { setting, set, ui, setUi, faults, dialog } from "../core/state.js";
import { caps, running, queued, progress, modelOf } from "../core/server.js";
import { weigh, unfinished } from "../core/prompt.js";
import { generate, stop, skipPicture, sending, uploadAsStart } from "../core/actions.js";
import { Icon, IconButton } from "./basics.js";

/** Puts `text` over [from, to) so that the browser's own undo knows it. */
function put(box, from, to, text) {
  box.focus();
  box.setSelectionRange(from, to);
  if (!document.execCommand("insertText", false, text)) {
    box.setRangeText(text, from, to, "end");
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

/** Names that complete what is being typed: LoRAs and embeddings. */
function completions(word) {
  const plain = word.replace(/^<(lora|lyco):/, "").toLowerCase();
  if (!plain || !caps.peek()) return [];
  const loras = (caps.peek().loras || []).map((each) => ({ name: each.name, text: `<lora:${each.name}:1>`, kind: "LoRA" }));
  const words = word.startsWith("<") ? [] : (caps.peek().embeddings || []).map((each) => ({ name: each.name, text: each.name, kind: "embedding" }));
  return [...loras, ...words].filter((each) => each.name.toLowerCase().includes(plain) && each.text !== word).slice(0, 8);
}

/** A text box for prompts: `path` is its setting. */
export function PromptBox({ path, label, placeholder, rows = 2 }) {
  const box = useRef(), offers = useSignal([]), at = useSignal(0);
  const id = `f-${path}`;
  const typed = (event) => {
    set(path, event.target.value);
    const word = unfinished(event.target.value, event.target.selectionEnd);
    offers.value = word ? completions(word.word) : [];
    at.value = 0;
  };
  const accept = (offer) => {
    const word = unfinished(box.current.value, box.current.selectionEnd);
    if (word) put(box.current, word.from, box.current.selectionEnd, offer.text);
    offers.value = [];
  };
  const keys = (event) => {
    if ((event.ctrlKey || event.metaKey) && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      const { value, selectionStart, selectionEnd } = box.current;
      const made = weigh(value, selectionStart, selectionEnd, (event.key === "ArrowUp" ? 1 : -1) * (event.shiftKey ? 0.05 : 0.1));
      event.preventDefault();
      if (!made) return;
      put(box.current, made.from, made.to, made.text);
      box.current.setSelectionRange(made.start, made.end);
      return;
    }
    if (!offers.value.length || event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      at.value = (at.value + (event.key === "ArrowDown" ? 1 : -1) + offers.value.length) % offers.value.length;
    } else if (event.key === "Tab" || (event.key === "Enter" && !event.ctrlKey && !event.metaKey)) accept(offers.value[at.value]);
    else if (event.key === "Escape") offers.value = [];
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const open = offers.value.length > 0;
  return html`
    <div class="prompt-box">
      <textarea ref=${box} id=${id} rows=${rows} aria-label=${label} placeholder=${placeholder} value=${setting(path).value || ""} spellcheck="false"
        aria-autocomplete="list" aria-controls=${open ? `${id}-offers` : undefined} aria-activedescendant=${open ? `${id}-${at.value}` : undefined}
        onInput=${typed} onKeyDown=${keys} onBlur=${() => setTimeout(() => { offers.value = []; }, 150)}></textarea>
      ${open && html`<ul class="offers" id=${`${id}-offers`} role="listbox" aria-label=${t("completions")}>
        ${offers.value.map((each, i) => html`<li key=${each.text} id=${`${id}-${i}`} role="option" aria-selected=${String(i === at.value)}
          onPointerDown=${(event) => { event.preventDefault(); accept(each); }}><b>${each.name}</b><small>${each.kind}</small></li>`)}
      </ul>`}
    </div>`;
}

/** Counts of the text encoder, by prompt; asked for when typing rests. */
export const tokens = signal(null);

function useTokens() {
  const prompt = setting("prompt").value, negative = setting("negative_prompt").value, model = setting("model").value;
  useEffect(() => {
    const stopper = new AbortController();
    const timer = setTimeout(async () => {
      try {
        tokens.value = await api("v1/tokens", { json: { prompt: prompt || "", negative_prompt: negative || "", ...(model ? { model } : {}) }, signal: stopper.signal });
      } catch (error) {
        if (error.status >= 400) tokens.value = { fault: error.message };  // too long: the server says by how much
      }
    }, 350);
    return () => { clearTimeout(timer); stopper.abort(); };
  }, [prompt, negative, model]);
}

export function TokenCounter({ which = "prompt" }) {
  useTokens();
  const count = tokens.value?.[which];
  if (!count) return null;
  const room = Math.max(1, count.windows || 1) * (count.per_window || 75);
  return html`<span class=${`tokens ${count.cut ? "over" : ""}`} title=${t("tokens.tip", { windows: count.windows })}>${t("tokens", { n: count.tokens, room })}</span>`;
}

const Cut = () => {
  const cut = tokens.value?.prompt?.cut, fault = tokens.value?.fault;
  if (fault) return html`<p class="fault" role="status">${fault}</p>`;
  return cut ? html`<p class="fault" role="status">${t("tokens.cut")} <mark>${cut}</mark></p>` : null;
};

function StartChip() {
  const pic = setting("image").value;
  if (!pic) return null;
  return html`<span class="chip start"><img src=${pictureUrl(pic, 256)} alt=${t("start.picture")} />
    <button type="button" onClick=${() => { dialog.value = { name: "mask" }; }}>${setting("mask").value ? t("mask.edit") : t("mask.paint")}</button>
    <${IconButton} icon="x" size=${14} label=${t("start.remove")} onClick=${() => { set("image", undefined); set("mask", undefined); }} /></span>`;
}

function Status() {
  const job = running.value[0], step = job && progress.value[job.id];
  if (!job) return queued.value.length > 0 ? html`<a class="chip" href="#/queue">${t("waiting", { n: queued.value.length })}</a>` : null;
  const shown = Math.round((step?.fraction ?? 0) * 100);
  return html`<span class="chip busy" role="status">${t("working", { percent: shown })}${queued.value.length > 0 && ` · ${t("waiting", { n: queued.value.length })}`}</span>`;
}

/** The start button: sends the request; while something runs, stop and skip stand next to it. */
export function StartButtons({ id }) {
  const job = running.value[0];
  return html`
    ${job && (job.request?.count || 1) > 1 && html`<${IconButton} icon="skip-forward" label=${t("skip")} onClick=${skipPicture} />`}
    ${job && html`<button type="button" class="button stop" onClick=${stop}><${Icon} name="circle-stop" size=${16} /><span>${t("stop")}</span></button>`}
    <button type="button" class="button primary" id=${id} disabled=${sending.value} title="Ctrl+Enter" onClick=${() => generate()}>
      <${Icon} name="sparkles" size=${17} /><span>${job ? t("generate.queue") : t("generate")}</span></button>`;
}

export function Composer() {
  const pick = useRef(), model = modelOf(setting("model").value);
  const size = `${setting("width").value ?? model.size?.[0] ?? ""} × ${setting("height").value ?? model.size?.[1] ?? ""}`;
  const fault = faults.value[""];
  return html`
    <section class="composer" aria-label=${t("prompt")}>
      ${fault && html`<p class="fault big" role="alert">${fault} <${IconButton} icon="x" size=${14} label=${t("close")} onClick=${() => { faults.value = {}; }} /></p>`}
      <${PromptBox} path="prompt" label=${t("prompt")} placeholder=${t("prompt.placeholder")} />
      <${Cut} />
      <div class="composer-row">
        <input ref=${pick} type="file" accept="image/png,image/jpeg,image/webp" hidden onChange=${(event) => { if (event.target.files[0]) uploadAsStart(event.target.files[0]); event.target.value = ""; }} />
        <${IconButton} icon="image" label=${t("start.add")} onClick=${() => pick.current.click()} />
        <${IconButton} icon="layers" label=${t("loras")} onClick=${() => { dialog.value = { name: "loras" }; }} />
        <button type="button" class="chip-button" id="settings" aria-expanded=${String(Boolean(ui("panel").value))} aria-controls="panel"
          onClick=${() => setUi("panel", (open) => !open)}><${Icon} name="settings-2" size=${16} /><span>${t("settings")}</span><small>${size}${(setting("count").value || 1) > 1 ? ` · ${setting("count").value}×` : ""}</small></button>
        <${StartChip} />
        <span class="grow"></span>
        <${TokenCounter} /><${Status} />
        <div class="go"><${StartButtons} id="generate" /></div>
      </div>
    </section>`;
}
