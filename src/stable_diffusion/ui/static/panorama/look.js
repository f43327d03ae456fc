/** Where the eye looks: pointers, wheel, keys and the device's motion change yaw, pitch and field of view (degrees). */

const DRAG = 0.9; // share of the field of view that a drag over the whole height turns
const KEY_TURN = 6;
const ZOOM = 1.1;
export const FIELD = { least: 20, usual: 75, most: 110 };

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

/** A view and the one function that changes it. */
export function createLook(changed) {
  const look = {
    yaw: 0,
    pitch: 0,
    roll: 0,
    field: FIELD.usual,
    set(values) {
      Object.assign(look, values);
      look.yaw = ((((look.yaw + 180) % 360) + 360) % 360) - 180;
      look.pitch = clamp(look.pitch, -90, 90);
      look.field = clamp(look.field, FIELD.least, FIELD.most);
      changed();
    },
    turn(yaw, pitch) {
      look.set({ yaw: look.yaw + yaw, pitch: look.pitch + pitch });
    },
    zoom(steps) {
      look.set({ field: look.field / ZOOM ** steps });
    },
    ahead() {
      look.set({ yaw: 0, pitch: 0, roll: 0, field: FIELD.usual });
    },
  };
  return look;
}

/** Drag to turn, two fingers to zoom, wheel to zoom; listeners end with the signal. */
export function followPointers(canvas, look, signal) {
  const down = new Map();
  const spread = () => {
    const [a, b] = [...down.values()];
    return Math.hypot(a.x - b.x, a.y - b.y) || 1;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    canvas.setPointerCapture(event.pointerId);
  }, { signal });
  canvas.addEventListener("pointermove", (event) => {
    const last = down.get(event.pointerId);
    if (!last) return;
    const before = down.size === 2 ? spread() : 0;
    const scale = (DRAG * look.field) / canvas.clientHeight;
    const [x, y] = [event.clientX - last.x, event.clientY - last.y];
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (down.size === 2) look.set({ field: (look.field * before) / spread() });
    else look.turn(-x * scale, y * scale);
  }, { signal });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    canvas.addEventListener(name, (event) => down.delete(event.pointerId), { signal });
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    look.zoom(clamp(-event.deltaY / 100, -3, 3));
  }, { signal, passive: false });
}

/** Arrows turn, + and - zoom, Home looks ahead; `shortcuts` maps other keys to actions. */
export function followKeys(element, look, shortcuts, signal) {
  const keys = {
    ArrowLeft: () => look.turn(-KEY_TURN, 0),
    ArrowRight: () => look.turn(KEY_TURN, 0),
    ArrowUp: () => look.turn(0, KEY_TURN),
    ArrowDown: () => look.turn(0, -KEY_TURN),
    "+": () => look.zoom(1),
    "=": () => look.zoom(1),
    "-": () => look.zoom(-1),
    Home: () => look.ahead(),
    ...shortcuts,
  };
  element.addEventListener("keydown", (event) => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  }, { signal });
}

/**
 * Follows the device's orientation until the returned function is called.
 * @param {() => void} missing is called where no event came within a second, or the user refused
 */
export async function followMotion(look, missing) {
  const kind = globalThis.DeviceOrientationEvent;
  if (!kind) return missing();
  if (kind.requestPermission && (await kind.requestPermission().catch(() => "denied")) !== "granted") return missing();
  let first = null;
  const listen = (event) => {
    if (event.alpha === null || event.beta === null) return;
    const seen = deviceView(event.alpha, event.beta, event.gamma ?? 0, screen.orientation?.angle ?? 0);
    first ??= look.yaw - seen.yaw; // the way that was ahead stays ahead
    look.set({ yaw: seen.yaw + first, pitch: seen.pitch, roll: seen.roll });
  };
  const stop = () => {
    removeEventListener("deviceorientation", listen);
    look.set({ roll: 0 });
  };
  addEventListener("deviceorientation", listen);
  setTimeout(() => {
    if (first === null) {
      stop();
      missing();
    }
  }, 1000);
  return stop;
}

/**
 * Where the back of a device points, from the angles of the W3C's Device Orientation (degrees): rotation matrix
 * Z(alpha) X(beta) Y(gamma), device axes x right, y up, z out of the screen, world axes east, north, up.
 */
export function deviceView(alpha, beta, gamma, turned = 0) {
  const [a, b, c, t] = [alpha, beta, gamma, turned].map((angle) => (angle * Math.PI) / 180);
  const [sa, ca, sb, cb, sc, cc] = [Math.sin(a), Math.cos(a), Math.sin(b), Math.cos(b), Math.sin(c), Math.cos(c)];
  const x = [ca * cc - sa * sb * sc, sa * cc + ca * sb * sc, -cb * sc];
  const y = [-sa * cb, ca * cb, sb];
  const z = [ca * sc + sa * sb * cc, sa * sc - ca * sb * cc, cb * cc];
  // the screen's own right and up: turned against the device
  const right = x.map((value, i) => value * Math.cos(t) - y[i] * Math.sin(t));
  const up = y.map((value, i) => value * Math.cos(t) + x[i] * Math.sin(t));
  const degrees = 180 / Math.PI;
  return {
    yaw: Math.atan2(-z[0], -z[1]) * degrees,
    pitch: Math.asin(clamp(-z[2], -1, 1)) * degrees,
    roll: Math.atan2(-right[2], up[2]) * degrees,
  };
}
