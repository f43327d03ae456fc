// The widget in the browser: draws what Python's traits hold, and sends what is typed and clicked.

const TEXTS = {
  en: { prompt: "Prompt", placeholder: "What the picture shows", generate: "Generate", stop: "Stop", loading: "Loading the model", working: "Working", stopping: "Stopping",
    settings: "Settings", seed: "Seed", lock: "Keep this seed", random: "random", model: "Model", picture: "Picture", history: "History", use: "Use again", forget: "Remove", given: "as the model has it", save: "Download" },
  zh: { prompt: "提示词", placeholder: "画面内容", generate: "生成", stop: "停止", loading: "正在加载模型", working: "正在生成", stopping: "正在停止",
    settings: "设置", seed: "种子", lock: "锁定种子", random: "随机", model: "模型", picture: "图片", history: "历史", use: "再次使用", forget: "移除", given: "按模型默认", save: "下载" },
};
const texts = () => ((document.documentElement.lang || navigator.language || "en").toLowerCase().startsWith("zh") ? TEXTS.zh : TEXTS.en);

function node(tag, facts = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((each) => each !== null && each !== undefined));
  return made;
}

const bytesOf = (value) => (value && value.byteLength ? new Uint8Array(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength) : null);

/** Shows bytes as a picture; the address before it is given back. */
function picture(image, value, type) {
  const bytes = bytesOf(value);
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  if (bytes) image.src = URL.createObjectURL(new Blob([bytes], { type }));
  else image.removeAttribute("src");
  image.hidden = !bytes;
}

let widgets = 0;

function render({ model, el }) {
  const t = texts(), id = `sd-widget-${widgets++}`;
  const save = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const ask = (type, more = {}) => model.send({ type, ...more });
  const prompt = node("textarea", { id: `${id}-prompt`, rows: 2, placeholder: t.placeholder, spellcheck: false, oninput: () => save("prompt", prompt.value) });
  prompt.addEventListener("keydown", (event) => {
    event.stopPropagation(); // a notebook's own shortcuts would act on the cell
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask("generate");
    if (event.key === "Escape") ask("cancel");
  });
  const go = node("button", { type: "button", className: "sd-go", onclick: () => ask("generate") }, t.generate);
  const stop = node("button", { type: "button", onclick: () => ask("cancel") }, t.stop);
  const seed = node("input", { id: `${id}-seed`, type: "text", inputMode: "numeric", placeholder: t.random, onchange: () => save("seed", seed.value.trim()) });
  const lock = node("input", { type: "checkbox", onchange: () => save("seed_locked", lock.checked) });
  const bar = node("progress", { max: 1, "aria-label": t.working });
  const status = node("p", { className: "sd-status", role: "status" });
  const fault = node("p", { className: "sd-fault", role: "alert" });
  const notes = node("ul", { className: "sd-notes" });
  const preview = node("img", { alt: t.working, className: "sd-preview" });
  const shown = node("img", { alt: t.picture });
  const history = node("div", { className: "sd-history", role: "group", "aria-label": t.history });
  const fields = settings({ model, save, t, id });
  el.replaceChildren(node("div", { className: "sd-widget" },
    node("div", { className: "sd-side" },
      node("label", { htmlFor: prompt.id }, t.prompt), prompt,
      node("div", { className: "sd-row" }, go, stop, node("label", { htmlFor: seed.id }, t.seed), seed, node("label", { className: "sd-check" }, lock, t.lock)),
      bar, status, fault, notes, fields.element),
    node("div", { className: "sd-main" }, node("div", { className: "sd-stage" }, shown, preview), history)));

  const draw = {
    prompt: () => { if (prompt.value !== model.get("prompt")) prompt.value = model.get("prompt"); },
    seed: () => { seed.value = model.get("seed"); },
    seed_locked: () => { lock.checked = model.get("seed_locked"); },
    settings: () => fields.draw(),
    state: () => {
      const state = model.get("state"), busy = state !== "ready";
      go.disabled = busy;
      stop.disabled = !busy || state === "stopping";
      bar.hidden = !busy;
      status.textContent = busy ? t[state] : `${t.model}: ${model.get("model_name")}`;
    },
    fraction: () => { bar.value = model.get("fraction"); },
    fault: () => { fault.textContent = model.get("fault"); fault.hidden = !model.get("fault"); },
    notes: () => notes.replaceChildren(...model.get("notes").map((each) => node("li", {}, each))),
    preview: () => picture(preview, model.get("preview"), "image/jpeg"),
    picture: () => picture(shown, model.get("picture"), "image/png"),
    history: () => drawHistory(history, model.get("history"), t, ask),
  };
  for (const [name, each] of Object.entries(draw)) {
    each();
    model.on(`change:${name}`, each);
  }
  return () => {
    for (const [name, each] of Object.entries(draw)) model.off(`change:${name}`, each);
    for (const image of el.querySelectorAll("img")) if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  };
}

