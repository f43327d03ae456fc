// The socket of the live picture: settings go up as text, one frame at a time as bytes, and pictures come back.

const AGAIN = 1500; // milliseconds until a lost connection is tried again
const REPLACED = 4009; // the server's code for "opened elsewhere"
const SPAN = 3000; // milliseconds that the rate is measured over
const LATEST = 40; // frames that the latency is the median of

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** How fast pictures come: `rate` a second, `latency` and `server` in milliseconds (medians); null before the second one. */
export class Figures {
  times = [];
  latencies = [];
  servers = [];

  add(latency, server) {
    const now = performance.now();
    this.times = [...this.times.filter((each) => now - each < SPAN), now];
    this.latencies = [...this.latencies, latency].slice(-LATEST);
    this.servers = [...this.servers, server].slice(-LATEST);
  }

  read() {
    const { times } = this;
    if (times.length < 2) return null;
    const rate = (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
    return { rate, latency: median(this.latencies), server: median(this.servers) };
  }

  clear() {
    this.times = [];
    this.latencies = [];
    this.servers = [];
  }
}

/**
 * Talks with the server until `close`.
 *
 * `answered(blob, latency, server)` gets each picture, `told(message)` the server's words, `changed(state)` one of
 * "open", "lost" (it tries again by itself) and "elsewhere" (another tab took over).
 */
export class LiveStream {
  #socket = null;
  #number = 0;
  #sent = null;
  #timer = 0;

  constructor(handlers) {
    this.handlers = handlers;
  }

  /** Whether a frame can be sent now. */
  get free() {
    return this.#socket?.readyState === WebSocket.OPEN && this.#sent === null;
  }

  open() {
    clearTimeout(this.#timer);
    const url = new URL("v1/live", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#sent = null;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.handlers.changed("open");
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.#text(JSON.parse(data)) : this.#picture(data));
    socket.onclose = ({ code }) => {
      if (socket !== this.#socket) return;
      this.#sent = null;
      if (code === REPLACED) return this.handlers.changed("elsewhere");
      this.handlers.changed("lost");
      this.#timer = setTimeout(() => this.open(), AGAIN);
    };
  }

  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /** Sends settings, or `{keep: true}`. */
  tell(settings) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(settings));
  }

  /** Sends a frame; its latency counts from `since`. */
  async send(blob, since) {
    if (!this.free) return;
    const socket = this.#socket, number = (this.#number = (this.#number + 1) % 2 ** 32);
    this.#sent = { number, since };
    const bytes = new Uint8Array(4 + blob.size);
    bytes.set(new Uint8Array(await blob.arrayBuffer()), 4);
    new DataView(bytes.buffer).setUint32(0, number, true);
    if (socket === this.#socket && socket.readyState === WebSocket.OPEN) socket.send(bytes);
  }

  #text(message) {
    if (message.id !== undefined && message.id === this.#sent?.number) this.#sent = null;
    this.handlers.told(message);
  }

  #picture(data) {
    const view = new DataView(data), number = view.getUint32(0, true), server = view.getFloat32(4, true);
    const since = number === this.#sent?.number ? this.#sent.since : performance.now();
    this.#sent = null;
    const webp = data.byteLength > 20 && view.getUint32(8) === 0x52494646; // "RIFF"
    this.handlers.answered(new Blob([new Uint8Array(data, 8)], { type: webp ? "image/webp" : "image/jpeg" }), since, server);
  }
}
