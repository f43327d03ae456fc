// The small parts: icons, buttons, dialogs, messages.
import { html, useEffect, useRef } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { toasts, dropToast, dialog } from "../core/state.js";

export const Icon = ({ name, size = 18 }) => html`
  <svg class="icon" width=${size} height=${size} aria-hidden="true"><use href=${`static/vendor/icons.svg#${name}`}></use></svg>`;

/** A button that shows an icon alone; its label is read out and shown as a tip. */
export const IconButton = ({ icon, label, onClick, pressed, disabled, keys, size, class: extra = "", ...rest }) => html`
  <button type="button" class=${`tool ${extra}`} aria-label=${label} title=${keys ? `${label} (${keys})` : label} onClick=${onClick}
    aria-pressed=${pressed === undefined ? undefined : String(Boolean(pressed))} disabled=${disabled} ...${rest}>
    <${Icon} name=${icon} size=${size || 18} />
  </button>`;

export const Button = ({ icon, children, kind = "", ...rest }) => html`
  <button type="button" class=${`button ${kind}`} ...${rest}>${icon && html`<${Icon} name=${icon} size=${16} />`}${children}</button>`;

/** A dialog over the page; Esc and the cross close it, and the focus stays inside. */
export function Dialog({ title, onClose, children, wide = false, class: extra = "" }) {
  const ref = useRef();
  const close = onClose || (() => { dialog.value = null; });
  useEffect(() => {
    const box = ref.current, before = document.activeElement;
    if (!box.open) box.showModal();
    return () => { if (box.open) box.close(); before?.focus?.({ preventScroll: true }); };
  }, []);
  return html`
    <dialog ref=${ref} class=${`dialog ${wide ? "wide" : ""} ${extra}`} aria-label=${title}
      onCancel=${(event) => { event.preventDefault(); close(); }}
      onPointerDown=${(event) => { if (event.target === ref.current) close(); }}>
      <div class="dialog-body">
        <header><h2>${title}</h2><${IconButton} icon="x" label=${t("close")} onClick=${close} /></header>
        ${children}
      </div>
    </dialog>`;
}

export const Toasts = () => html`
  <div class="toasts" role="status" aria-live="polite">
    ${toasts.value.map((each) => html`
      <div key=${each.id} class=${`toast ${each.kind}`}>
        <span>${each.text}</span>
        ${each.undo && html`<button type="button" onClick=${() => { dropToast(each.id); each.undo(); }}>${each.label || t("undo")}</button>`}
        <${IconButton} icon="x" size=${14} label=${t("close")} onClick=${() => dropToast(each.id)} />
      </div>`)}
  </div>`;

/** A choice among few values, as joined buttons. */
export const Segments = ({ label, value, options, onChange }) => html`
  <div class="segments" role="group" aria-label=${label}>
    ${options.map(([name, text]) => html`
      <button type="button" key=${name} aria-pressed=${String(value === name)} onClick=${() => onChange(name)}>${text}</button>`)}
  </div>`;

export const Switch = ({ label, checked, onChange, id, describedby }) => html`
  <label class="switch"><input type="checkbox" role="switch" id=${id} checked=${checked} aria-describedby=${describedby}
    onChange=${(event) => onChange(event.target.checked)} /><span class="track" aria-hidden="true"></span><span>${label}</span></label>`;

export const Bar = ({ value, label }) => html`<progress class="line" max="1" value=${value ?? 0} aria-label=${label}></progress>`;

export function download(url, name) {
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}
