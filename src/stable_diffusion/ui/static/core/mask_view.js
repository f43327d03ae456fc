// What is seen of a mask, and the pointers on it. Drawn only when something changed.
const MIN_ZOOM = 0.05, MAX_ZOOM = 32;

export class MaskView {
  constructor(canvas, picture, mask, changed) {
    Object.assign(this, { canvas, picture, mask, changed, size: 48, blur: 0, erase: false, scale: 1, x: 0, y: 0, cursor: null, space: false });
    this.pen = canvas.getContext("2d");
    this.pointers = new Map();
    this.frame = 0;
    this.stopper = new AbortController();
    const on = (target, names, run, options) => names.split(" ").forEach((name) => target.addEventListener(name, run, { signal: this.stopper.signal, ...options }));
    on(canvas, "pointerdown", (event) => this.#down(event));
    on(canvas, "pointermove", (event) => this.#move(event));
    on(canvas, "pointerup pointercancel", (event) => this.#up(event));
    on(canvas, "pointerleave", () => { this.cursor = null; this.draw(); });
    on(canvas, "contextmenu", (event) => event.preventDefault());
    on(canvas, "wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY / 400), this.#local(event)); }, { passive: false });
    on(canvas, "keydown keyup", (event) => this.#key(event));
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(canvas.parentElement);
    this.#resize();
    this.fit();
  }

  stop() {
    this.stopper.abort();
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
  }

  #resize() {
    const box = this.canvas.parentElement.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    const first = !this.width || Math.abs(this.width - box.width) > 1 || Math.abs(this.height - box.height) > 1;
    Object.assign(this, { width: box.width, height: box.height, ratio });
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    if (first) this.fit();
    this.draw();
  }

  fit() {
    this.scale = Math.min(this.width / this.mask.width, this.height / this.mask.height) * 0.96;
    this.x = (this.width - this.mask.width * this.scale) / 2;
    this.y = (this.height - this.mask.height * this.scale) / 2;
    this.draw();
  }

  /** Zooms about a point of the canvas (its middle where none is given). */
  zoom(factor, at = { x: this.width / 2, y: this.height / 2 }) {
    const scale = Math.max(MIN_ZOOM, Math.min(MAX_ZOOM, this.scale * factor));
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.draw();
  }

  #local(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #inside(at) {
    return { x: (at.x - this.x) / this.scale, y: (at.y - this.y) / this.scale };
  }

  #down(event) {
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    try { this.canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
    this.pointers.set(event.pointerId, this.#local(event));
    if (this.pointers.size > 1) {
      if (this.drawing !== undefined) { this.mask.end(); this.mask.undo(); this.drawing = undefined; }
      return;
    }
    this.panning = this.space || event.button === 1 || event.button === 2;
    if (this.panning) return;
    this.drawing = event.pointerId;
    this.mask.begin();
    this.last = this.#inside(this.#local(event));
    this.mask.stroke(this.last, this.last, this.#width(event), this.erase || event.buttons === 32);
    this.draw();
  }

  /** A pen's pressure sets the width; mice and fingers draw with the whole brush. */
  #width(event) {
    return event.pointerType === "pen" && event.pressure > 0 ? this.size * (0.25 + 0.75 * event.pressure) : this.size;
  }

  #move(event) {
    const at = this.#local(event), before = this.pointers.get(event.pointerId);
    this.cursor = at;
    if (before) {
      if (this.pointers.size > 1) this.#pinch(event.pointerId, before, at);
      else if (this.panning) { this.x += at.x - before.x; this.y += at.y - before.y; }
      else if (this.drawing === event.pointerId) {
        const events = event.getCoalescedEvents?.() || [];
        for (const each of events.length ? events : [event]) {
          const point = this.#inside(this.#local(each));
          this.mask.stroke(this.last, point, this.#width(each), this.erase || each.buttons === 32);
          this.last = point;
        }
      }
      this.pointers.set(event.pointerId, at);
    }
    this.draw();
  }

  #pinch(id, before, at) {
    const other = [...this.pointers].find(([each]) => each !== id)[1];
    const was = Math.hypot(before.x - other.x, before.y - other.y), now = Math.hypot(at.x - other.x, at.y - other.y);
    this.x += (at.x - before.x) / 2;
    this.y += (at.y - before.y) / 2;
    if (was > 8) this.zoom(now / was, { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    if (this.drawing === event.pointerId) {
      this.drawing = undefined;
      this.mask.end();
      this.changed();
    }
    this.panning = false;
  }

  /** Without a pointer: arrows move the brush, Enter paints; Space held with the mouse moves the picture. */
  #key(event) {
    if (event.key === " ") { this.space = event.type === "keydown"; event.preventDefault(); return; }
    if (event.type === "keyup" || event.ctrlKey || event.altKey) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const step = event.shiftKey ? 1 : (this.size * this.scale) / 3;
    if (way) {
      this.cursor ??= { x: this.width / 2, y: this.height / 2 };
      this.cursor = { x: this.cursor.x + way[0] * step, y: this.cursor.y + way[1] * step };
    } else if (event.key === "Enter") {
      const at = this.#inside((this.cursor ??= { x: this.width / 2, y: this.height / 2 }));
      this.mask.begin();
      this.mask.stroke(at, at, this.size, this.erase);
      this.mask.end();
      this.changed();
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.draw();
  }

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.#paint(); });
  }

  #paint() {
    const { pen, ratio, scale } = this;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.setTransform(scale * ratio, 0, 0, scale * ratio, this.x * ratio, this.y * ratio);
    pen.imageSmoothingEnabled = scale < 4;
    pen.fillStyle = "#8a8a8a";  // behind pictures with alpha
    pen.fillRect(0, 0, this.mask.width, this.mask.height);
    pen.drawImage(this.picture, 0, 0, this.mask.width, this.mask.height);
    pen.save();
    pen.globalAlpha = 0.6;
    pen.beginPath();
    pen.rect(0, 0, this.mask.width, this.mask.height);
    pen.clip();
    if (this.blur) pen.filter = `blur(${this.blur * scale * ratio}px)`;
    pen.drawImage(this.mask.canvas, 0, 0);
    pen.restore();
    if (!this.cursor) return;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const [colour, width] of [["rgb(0 0 0 / 0.6)", 3], ["white", 1.2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      pen.arc(this.cursor.x, this.cursor.y, Math.max(1, (this.size * scale) / 2), 0, 2 * Math.PI);
      pen.stroke();
    }
  }
}
