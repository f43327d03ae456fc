// A transparent picture in the room: WebXR's immersive-ar with hit tests, a quad that stands where the user taps.
import {
  BufferAttribute, LinearFilter, LinearMipmapLinearFilter, Mesh, MeshBasicMaterial, PerspectiveCamera, Scene, SRGBColorSpace, Texture, WebGLRenderer,
} from "../vendor/three.js";

const HEIGHT = 0.4; // metres
const MOST = 24; // pictures that stand at once
const BOTH_SIDES = 2; // three.js: DoubleSide
const SOLID = 24; // alpha from which a pixel belongs to the thing

/** Whether this browser can show pictures in the room. */
export const canPlace = async () => Boolean(await navigator.xr?.isSessionSupported?.("immersive-ar").catch(() => false));

/**
 * Begins a session; call it from a click.
 *
 * @param {HTMLElement} overlay shown over the camera where the browser can; taps on its buttons place nothing
 * @param {(count: number) => void} placed is told how many pictures stand
 * @param {() => void} ended
 * @returns {Promise<{show: (picture: ImageBitmap) => void, remove: () => void, end: () => void, spots: () => number[][]}>}
 */
export async function startPlacing({ overlay, placed, ended }) {
  const session = await navigator.xr.requestSession("immersive-ar", {
    requiredFeatures: ["hit-test"], optionalFeatures: ["dom-overlay", "anchors", "local-floor"], domOverlay: { root: overlay },
  });
  const renderer = new WebGLRenderer({ alpha: true, antialias: true });
  renderer.xr.enabled = true;
  renderer.xr.setReferenceSpaceType("local");
  const room = new Room(renderer, session, placed);
  const quiet = (event) => { if (event.target.closest?.("button")) event.preventDefault(); };
  overlay.addEventListener("beforexrselect", quiet);
  session.addEventListener("end", () => {
    overlay.removeEventListener("beforexrselect", quiet);
    room.dispose();
    ended();
  });
  await renderer.xr.setSession(session);
  await room.begin();
  return { show: (picture) => room.show(picture), remove: () => room.remove(), end: () => session.end(), spots: () => room.spots() };
}

class Room {
  scene = new Scene();
  camera = new PerspectiveCamera();
  standing = []; // {mesh, anchor, lift}
  picture = null;
  rays = new Map(); // input source, or null for the middle of the view -> its hit test source
  hits = new Map(); // the same -> the newest hit

  constructor(renderer, session, placed) {
    Object.assign(this, { renderer, session, placed });
    this.ring = ring();
    this.scene.add(this.ring);
    session.addEventListener("select", (event) => this.#tap(event.inputSource));
    session.addEventListener("inputsourceschange", ({ added, removed }) => {
      for (const each of added) this.#point(each);
      for (const each of removed) this.#unpoint(each);
    });
  }

  async begin() {
    const { session } = this;
    this.rays.set(null, await session.requestHitTestSource({ space: await session.requestReferenceSpace("viewer") }));
    for (const each of session.inputSources) this.#point(each);
    try {
      this.touches = await session.requestHitTestSourceForTransientInput?.({ profile: "generic-touchscreen" });
    } catch { /* no touch screen: the middle of the view and pointers are enough */ }
    this.renderer.setAnimationLoop((time, frame) => frame && this.#draw(frame));
  }

  show(picture) {
    this.picture = trimmed(picture);
  }

  /** Takes the picture away that was placed last. */
  remove() {
    const last = this.standing.pop();
    if (!last) return;
    this.scene.remove(last.mesh);
    last.anchor?.delete?.();
    free(last.mesh);
    this.placed(this.standing.length);
  }

  spots = () => this.standing.map(({ mesh }) => mesh.position.toArray());

  dispose() {
    this.renderer.setAnimationLoop(null);
    for (const { mesh } of this.standing) free(mesh);
    this.renderer.dispose();
  }

  async #point(source) {
    if (source.targetRayMode !== "tracked-pointer") return;
    const ray = await this.session.requestHitTestSource({ space: source.targetRaySpace }).catch(() => null);
    if (ray) this.rays.set(source, ray);
  }

  #unpoint(source) {
    this.rays.get(source)?.cancel?.();
    this.rays.delete(source);
    this.hits.delete(source);
  }

