// The live picture's loop: one frame is on its way, the next one is the newest there is when the answer has come.
import { signal, effect } from "../vendor/preact.js";
import { Figures, LiveStream } from "./stream.js";
import { cameraIds, drawSquare, grab, nextCamera, openCamera } from "./source.js";

const AFTER_FAULT = 1000; // milliseconds until a frame is tried again
const SHOW_FIGURES = 250;
const PATIENCE = 120; // milliseconds of typing that go to the server together
const SHEET = 512; // side of the picture with a sticker on it

/**
 * @param {() => {prompt: string, mode: "change"|"sticker", strength: number, seed: number, size: number, steps: number, model: string}} read
 *   the settings; each call reads signals, so that a change is seen
 * @param {(picture: object) => void} kept is called with a picture that came into the gallery
 */
export class LiveSession {
  source = signal(null); // null, "camera", "clip" or "picture"
  fault = signal(null); // why there is no camera
  paused = signal(false);
  hidden = signal(document.hidden);
  link = signal("lost");
  notice = signal(null); // the server's sentence
  figures = signal(null);
  cameras = signal(0);
  mirrored = signal(false);
  answers = signal(0);
  place = signal({ x: 0.5, y: 0.55, size: 0.6 }); // of the sticker: its middle and side as shares of the picture

  #measured = new Figures();
  #stream;
  #elements = {};
  #answer = null; // the newest picture that came back
  #over = false; // whether it is a sticker
  #clear = false; // whether it has transparent parts
  #asked = "change"; // the mode of the frame that is on its way
  #camera = null;
  #url = null;
  #fresh = true;
  #changed = true;
  #hold = 0;
  #closers = [];

