/** The page that holds nothing but the viewer: what it shows is in the data attributes of its one element. */
import { mountViewer } from "./viewer.js";

const element = document.getElementById("viewer");
const { picture, depth, stereo } = element.dataset;
document.documentElement.lang = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
// Tests and the console reach the viewer here.
globalThis.viewer = mountViewer(element, { url: picture, depth: depth || null, stereo: stereo || null });
