// Lists of pictures that the server has: the latest ones, and those found in the gallery.
import { signal, batch } from "../vendor/preact.js";
import { api, post, remove } from "./api.js";
import { toast, ui, setUi } from "./state.js";
import { t } from "./i18n.js";

const PAGE = 200, LARGEST = 500;

class PictureList {
  constructor(page) {
    this.page = page;
    this.items = signal([]);
    this.total = signal(0);
    this.query = signal({ search: "", starred: false, deleted: false });
    this.ready = signal(false);
    this.next = null;
    this.busy = this.news = this.asked = this.loading = null;
    this.run = this.wanted = 0;
  }

  url(before, limit = this.page) {
    const { search, starred, deleted } = this.query.peek();
    const params = new URLSearchParams({ limit });
    if (search) params.set("search", search);
    if (starred) params.set("starred", "true");
    if (deleted) params.set("deleted", "true");
    if (before) params.set("before", before);
    return `v1/gallery?${params}`;
  }

  /** The list anew; one that was asked the same before keeps as many pictures as it had, and the place in it. */
  reload() {
    const loaded = this.#load();
    this.loading = loaded.catch(() => {});
    return loaded;
  }

  async #load() {
    const run = ++this.run, news = this.news = new Map(), asked = this.query.peek();
    const had = asked === this.asked ? this.items.peek().length : 0;
    this.asked = asked;
    if (!had) this.wanted = 0; // that was another search's
    const answer = await api(this.url());
    if (run !== this.run) return;
    this.news = null;
    batch(() => {
      this.items.value = answer.pictures;
      this.total.value = answer.total ?? answer.pictures.length;
      this.next = answer.next;
      this.ready.value = true;
      for (const [id, picture] of news) picture ? this.put(picture) : this.take(id);
    });
    this.reach(had).catch(() => {});
  }

  /** Loads pages until `count` pictures are there, or all. */
  async reach(count) {
    this.wanted = this.busy ? Math.max(this.wanted, count) : count;
    this.busy ??= this.#fill().finally(() => { this.busy = null; });
    return this.busy;
  }

  async #fill() {
    for (;;) {
      for (let seen; seen !== this.loading;) await (seen = this.loading); // its answer replaces what is here
      if (!this.next || this.items.peek().length >= this.wanted) return;
      const run = this.run, missing = this.wanted - this.items.peek().length;
      const answer = await api(this.url(this.next, Math.min(LARGEST, Math.max(this.page, missing))));
      if (run !== this.run) continue;
      this.next = answer.next;
      const known = new Set(this.items.peek().map((each) => each.id));
      this.items.value = [...this.items.peek(), ...answer.pictures.filter((each) => !known.has(each.id))];
    }
  }

  matches(picture) {
    const { search, starred, deleted } = this.query.peek();
    if (Boolean(picture.deleted) !== deleted || (starred && !picture.starred)) return false;
    return !search || (picture.prompt || "").toLowerCase().includes(search.toLowerCase());
  }

  put(picture) {
    this.news?.set(picture.id, picture); // while a list is being loaded: the answer may be older than this
    if (!this.ready.peek() || !this.matches(picture) || this.items.peek().some((each) => each.id === picture.id)) return;
    const items = [...this.items.peek()];
    const at = items.findIndex((each) => each.created < picture.created);
    items.splice(at < 0 ? items.length : at, 0, picture);
    batch(() => { this.items.value = items; this.total.value += 1; });
  }

  take(id) {
    this.news?.set(id, null);
    const items = this.items.peek(), at = items.findIndex((each) => each.id === id);
    if (at < 0) return null;
    const neighbour = items[at + 1] || items[at - 1] || null;
    batch(() => { this.items.value = items.filter((each) => each.id !== id); this.total.value -= 1; });
    return neighbour;
  }

  patch(id, changes) {
    if (!this.items.peek().some((each) => each.id === id)) return;
    this.items.value = this.items.peek().map((each) => (each.id === id ? { ...each, ...changes } : each));
  }
}

/** The latest pictures, for the strip; and the gallery, as searched. */
export const recent = new PictureList(60), found = new PictureList(PAGE);
const lists = [recent, found];

export const find = (id) => found.items.value.find((each) => each.id === id) || recent.items.value.find((each) => each.id === id);

export function added(picture) {
  for (const list of lists) list.put(picture);
}

/** What another tab or device did. */
export async function patched(id, change) {
  if (change === "deleted") for (const list of lists) list.query.peek().deleted ? list.reload() : list.take(id);
  else if (change === "restored") {
    const picture = await api(`v1/gallery/${id}`);
    for (const list of lists) list.query.peek().deleted ? list.take(id) : list.put(picture);
  } else {
    const picture = await api(`v1/gallery/${id}`);
    for (const list of lists) list.patch(id, { starred: picture.starred });
  }
}

export async function star(picture) {
  const starred = !picture.starred;
  for (const list of lists) list.patch(picture.id, { starred });
  try {
    await post(`v1/gallery/${picture.id}/star`, { starred });
  } catch (error) {
    for (const list of lists) list.patch(picture.id, { starred: !starred });
    toast(error.message, { kind: "error" });
  }
}

/** Deletes, selects the neighbour, and offers to undo it. */
export async function discard(picture, list = recent) {
  const neighbour = list.take(picture.id);
  for (const each of lists) each.take(picture.id);
  if (ui("picture").peek() === picture.id) setUi("picture", neighbour?.id);
  try {
    await remove(`v1/gallery/${picture.id}`);
    toast(t("gallery.deleted"), { undo: () => restore(picture), seconds: 10 });
  } catch (error) {
    added(picture);
    toast(error.message, { kind: "error" });
  }
}

export async function restore(picture) {
  await post(`v1/gallery/${picture.id}/restore`);
  for (const each of lists) each.query.peek().deleted ? each.take(picture.id) : each.put({ ...picture, deleted: null });
  setUi("picture", picture.id);
}