  #draw(frame) {
    const space = this.renderer.xr.getReferenceSpace();
    for (const [source, ray] of this.rays) this.#found(source, frame.getHitTestResults(ray)[0], space);
    for (const each of (this.touches && frame.getHitTestResultsForTransientInput?.(this.touches)) || []) this.#found(each.inputSource, each.results[0], space);
    const viewer = frame.getViewerPose(space);
    if (viewer) this.eye = viewer.transform.position;
    const aim = [...this.hits].find(([source]) => source)?.[1] || this.hits.get(null);
    this.ring.visible = Boolean(aim && this.picture);
    if (aim) this.ring.matrix.fromArray(aim.matrix);
    for (const each of this.standing) follow(each, frame, space);
    this.renderer.render(this.scene, this.camera);
  }

  #found(source, result, space) {
    const pose = result?.getPose(space);
    if (pose) this.hits.set(source, { result, matrix: pose.transform.matrix });
    else this.hits.delete(source);
  }

  /** Puts the picture where a tap, a pointer or the middle of the view hits something. */
  #tap(source) {
    const hit = this.hits.get(source) || this.hits.get(null);
    if (!hit || !this.picture) return;
    while (this.standing.length >= MOST) {
      const first = this.standing.shift();
      this.scene.remove(first.mesh);
      free(first.mesh);
    }
    const one = { mesh: quad(this.picture), anchor: null, lift: stand(hit.matrix, this.eye) };
    one.mesh.rotation.y = one.lift.turn;
    one.mesh.position.set(...one.lift.at);
    this.scene.add(one.mesh);
    this.standing.push(one);
    hit.result.createAnchor?.().then((anchor) => { one.anchor = anchor; }, () => {}); // keeps its place as the device learns the room
    this.placed(this.standing.length);
  }
}

/** Where a picture stands on a surface (upright, towards the eye) or hangs at a wall; a hit's y axis is the surface's normal. */
function stand(matrix, eye) {
  const [x, y, z] = [matrix[12], matrix[13], matrix[14]], [nx, ny, nz] = [matrix[4], matrix[5], matrix[6]];
  if (Math.abs(ny) >= 0.5) return { turn: eye ? Math.atan2(eye.x - x, eye.z - z) : 0, at: [x, y, z], offset: [0, 0, 0] };
  const offset = [nx * 0.01, -HEIGHT / 2, nz * 0.01];
  return { turn: Math.atan2(nx, nz), at: [x + offset[0], y + offset[1], z + offset[2]], offset };
}

function follow({ mesh, anchor, lift }, frame, space) {
  const pose = anchor && frame.getPose(anchor.anchorSpace, space);
  if (!pose) return;
  const { x, y, z } = pose.transform.position;
  mesh.position.set(x + lift.offset[0], y + lift.offset[1], z + lift.offset[2]);
}

/** The picture without its empty margins, so that the thing itself stands on the ground. */
function trimmed(picture) {
  const canvas = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (data[4 * (y * width + x) + 3] < SOLID) continue;
      left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = y;
    }
  }
  if (right < 0) return canvas;
  const part = Object.assign(document.createElement("canvas"), { width: right - left + 1, height: bottom - top + 1 });
  part.getContext("2d").drawImage(canvas, -left, -top);
  return part;
}

function quad(picture) {
  const texture = new Texture(picture);
  Object.assign(texture, { colorSpace: SRGBColorSpace, magFilter: LinearFilter, minFilter: LinearMipmapLinearFilter, needsUpdate: true });
  const mesh = new Mesh(undefined, new MeshBasicMaterial({ map: texture, transparent: true, alphaTest: 0.03, side: BOTH_SIDES }));
  const half = (HEIGHT * picture.width) / picture.height / 2;
  corners(mesh.geometry, [-half, 0, 0, half, 0, 0, half, HEIGHT, 0, -half, HEIGHT, 0], [0, 1, 2, 0, 2, 3]);
  mesh.geometry.setAttribute("uv", new BufferAttribute(new Float32Array([0, 0, 1, 0, 1, 1, 0, 1]), 2));
  return mesh;
}

/** A flat ring that shows where a tap would put the picture. */
function ring() {
  const mesh = new Mesh(undefined, new MeshBasicMaterial({ color: 0xff8a6b, side: BOTH_SIDES }));
  const points = [], faces = [], parts = 40;
  for (let i = 0; i < parts; i++) {
    const angle = (2 * Math.PI * i) / parts, next = 2 * ((i + 1) % parts);
    for (const radius of [0.07, 0.09]) points.push(radius * Math.cos(angle), 0, radius * Math.sin(angle));
    faces.push(2 * i, 2 * i + 1, next, next, 2 * i + 1, next + 1);
  }
  corners(mesh.geometry, points, faces);
  mesh.matrixAutoUpdate = false;
  mesh.visible = false;
  return mesh;
}

function corners(geometry, points, faces) {
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(points), 3));
  geometry.setIndex(faces);
}

function free(mesh) {
  mesh.geometry.dispose();
  mesh.material.map?.dispose();
  mesh.material.dispose();
}
