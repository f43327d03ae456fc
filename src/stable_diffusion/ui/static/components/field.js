// A setting of the form, drawn from its schema: number with slider, choice, switch, text. What is not given shows the model's own.
import { html } from "../vendor/preact.js";
import { t, has } from "../core/i18n.js";
import { setting, set, faults } from "../core/state.js";
import { caps, modelOf } from "../core/server.js";
import { Switch, IconButton } from "./basics.js";

/** A node of the schema without the ways of JSON schema to say "or null" and "see there". */
function plain(node, root) {
  let found = node || {};
  for (let depth = 0; depth < 4 && (found.$ref || found.anyOf || found.allOf); depth++) {
    const { $ref, anyOf, allOf, ...rest } = found;
    const inner = $ref ? root.$defs?.[$ref.split("/").pop()] : (anyOf || allOf).find((each) => each.type !== "null");
    found = { ...inner, ...rest };
  }
  return found;
}

const known = { root: null, nodes: new Map() };
/** The schema of "steps" or "hires.scale", as the server gives it. */
export function schemaOf(path) {
  const root = caps.value?.settings || {};
  if (known.root !== root) Object.assign(known, { root, nodes: new Map() });
  if (!known.nodes.has(path)) {
    const [group, field] = path.split("."), top = plain(root.properties?.[group], root);
    known.nodes.set(path, field ? plain(top.properties?.[field], root) : top);
  }
  return known.nodes.get(path);
}

export const nameOf = (path) => (has(`field.${path}`) ? t(`field.${path}`) : schemaOf(path).title || path);
const helpOf = (path) => (has(`help.${path}`) ? t(`help.${path}`) : "");

/** What holds where nothing is given, as far as it is known. */
export function usual(path) {
  const model = modelOf(setting("model").value);
  const own = { model: caps.value?.default_model, count: 1, width: model.size?.[0], height: model.size?.[1], steps: model.steps, guidance: model.guidance, sampler: model.sampler,
    schedule: model.schedule, strength: 0.75, "hires.strength": 0.7, "hires.scale": 2, "inpaint.padding": 32, "refiner.switch": 0.8, image_guidance: 1.5 };
  return own[path] ?? schemaOf(path).default;
}

const LIMITS = { steps: "steps", count: "count", width: "side", height: "side" };
/** Where the slider ends: what people use, within what is allowed. */
const SLIDER = { steps: [1, 60], guidance: [1, 20], count: [1, 16], clip_skip: [1, 12], "hires.scale": [1, 4], "hires.steps": [1, 60],
  "inpaint.blur": [0, 32], "inpaint.padding": [0, 128], "noise.eta": [0, 1], "noise.s_churn": [0, 20], "noise.s_noise": [0, 2], "noise.shift": [0.1, 12] };

export const Fault = ({ path }) => {
  const text = faults.value[path];
  return text ? html`<p class="fault" id=${`fault-${path}`} role="alert">${text}</p>` : null;
};

const Label = ({ path, id, children }) => html`
  <div class="field-head"><label for=${id}>${nameOf(path)}</label>${children}
    ${setting(path).value !== undefined && usual(path) !== setting(path).value && html`
      <${IconButton} icon="undo-2" size=${14} class="reset" label=${t("field.reset", { name: nameOf(path) })} onClick=${() => set(path, undefined)} />`}
  </div>`;

function NumberField({ path, schema }) {
  const id = `f-${path}`, value = setting(path).value, own = usual(path), whole = schema.type === "integer";
  const limits = caps.value?.limits || {};
  const max = Math.min(schema.maximum ?? 1e6, limits[LIMITS[path]] ?? Infinity), min = schema.minimum ?? 0;
  const [low, high] = SLIDER[path] || (max - min <= 20 ? [min, max] : [null, null]);
  const step = whole ? 1 : (high ?? max) - (low ?? min) <= 2 ? 0.05 : 0.1;
  const change = (event) => {
    const text = event.target.value;
    set(path, text === "" ? undefined : Number(text));
    if (faults.value[path]) faults.value = { ...faults.value, [path]: undefined };
  };
  return html`
    <div class="field">
      <${Label} path=${path} id=${id}>
        <input id=${id} type="number" class="number" min=${min} max=${max} step=${whole ? 1 : "any"} value=${value ?? ""} placeholder=${own ?? t("auto")}
          aria-describedby=${`h-${path}`} aria-invalid=${faults.value[path] ? "true" : undefined} onInput=${change} />
      <//>
      ${high !== null && html`<input type="range" min=${low} max=${Math.min(high, max)} step=${step} value=${value ?? own ?? low}
        aria-label=${nameOf(path)} onInput=${change} />`}
      <${Help} path=${path} /><${Fault} path=${path} />
    </div>`;
}

