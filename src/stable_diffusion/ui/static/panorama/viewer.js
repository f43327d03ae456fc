/**
 * A panorama to look around in: drag, keys, wheel, motion, full screen and WebXR.
 *
 * It draws only when something changed, so that an open viewer costs nothing while nobody moves it.
 */
import { PerspectiveCamera, Scene, StereoCamera, WebGLRenderer } from "../vendor/three.js";
import { addViewerStyle, press, viewerBar } from "./bar.js";
import { createLook, followKeys, followMotion, followPointers } from "./look.js";
import { disposeGroup, loadPicture, panoramaGroup, RADIUS } from "./scene.js";
import { viewerTexts } from "./texts.js";

const RADIANS = Math.PI / 180;

/**
 * Shows a panorama in an element until `destroy` is called.
 *
 * @param {HTMLElement} element its size is the viewer's
 * @param {object} options
 * @param {string} [options.url] address of the picture (same origin, `blob:` or `data:`)
 * @param {Blob} [options.blob] the picture itself, instead of an address
 * @param {"top-bottom"|"left-right"|null} [options.stereo] how the picture holds two eyes' views; null for one
 * @param {string|Blob|null} [options.depth] a depth picture of the same view, white near: gives VR a stereo pair
 * @param {string} [options.lang] language of the controls; the page's by default
 * @returns {Promise<{look: object, renders: () => number, enterVR: () => Promise<void>, destroy: () => void}>}
 */
export async function mountViewer(element, { url, blob, stereo = null, depth = null, lang } = {}) {
  const texts = viewerTexts(lang || document.documentElement.lang || navigator.language);
  addViewerStyle();
  const root = Object.assign(document.createElement("div"), { className: "pv" });
  const note = Object.assign(document.createElement("p"), { className: "pv-note" });
  note.setAttribute("role", "status");
  root.append(note);
  element.append(root);
  const say = (key) => {
    note.textContent = texts[key] || "";
  };
  const made = [];
  const address = (given) => {
    if (!(given instanceof Blob)) return given;
    made.push(URL.createObjectURL(given));
    return made.at(-1);
  };
  const release = () => made.forEach((each) => URL.revokeObjectURL(each));
  let picture = null;
  let deep = null;
  try {
    picture = await loadPicture(address(blob || url));
  } catch {
    say("broken");
    return { look: null, renders: () => 0, enterVR: async () => {}, destroy: () => (release(), root.remove()) };
  }
  if (depth) deep = await loadPicture(address(depth)).catch(() => (say("broken-depth"), null));
  try {
    const viewer = startViewer(root, { picture, deep, stereo, texts, say });
    return { ...viewer, destroy: () => (viewer.destroy(), release(), root.remove()) };
  } catch {
    picture.alt = texts.picture;
    root.append(picture);
    say("no-webgl");
    return { look: null, renders: () => 0, enterVR: async () => {}, destroy: () => (release(), root.remove()) };
  }
}