function drawHistory(box, entries, t, ask) {
  for (const image of box.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  box.replaceChildren(...[...entries].reverse().map((each) => {
    const image = node("img", { alt: each.prompt || t.picture });
    picture(image, each.thumbnail, "image/webp");
    const title = `${t.use}: ${each.prompt} · ${t.seed} ${each.seed}`;
    return node("span", {},
      node("button", { type: "button", title, "aria-label": title, onclick: () => ask("use", { id: each.id }) }, image),
      node("button", { type: "button", className: "sd-forget", title: t.forget, "aria-label": `${t.forget}: ${each.seed}`, onclick: () => ask("forget", { id: each.id }) }, "×"));
  }));
}

/** The form: the most common settings at once, the others folded away under their headings. */
function settings({ model, save, t, id }) {
  const inputs = new Map(), groups = new Map();
  const change = (path, value) => {
    const next = { ...model.get("settings") };
    if (value === "" || value === null || value === undefined) delete next[path];
    else next[path] = value;
    save("settings", next);
  };
  for (const each of model.get("form")) {
    const input = field(each, `${id}-${each.path}`, t, change);
    inputs.set(each.path, { input, each });
    const label = node("label", { htmlFor: input.id, title: each.help }, each.label);
    const group = each.section || "";
    if (!groups.has(group)) groups.set(group, node("div", { className: "sd-fields" }));
    groups.get(group).append(label, input);
  }
  const parts = [...groups].map(([name, box]) => (name ? node("details", {}, node("summary", {}, name), box) : box));
  return {
    element: node("details", { className: "sd-settings" }, node("summary", {}, t.settings), ...parts),
    draw: () => {
      const now = model.get("settings");
      for (const [path, { input, each }] of inputs) {
        const value = now[path];
        if (input.type === "checkbox") input.checked = value ?? Boolean(each.default);
        else input.value = value ?? "";
      }
    },
  };
}

function field(each, id, t, change) {
  const facts = { id, title: each.help };
  if (each.type === "boolean") return node("input", { ...facts, type: "checkbox", onchange: (event) => change(each.path, event.target.checked) });
  if (each.choices.length || each.offers.length > 6) {
    const options = [...each.choices, ...(each.choices.length ? [] : each.offers)].map((name) => node("option", { value: name }, String(name)));
    return node("select", { ...facts, onchange: (event) => change(each.path, event.target.value) }, node("option", { value: "" }, each.usual || t.given), ...options);
  }
  const placeholder = each.usual || (each.default === null || each.default === "" ? t.given : String(each.default));
  if (each.type === "integer" || each.type === "number") {
    const step = each.type === "integer" ? 1 : "any";
    return node("input", { ...facts, type: "number", min: each.minimum, max: each.maximum, step, placeholder, onchange: (event) => change(each.path, event.target.value === "" ? "" : Number(event.target.value)) });
  }
  return node("input", { ...facts, type: "text", placeholder, onchange: (event) => change(each.path, event.target.value) });
}

export default { render };