const Help = ({ path }) => (helpOf(path) ? html`<p class="help" id=${`h-${path}`}>${helpOf(path)}</p>` : null);

export function ChoiceField({ path, options }) {
  const id = `f-${path}`, own = usual(path);
  const shown = options.find(([name]) => name === own)?.[1] ?? own;
  return html`
    <div class="field">
      <${Label} path=${path} id=${id} />
      <select id=${id} value=${setting(path).value ?? ""} aria-describedby=${`h-${path}`} onChange=${(event) => set(path, event.target.value || undefined)}>
        <option value="">${shown ? t("usual", { value: shown }) : t("auto")}</option>
        ${options.map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
      </select>
      <${Help} path=${path} /><${Fault} path=${path} />
    </div>`;
}

function FlagField({ path, schema }) {
  const value = setting(path).value ?? schema.default ?? false;
  return html`
    <div class="field">
      <${Switch} id=${`f-${path}`} label=${nameOf(path)} checked=${value} describedby=${`h-${path}`}
        onChange=${(on) => set(path, on === (schema.default ?? false) ? undefined : on)} />
      <${Help} path=${path} /><${Fault} path=${path} />
    </div>`;
}

function PairField({ path, schema }) {
  const id = `f-${path}`, count = schema.minItems || 2, kind = schema.items?.type === "integer" ? parseInt : parseFloat;
  const value = setting(path).value;
  const change = (event) => {
    const numbers = event.target.value.split(/[,x× ]+/).map(kind).filter(Number.isFinite);
    set(path, numbers.length === count ? numbers : undefined);
  };
  return html`
    <div class="field"><${Label} path=${path} id=${id}>
      <input id=${id} class="number pair" inputmode="numeric" value=${value ? value.join(", ") : ""} placeholder=${t("auto")} aria-describedby=${`h-${path}`}
        onChange=${change} /><//><${Help} path=${path} /><${Fault} path=${path} /></div>`;
}

function TextField({ path }) {
  const id = `f-${path}`;
  return html`
    <div class="field"><${Label} path=${path} id=${id} />
      <input id=${id} type="text" value=${setting(path).value ?? ""} placeholder=${t("auto")} aria-describedby=${`h-${path}`}
        onInput=${(event) => set(path, event.target.value || undefined)} /><${Help} path=${path} /><${Fault} path=${path} /></div>`;
}

/** The field of a setting, whatever its kind. */
export function Field({ path }) {
  const schema = schemaOf(path);
  if (path === "sampler") return html`<${ChoiceField} path=${path} options=${(caps.value?.samplers || []).map((each) => [each.id, each.label])} />`;
  if (path === "schedule") return html`<${ChoiceField} path=${path} options=${(caps.value?.schedules || []).map((each) => [each.id, each.label])} />`;
  if (path === "hires.upscaler") return html`<${ChoiceField} path=${path} options=${(caps.value?.upscalers || []).map((each) => [each.name, each.name])} />`;
  if (path === "refiner.model" || path === "model")
    return html`<${ChoiceField} path=${path} options=${(caps.value?.models || []).map((each) => [each.name, each.title || each.name])} />`;
  if (schema.enum) return html`<${ChoiceField} path=${path} options=${schema.enum.map((each) => [each, has(`value.${each}`) ? t(`value.${each}`) : each])} />`;
  if (schema.type === "boolean") return html`<${FlagField} path=${path} schema=${schema} />`;
  if (schema.type === "array") return html`<${PairField} path=${path} schema=${schema} />`;
  if (schema.type === "string") return html`<${TextField} path=${path} />`;
  return html`<${NumberField} path=${path} schema=${schema} />`;
}