function startViewer(root, { picture, deep, stereo, texts, say }) {
  const renderer = new WebGLRenderer({ antialias: true });
  const canvas = renderer.domElement;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", texts.picture);
  root.prepend(canvas);
  const scene = new Scene();
  const group = panoramaGroup(picture, { stereo, depth: deep, anisotropy: renderer.capabilities.getMaxAnisotropy() });
  scene.add(group);
  const camera = new PerspectiveCamera(75, 1, 0.05, 1000);
  camera.rotation.order = "YXZ";
  camera.focus = RADIUS; // what is far away looks the same to both eyes of a pair
  if (stereo) camera.layers.enable(1); // without a headset the left eye's view is shown
  const pair = new StereoCamera();
  const ending = new AbortController();
  const { signal } = ending;
  let waiting = 0;
  let renders = 0;
  let paired = false;
  let motion = null;

  const draw = () => {
    waiting = 0;
    if (renderer.xr.isPresenting) return;
    renders++;
    camera.rotation.set(look.pitch * RADIANS, -look.yaw * RADIANS, -look.roll * RADIANS);
    camera.fov = look.field;
    camera.updateProjectionMatrix();
    if (paired) drawPair(renderer, scene, camera, pair);
    else renderer.render(scene, camera);
  };
  const redraw = () => {
    waiting ||= requestAnimationFrame(draw);
  };
  const look = createLook(redraw);
  const resize = () => {
    if (renderer.xr.isPresenting) return;
    const [width, height] = [root.clientWidth || 1, root.clientHeight || 1];
    renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    redraw();
  };
  const watcher = new ResizeObserver(resize);
  watcher.observe(root);

  const vr = virtualReality({ renderer, scene, camera, group, look, stereo, say, ended: () => (press(bar, "vr", false), label(), resize()) });
  const label = () => {
    const button = bar.querySelector('[data-action="vr"]');
    button.title = texts[renderer.xr.isPresenting ? "leave-vr" : "vr"];
    button.setAttribute("aria-label", button.title);
  };
  const actions = {
    "zoom-in": () => look.zoom(2),
    "zoom-out": () => look.zoom(-2),
    ahead: () => look.ahead(),
    motion: async () => {
      const on = !motion;
      motion?.();
      const off = () => {
        motion = null;
        press(bar, "motion", false);
      };
      motion = null;
      press(bar, "motion", on);
      if (!on) return;
      const missing = () => (off(), say("no-motion"));
      motion = (await followMotion(look, missing)) || null;
    },
    pair: () => {
      paired = !paired;
      press(bar, "pair", paired);
      resize();
    },
    fullscreen: () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen?.())?.catch(() => {}),
    vr: async () => {
      await vr.toggle();
      press(bar, "vr", renderer.xr.isPresenting);
      label();
    },
  };
  const bar = viewerBar(texts, actions);
  for (const name of ["motion", "pair", "vr", "fullscreen"]) press(bar, name, false);
  root.append(bar);
  offer(bar, say);
  document.addEventListener("fullscreenchange", () => press(bar, "fullscreen", document.fullscreenElement === root), { signal });
  canvas.addEventListener("webglcontextrestored", redraw, { signal });
  followPointers(canvas, look, signal);
  followKeys(root, look, { f: actions.fullscreen, g: actions.motion, s: actions.pair, v: actions.vr }, signal);
  resize();
  draw();
  const destroy = () => {
    motion?.();
    ending.abort();
    watcher.disconnect();
    cancelAnimationFrame(waiting);
    renderer.xr.getSession()?.end();
    disposeGroup(group);
    renderer.dispose();
  };
  return { look, renders: () => renders, enterVR: actions.vr, destroy };
}

/** Hides what the browser cannot do here, and says why where a secure address would help. */
function offer(bar, say) {
  const show = (name, possible) => {
    bar.querySelector(`[data-action="${name}"]`).hidden = !possible;
  };
  show("motion", isSecureContext && "DeviceOrientationEvent" in globalThis);
  show("fullscreen", document.fullscreenEnabled);
  show("vr", false);
  navigator.xr?.isSessionSupported("immersive-vr").then((possible) => show("vr", possible), () => {});
  if (!isSecureContext) say("insecure");
}

function drawPair(renderer, scene, camera, pair) {
  const { width, height } = renderer.domElement;
  const ratio = renderer.getPixelRatio();
  const [half, high] = [width / 2 / ratio, height / ratio];
  camera.aspect = half / high;
  camera.updateProjectionMatrix();
  camera.updateMatrixWorld();
  pair.aspect = 1; // the camera's own aspect is that of one half already
  pair.update(camera);
  renderer.setScissorTest(true);
  for (const [eye, left] of [[pair.cameraL, 0], [pair.cameraR, half]]) {
    renderer.setScissor(left, 0, half, high);
    renderer.setViewport(left, 0, half, high);
    renderer.render(scene, eye);
  }
  renderer.setScissorTest(false);
  renderer.setViewport(0, 0, width / ratio, high);
}

/** A WebXR session in which the view that is straight ahead now is straight ahead at its start. */
function virtualReality({ renderer, scene, camera, group, look, stereo, say, ended }) {
  const finish = () => {
    renderer.setAnimationLoop(null);
    renderer.xr.enabled = false;
    group.rotation.y = 0;
    if (stereo) camera.layers.enable(1);
    ended();
  };
  const start = async () => {
    try {
      const session = await navigator.xr.requestSession("immersive-vr", { optionalFeatures: ["local-floor"] });
      session.addEventListener("end", finish);
      renderer.xr.enabled = true;
      if (stereo) camera.layers.disable(1); // three.js gives each eye its own layer
      renderer.xr.setReferenceSpaceType("local");
      await renderer.xr.setSession(session);
      group.rotation.y = look.yaw * RADIANS;
      renderer.setAnimationLoop(() => renderer.render(scene, camera));
    } catch {
      say("no-vr");
    }
  };
  const toggle = async () => {
    const session = renderer.xr.getSession();
    if (session) await session.end();
    else if (navigator.xr) await start();
  };
  return { toggle };
}
