// Where frames come from: a camera, a clip or a picture of this device; and why there is no camera where there is none.

const KINDS = {
  NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "none", OverconstrainedError: "none", NotReadableError: "busy", AbortError: "busy",
};
const QUALITY = 0.8;

/** Why the camera cannot be used: "insecure", "unsupported", "denied", "none", "busy" or "failed". */
export class CameraFault extends Error {
  constructor(kind) {
    super(kind);
    this.kind = kind;
  }
}

/** The stream of a camera; `which` is `{facing: "user"|"environment"}` or `{deviceId}`. Throws a CameraFault. */
export async function openCamera(which) {
  if (!isSecureContext) throw new CameraFault("insecure");
  if (!navigator.mediaDevices?.getUserMedia) throw new CameraFault("unsupported");
  const chosen = which.deviceId ? { deviceId: { exact: which.deviceId } } : { facingMode: { ideal: which.facing } };
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { ...chosen, width: { ideal: 640 }, height: { ideal: 480 } }, audio: false });
  } catch (error) {
    throw new CameraFault(KINDS[error.name] || "failed");
  }
}

/** Ids of the cameras there are. */
export async function cameraIds() {
  const devices = await navigator.mediaDevices?.enumerateDevices?.().catch(() => []) || [];
  return devices.filter((each) => each.kind === "videoinput").map((each) => each.deviceId);
}

/** The camera after the one of `stream`: the other side of a phone, or the next device. */
export async function nextCamera(stream) {
  const [track] = stream.getVideoTracks(), { facingMode, deviceId } = track.getSettings();
  if (facingMode) return { facing: facingMode === "user" ? "environment" : "user" };
  const ids = await cameraIds();
  return { deviceId: ids[(ids.indexOf(deviceId) + 1) % ids.length] };
}

const sizeOf = (picture) => [picture.videoWidth || picture.naturalWidth || picture.width, picture.videoHeight || picture.naturalHeight || picture.height];

/** Draws the middle square of a video or picture over a whole canvas, mirrored where asked. */
export function drawSquare(context, picture, mirrored = false) {
  const { width, height } = context.canvas, [w, h] = sizeOf(picture), side = Math.min(w, h);
  if (!side) return false;
  context.save();
  if (mirrored) {
    context.translate(width, 0);
    context.scale(-1, 1);
  }
  context.drawImage(picture, (w - side) / 2, (h - side) / 2, side, side, 0, 0, width, height);
  context.restore();
  return true;
}

let paper = null;

/** The middle square of a video or picture as a JPEG of `size` pixels a side; null where it has none yet. */
export async function grab(picture, size, mirrored) {
  if (paper?.width !== size) paper = new OffscreenCanvas(size, size);
  if (!drawSquare(paper.getContext("2d", { alpha: false }), picture, mirrored)) return null;
  return paper.convertToBlob({ type: "image/jpeg", quality: QUALITY });
}
