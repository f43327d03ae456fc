// Values of an X/Y grid's axes, written as people write them in A1111: 1, 2, 3 · 1-5 · 10-30 (+5) · 1-10 [4].

const RANGE = /^(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)(?:\s*\(([+-]?\d+(?:\.\d+)?)\)|\s*\[(\d+)\])?$/;
const MOST = 64;
const round = (value) => Math.round(value * 1e6) / 1e6;

function range([, from, to, step, count]) {
  const a = Number(from), b = Number(to);
  if (count) return Array.from({ length: Math.min(MOST, Number(count)) }, (_, i) => round(Number(count) === 1 ? a : a + ((b - a) * i) / (Number(count) - 1)));
  const by = Math.abs(Number(step)) || 1, way = a <= b ? 1 : -1;
  return Array.from({ length: Math.min(MOST, Math.floor(round(Math.abs(b - a) / by)) + 1) }, (_, i) => round(a + way * by * i));
}

/** The parts of a list, split at commas outside of double quotes. */
export function parts(text) {
  return [...text.matchAll(/\s*("(?:[^"]|"")*"|[^,]*)\s*(?:,|$)/g)].map((m) => m[1].trim().replace(/^"(.*)"$/s, "$1").replace(/""/g, '"')).filter(Boolean);
}

/** The values that `text` names, numbers where `numeric`; null where one is no number. */
export function axisValues(text, numeric) {
  if (!numeric) return parts(text).slice(0, MOST);
  const found = [];
  for (const part of parts(text)) {
    const m = RANGE.exec(part);
    if (m) found.push(...range(m));
    else if (Number.isFinite(Number(part))) found.push(Number(part));
    else return null;
  }
  return found.slice(0, MOST);
}

/** The request with one axis set: a path, or the words of a prompt replaced (the first value is what is searched for). */
export function withAxis(request, path, value, values) {
  const copy = structuredClone(request);
  if (path === "words") {
    for (const name of ["prompt", "negative_prompt"]) if (copy[name]) copy[name] = copy[name].split(values[0]).join(value);
    return copy;
  }
  if (path === "lora") {
    copy.loras = (copy.loras || []).map((each, i) => (i === 0 ? { ...each, strength: value } : each));
    return copy;
  }
  const [group, field] = path.split(".");
  if (field) (copy[group] ??= {})[field] = value;
  else copy[path] = path === "seed" ? String(value) : value;
  return copy;
}
