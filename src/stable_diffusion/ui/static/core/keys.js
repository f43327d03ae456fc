// Keyboard: views and the app give actions for keys; the help dialog lists them.
const layers = [];

/** Adds {combo: {text, run, fields}} until the function that it returns is called; later layers win. */
export function bindKeys(map) {
  layers.push(map);
  return () => layers.splice(layers.indexOf(map), 1);
}

export function combo(event) {
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Ctrl");
  if (event.altKey) parts.push("Alt");
  if (event.shiftKey && event.key.length > 1) parts.push("Shift");
  parts.push(event.key.length === 1 ? event.key.toUpperCase() : event.key);
  return parts.join("+");
}

const inField = (target) => target.closest?.("input:not([type=checkbox]):not([type=range]), textarea, select, [contenteditable]");

export function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    const name = combo(event);
    const open = document.querySelector("dialog[open]");
    for (const map of [...layers].reverse()) {
      const each = map[name];
      if (!each || (open && !each.dialogs) || (inField(event.target) && !each.fields)) continue;
      if (event.target.closest?.("[role=slider], [type=range]") && name.startsWith("Arrow")) continue;
      if (each.run(event) !== false) event.preventDefault();
      return;
    }
  });
}

export const listKeys = () => {
  const seen = new Map();
  for (const map of layers) for (const [name, each] of Object.entries(map)) if (each.text) seen.set(name, each.text);
  return [...seen];
};
