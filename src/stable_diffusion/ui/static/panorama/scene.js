/** The sphere around the eye as three.js objects: one picture, a stereo pair, or one picture with depth. */
import { BufferAttribute, Group, LinearFilter, LinearMipmapLinearFilter, Mesh, MeshBasicMaterial, SphereGeometry, SRGBColorSpace, Texture } from "../vendor/three.js";

const FAR = 40; // metres to what a depth picture shows black
const NEAR = 1.5; // metres to what it shows white
export const RADIUS = 100; // metres to a picture without depth: far enough that both eyes see the same
const BAND = (100 * Math.PI) / 180; // height of a picture that is no panorama, as an angle

/** @returns {Promise<HTMLImageElement>} the loaded picture of an address */
export async function loadPicture(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/**
 * The angles that a picture covers, in radians: all of the sphere where it is twice as wide as high, a band around the
 * horizon where it is wider, and a part straight ahead where it is narrower.
 */
export function coveredAngles(width, height) {
  const ratio = width / height;
  if (ratio < 1.9) return { across: BAND * ratio, down: BAND };
  return { across: 2 * Math.PI, down: Math.PI * Math.min(1, 2 / ratio) };
}

/**
 * @param {HTMLImageElement} image
 * @param {{stereo?: "top-bottom"|"left-right"|null, depth?: HTMLImageElement|null, anisotropy?: number}} options
 * @returns {Group} meshes around the origin, the picture's middle at -z; layers 1 and 2 are the left and right eye
 */
export function panoramaGroup(image, { stereo = null, depth = null, anisotropy = 1 } = {}) {
  const texture = pictureTexture(image, anisotropy);
  const vertical = stereo === "top-bottom";
  const width = stereo === "left-right" ? image.naturalWidth / 2 : image.naturalWidth;
  const height = vertical ? image.naturalHeight / 2 : image.naturalHeight;
  const group = new Group();
  for (const eye of stereo ? [1, 2] : [0]) {
    const geometry = insideOut(width, height);
    if (eye) halve(geometry, vertical, eye);
    if (depth) pushByDepth(geometry, depth);
    const mesh = new Mesh(geometry, new MeshBasicMaterial({ map: texture }));
    mesh.layers.set(eye);
    mesh.frustumCulled = false;
    group.add(mesh);
  }
  return group;
}

/** Frees what a group holds on the graphics card. */
export function disposeGroup(group) {
  for (const mesh of group.children) {
    mesh.geometry.dispose();
    mesh.material.map.dispose();
    mesh.material.dispose();
  }
}

function pictureTexture(image, anisotropy) {
  const texture = new Texture(image);
  texture.colorSpace = SRGBColorSpace;
  texture.magFilter = LinearFilter;
  texture.minFilter = LinearMipmapLinearFilter;
  texture.anisotropy = anisotropy;
  texture.needsUpdate = true;
  return texture;
}

function insideOut(width, height) {
  const { across, down } = coveredAngles(width, height);
  // three.js starts a sphere at -x and goes over +z: a quarter turn puts the middle at -z once x is mirrored
  const start = Math.PI * 1.5 - across / 2;
  const geometry = new SphereGeometry(RADIUS, 192, 96, start, across, (Math.PI - down) / 2, down);
  geometry.scale(-1, 1, 1);
  return geometry;
}

function halve(geometry, vertical, eye) {
  const uv = geometry.attributes.uv;
  for (let i = 0; i < uv.count; i++) {
    if (vertical) uv.setY(i, uv.getY(i) / 2 + (eye === 1 ? 0.5 : 0));
    else uv.setX(i, uv.getX(i) / 2 + (eye === 1 ? 0 : 0.5));
  }
  uv.needsUpdate = true;
}

/** Moves the sphere to where the depth picture says: white near, black far, 1 / distance in between (as depth networks answer). */
function pushByDepth(geometry, depth) {
  const size = { width: 193, height: 97 };
  const canvas = Object.assign(document.createElement("canvas"), size);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(depth, 0, 0, size.width, size.height);
  const shades = context.getImageData(0, 0, size.width, size.height).data;
  const { position, uv } = geometry.attributes;
  const moved = new Float32Array(position.count * 3);
  for (let i = 0; i < position.count; i++) {
    const column = Math.round(uv.getX(i) * (size.width - 1));
    const row = Math.round((1 - uv.getY(i)) * (size.height - 1));
    const near = ringShade(shades, size.width, row, column) / 255;
    const metres = 1 / (near / NEAR + (1 - near) / FAR);
    moved[3 * i] = (position.getX(i) / RADIUS) * metres;
    moved[3 * i + 1] = (position.getY(i) / RADIUS) * metres;
    moved[3 * i + 2] = (position.getZ(i) / RADIUS) * metres;
  }
  geometry.setAttribute("position", new BufferAttribute(moved, 3));
}

/** The first and last columns are one place, and so is a whole row at a pole: their means close the surface. */
function ringShade(shades, width, row, column) {
  const at = (x) => shades[4 * (row * width + x)];
  if (row === 0 || row === 96) {
    let sum = 0;
    for (let x = 0; x < width; x++) sum += at(x);
    return sum / width;
  }
  return column === 0 || column === width - 1 ? (at(0) + at(width - 1)) / 2 : at(column);
}
