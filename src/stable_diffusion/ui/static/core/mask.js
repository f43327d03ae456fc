// A mask as a canvas of the picture's size: strokes, undo by changed rectangle, invert, and the black and white picture of it.
const DEPTH = 60, TINT = [255, 92, 60];

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.canvas = Object.assign(document.createElement("canvas"), { width, height });
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.kept = Object.assign(document.createElement("canvas"), { width, height });
    this.past = [];
    this.future = [];
    this.dirty = null;
  }

  /** Takes over a black and white picture: white is masked. */
  load(picture) {
    this.pen.drawImage(picture, 0, 0, this.width, this.height);
    const data = this.pen.getImageData(0, 0, this.width, this.height), px = data.data;
    for (let i = 0; i < px.length; i += 4) {
      px[i + 3] = px[i] > 127 && px[i + 3] > 127 ? 255 : 0;
      [px[i], px[i + 1], px[i + 2]] = TINT;
    }
    this.pen.putImageData(data, 0, 0);
  }

  begin() {
    const pen = this.kept.getContext("2d");
    pen.clearRect(0, 0, this.width, this.height);
    pen.drawImage(this.canvas, 0, 0);
    this.dirty = null;
  }

  /** A line of round strokes between two points; `size` is its diameter in the picture's pixels. */
  stroke(from, to, size, erase) {
    const pen = this.pen;
    pen.save();
    pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
    pen.strokeStyle = `rgb(${TINT.join(" ")})`;
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = Math.max(1, size);
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x + (from.x === to.x && from.y === to.y ? 0.01 : 0), to.y);
    pen.stroke();
    pen.restore();
    this.#touch(Math.min(from.x, to.x) - size, Math.min(from.y, to.y) - size, Math.max(from.x, to.x) + size, Math.max(from.y, to.y) + size);
  }

  #touch(x0, y0, x1, y1) {
    const d = this.dirty || [Infinity, Infinity, -Infinity, -Infinity];
    this.dirty = [Math.min(d[0], x0), Math.min(d[1], y0), Math.max(d[2], x1), Math.max(d[3], y1)];
  }

  /** Ends a stroke: what it changed can be undone. */
  end() {
    if (!this.dirty) return;
    const x = Math.max(0, Math.floor(this.dirty[0])), y = Math.max(0, Math.floor(this.dirty[1]));
    const w = Math.min(this.width, Math.ceil(this.dirty[2])) - x, h = Math.min(this.height, Math.ceil(this.dirty[3])) - y;
    this.dirty = null;
    if (w <= 0 || h <= 0) return;
    const before = this.kept.getContext("2d", { willReadFrequently: true }).getImageData(x, y, w, h);
    this.past.push({ x, y, before, after: this.pen.getImageData(x, y, w, h) });
    if (this.past.length > DEPTH) this.past.shift();
    this.future = [];
  }

  #whole(change) {
    this.begin();
    const data = this.pen.getImageData(0, 0, this.width, this.height), px = data.data;
    for (let i = 0; i < px.length; i += 4) {
      px[i + 3] = change(px[i + 3]);
      [px[i], px[i + 1], px[i + 2]] = TINT;
    }
    this.pen.putImageData(data, 0, 0);
    this.#touch(0, 0, this.width, this.height);
    this.end();
  }

  invert() { this.#whole((alpha) => 255 - alpha); }
  clear() { this.#whole(() => 0); }
  fill() { this.#whole(() => 255); }

  undo() {
    const step = this.past.pop();
    if (!step) return;
    this.pen.putImageData(step.before, step.x, step.y);
    this.future.push(step);
  }

  redo() {
    const step = this.future.pop();
    if (!step) return;
    this.pen.putImageData(step.after, step.x, step.y);
    this.past.push(step);
  }

  get empty() {
    const px = this.pen.getImageData(0, 0, this.width, this.height).data;
    for (let i = 3; i < px.length; i += 4) if (px[i] > 127) return false;
    return true;
  }

  /** Black and white, without greys: what is black stays as it is, bit by bit. */
  async blob() {
    const out = Object.assign(document.createElement("canvas"), { width: this.width, height: this.height }), pen = out.getContext("2d");
    const data = this.pen.getImageData(0, 0, this.width, this.height), px = data.data;
    for (let i = 0; i < px.length; i += 4) {
      px[i] = px[i + 1] = px[i + 2] = px[i + 3] > 127 ? 255 : 0;
      px[i + 3] = 255;
    }
    pen.putImageData(data, 0, 0);
    return new Promise((done) => out.toBlob(done, "image/png"));
  }
}
