// Weights in prompts, as A1111 writes them: (words:1.1). Pure functions on text and a selection.

const STOPS = /[,\n()[\]{}<>]/;

function wrapped(text, start, end) {
  // The weight that already surrounds the selection, if any.
  const after = /^:(\d+(?:\.\d+)?)\)/.exec(text.slice(end));
  if (text[start - 1] === "(" && after) return { from: start - 1, to: end + after[0].length, weight: Number(after[1]) };
  const inside = /^\((.*):(\d+(?:\.\d+)?)\)$/s.exec(text.slice(start, end));
  if (inside) return { from: start, to: end, weight: Number(inside[2]), words: inside[1] };
  return null;
}

/** The phrase around the caret, up to commas and brackets; a selection is taken as it is. */
export function phrase(text, start, end) {
  if (start !== end) {
    while (start < end && /\s/.test(text[start])) start++;
    while (end > start && /\s/.test(text[end - 1])) end--;
    return [start, end];
  }
  // Within (words:1.2) the caret may stand on the number: take the words.
  const open = text.lastIndexOf("(", start - 1), close = open < 0 ? null : /^\(([^()]*):(\d+(?:\.\d+)?)\)/.exec(text.slice(open));
  if (close && start <= open + close[0].length) return [open + 1, open + 1 + close[1].length];
  while (start > 0 && !STOPS.test(text[start - 1])) start--;
  while (end < text.length && !STOPS.test(text[end])) end++;
  while (start < end && /\s/.test(text[start])) start++;
  while (end > start && /\s/.test(text[end - 1])) end--;
  return [start, end];
}

/** {from, to, text, start, end}: the replacement, and the selection after it; null where there is nothing to weigh. */
export function weigh(text, start, end, step) {
  [start, end] = phrase(text, start, end);
  if (start === end) return null;
  const lora = /<(lora|lyco):([^:<>]+):(-?\d+(?:\.\d+)?)[^<>]*>/g;
  for (let m; (m = lora.exec(text));) {
    if (start > m.index && end < m.index + m[0].length) {
      const weight = Math.round((Number(m[3]) + step) * 100) / 100, made = `<${m[1]}:${m[2]}:${weight}>`;
      return { from: m.index, to: m.index + m[0].length, text: made, start: m.index + 1, end: m.index + made.length - 1 };
    }
  }
  const around = wrapped(text, start, end);
  const words = around?.words ?? text.slice(start, end);
  const weight = Math.round(((around?.weight ?? 1) + step) * 100) / 100;
  const from = around?.from ?? start, to = around?.to ?? end;
  if (weight <= 0) return null;
  if (weight === 1) return { from, to, text: words, start: from, end: from + words.length };
  return { from, to, text: `(${words}:${weight})`, start: from + 1, end: from + 1 + words.length };
}

/** The word before the caret that a name could complete, and where it begins; `<lora:na` counts as one. */
export function unfinished(text, caret) {
  const m = /(?:<(?:lora|lyco):)?[\p{L}\p{N}_.-]{2,}$/u.exec(text.slice(Math.max(0, caret - 80), caret));
  return m ? { word: m[0], from: caret - m[0].length } : null;
}
