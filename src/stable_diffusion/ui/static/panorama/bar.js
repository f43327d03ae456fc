/** The viewer's buttons and its style, which needs neither a style sheet's address nor inline styles. */

const ICONS = {
  "zoom-in": "M12 5v14M5 12h14",
  "zoom-out": "M5 12h14",
  ahead: "M12 3v4M12 17v4M3 12h4M17 12h4M12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6",
  motion: "M8 3h8v18H8zM4 8l-2 4 2 4M20 8l2 4-2 4",
  pair: "M3 5h8v14H3zM13 5h8v14h-8z",
  fullscreen: "M8 3H3v5M16 3h5v5M8 21H3v-5M16 21h5v-5",
  vr: "M3 7h18v10h-6l-2-3h-2l-2 3H3zM7 11h.01M17 11h.01",
};

const STYLE = `
.pv { position: relative; width: 100%; height: 100%; min-height: 12rem; overflow: hidden; background: #000; color: #fff; }
.pv canvas, .pv > img { display: block; width: 100%; height: 100%; touch-action: none; cursor: grab; }
.pv canvas:active { cursor: grabbing; }
.pv > img { object-fit: contain; cursor: auto; }
.pv canvas:focus-visible { outline: 3px solid #8ab4ff; outline-offset: -3px; }
.pv-bar { position: absolute; inset: auto 0 0 0; display: flex; flex-wrap: wrap; justify-content: center; gap: .25rem; padding: .5rem;
  padding-bottom: max(.5rem, env(safe-area-inset-bottom)); pointer-events: none; }
.pv-bar button { pointer-events: auto; width: 2.75rem; height: 2.75rem; padding: .6rem; border: 0; border-radius: .6rem;
  background: rgb(20 20 24 / .72); color: #fff; cursor: pointer; }
.pv-bar button:hover { background: rgb(60 60 70 / .85); }
.pv-bar button[aria-pressed="true"] { background: #1f5fd6; }
.pv-bar button:focus-visible { outline: 3px solid #8ab4ff; outline-offset: 1px; }
.pv-bar button[hidden] { display: none; }
.pv-bar svg { display: block; width: 100%; height: 100%; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round;
  stroke-linejoin: round; }
.pv-note { position: absolute; inset: .5rem .5rem auto .5rem; margin: 0 auto; width: fit-content; max-width: 40rem; padding: .4rem .8rem;
  border-radius: .6rem; background: rgb(20 20 24 / .85); color: #fff; font: 1rem/1.4 system-ui, sans-serif; }
.pv-note:empty { display: none; }
`;

let sheet = null;

/** Puts the viewer's style into the page, once. */
export function addViewerStyle() {
  if (sheet) return;
  sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}

/** @returns {HTMLElement} a toolbar whose buttons have the names of `actions` as their `data-action` */
export function viewerBar(texts, actions) {
  const bar = document.createElement("div");
  bar.className = "pv-bar";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", texts.controls);
  for (const [name, action] of Object.entries(actions)) bar.append(button(name, texts[name], action));
  return bar;
}

/** Shows whether a button is on. */
export function press(bar, name, on) {
  bar.querySelector(`[data-action="${name}"]`).setAttribute("aria-pressed", String(on));
}

function button(name, text, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.dataset.action = name;
  made.title = text;
  made.setAttribute("aria-label", text);
  const space = "http://www.w3.org/2000/svg";
  const icon = document.createElementNS(space, "svg");
  icon.setAttribute("viewBox", "0 0 24 24");
  icon.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name]);
  icon.append(path);
  made.append(icon);
  made.addEventListener("click", action);
  return made;
}