  constructor(read, kept) {
    this.read = read;
    this.kept = kept;
    this.#stream = new LiveStream({
      answered: (blob, since, server) => this.#answered(blob, since, server),
      told: (message) => this.#told(message),
      changed: (state) => this.#linked(state),
    });
  }

  /** Begins with the page's elements: `video`, `image` and `canvas`. */
  start(elements) {
    this.#elements = elements;
    this.#stream.open();
    let timer = 0;
    const told = () => {
      this.read();
      clearTimeout(timer);
      timer = setTimeout(() => this.#tell(), PATIENCE);
    };
    const seen = () => {
      this.hidden.value = document.hidden;
      if (!document.hidden) this.#pump();
    };
    document.addEventListener("visibilitychange", seen);
    const shown = setInterval(() => { if (this.running) this.figures.value = this.#measured.read(); }, SHOW_FIGURES);
    this.#closers = [effect(told), effect(() => (this.place.value, this.#draw())), () => document.removeEventListener("visibilitychange", seen), () => clearInterval(shown), () => clearTimeout(timer)];
    this.#watchVideo();
  }

  close() {
    for (const each of this.#closers) each();
    this.stop();
    this.#stream.close();
  }

  get running() {
    return Boolean(this.source.peek()) && !this.paused.peek() && !this.hidden.peek();
  }

  /** Takes the camera: of a side ("user", "environment") or a device; says why where it cannot. */
  async openCamera(which = { facing: "user" }) {
    this.fault.value = null;
    this.stop();
    try {
      const stream = await openCamera(which);
      if (!this.#closers.length) return stream.getTracks().forEach((each) => each.stop()); // the view was left meanwhile
      this.#camera = stream;
      const { facingMode } = stream.getVideoTracks()[0].getSettings();
      this.mirrored.value = facingMode ? facingMode === "user" : which.facing === "user";
      this.cameras.value = (await cameraIds()).length;
      this.#elements.video.srcObject = stream;
      await this.#elements.video.play();
      this.#begin("camera");
    } catch (error) {
      this.fault.value = error.kind || "failed";
    }
  }

  switchCamera = async () => this.openCamera(await nextCamera(this.#camera));

  /** Takes a clip or a picture of this device. */
  async openFile(file) {
    this.fault.value = null;
    this.stop();
    this.#url = URL.createObjectURL(file);
    this.mirrored.value = false;
    const { video, image } = this.#elements, moving = file.type.startsWith("video/");
    try {
      (moving ? video : image).src = this.#url;
      await (moving ? video.play() : image.decode());
      this.#begin(moving ? "clip" : "picture");
    } catch {
      this.fault.value = "unreadable";
    }
  }

  #begin(name) {
    this.#changed = true;
    this.source.value = name;
    this.paused.value = false;
    this.#measured.clear();
    if (this.link.peek() === "elsewhere") this.#stream.open();
    this.#pump();
  }

  /** Lets go of the camera, clip or picture. */
  stop() {
    this.#camera?.getTracks().forEach((each) => each.stop());
    this.#camera = null;
    this.source.value = null;
    this.figures.value = null;
    const { video, image } = this.#elements;
    if (video) {
      video.pause();
      video.srcObject = null;
      video.removeAttribute("src");
      image.removeAttribute("src");
    }
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
  }

  pause(on) {
    this.paused.value = on;
    const { video } = this.#elements;
    if (video.src || video.srcObject) (on ? video.pause() : video.play().catch(() => {}));
    this.#measured.clear();
    if (!on) this.#pump();
  }

  keep = () => this.#stream.tell({ keep: true });

  get #picture() {
    return this.source.peek() === "picture" ? this.#elements.image : this.#elements.video;
  }

  #watchVideo() {
    const { video } = this.#elements;
    const next = () => {
      if (!this.#closers.length || video !== this.#elements.video) return;
      this.#fresh = true;
      this.#draw();
      this.#pump();
      video.requestVideoFrameCallback?.(next);
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
    else video.addEventListener("timeupdate", next);
    this.#closers.push(() => { this.#closers = []; });
  }

  #tell() {
    const { mode, strength, ...more } = this.read();
    const sticker = mode === "sticker";
    this.#stream.tell({ ...more, strength: sticker ? 1 : strength, background: sticker ? "transparent" : null });
    this.#changed = true;
    this.#pump();
  }

  /** Sends the newest frame if none is on its way, and if there is anything new to see. */
  async #pump() {
    const { mode, size } = this.read();
    const moving = mode === "change" && this.source.peek() !== "picture";
    if (!this.running || !this.#stream.free || performance.now() < this.#hold || !(this.#changed || (moving && this.#fresh))) return;
    const since = performance.now();
    this.#fresh = this.#changed = false;
    this.#asked = mode;
    const blob = await grab(this.#picture, size, this.mirrored.peek());
    if (blob && this.running) await this.#stream.send(blob, since);
    else this.#changed = true;
  }

  async #answered(blob, since, server) {
    const over = this.#asked === "sticker";
    this.#pump(); // the next frame is on its way while this picture is decoded
    const picture = await createImageBitmap(blob);
    this.#answer?.close();
    this.#answer = picture;
    this.#over = over;
    this.#clear = blob.type === "image/webp";
    this.#draw();
    this.#measured.add(performance.now() - since, server);
    this.notice.value = null;
    this.answers.value += 1;
  }

  /** The answer, over the newest camera frame where it is a sticker or has transparent parts. */
  #draw() {
    const { canvas } = this.#elements, picture = this.#answer;
    if (!canvas || !picture || this.hidden.peek()) return;
    const over = this.#over, side = over ? SHEET : picture.width;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    if (over || this.#clear) {
      context.clearRect(0, 0, side, side);
      if (this.source.peek()) drawSquare(context, this.#picture, this.mirrored.peek());
    }
    if (!over) return context.drawImage(picture, 0, 0, side, side);
    const { x, y, size } = this.place.peek();
    context.drawImage(picture, (x - size / 2) * side, (y - size / 2) * side, size * side, size * side);
  }

  #told(message) {
    if (message.type === "kept") this.kept(message.picture);
    if (message.type === "error") this.notice.value = message.message;
    if (message.type !== "error" || message.id === undefined) return;
    this.#hold = performance.now() + AFTER_FAULT;
    setTimeout(() => this.#pump(), AFTER_FAULT);
  }

  #linked(state) {
    this.link.value = state;
    if (state === "open") this.#tell();
  }
}
