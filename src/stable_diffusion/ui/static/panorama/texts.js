/** The words of the viewer: English and Chinese with the same keys. */
export const VIEWER_TEXTS = {
  en: {
    picture: "Panorama. Drag or use the arrow keys to look around, plus and minus to zoom, Home to look ahead.",
    controls: "Viewer controls",
    "zoom-in": "Zoom in (+)",
    "zoom-out": "Zoom out (-)",
    ahead: "Look ahead (Home)",
    motion: "Look around by moving the device (G)",
    pair: "Side by side, for a phone in a headset (S)",
    fullscreen: "Full screen (F)",
    vr: "Enter VR (V)",
    "leave-vr": "Leave VR (V)",
    "no-motion": "This device has no motion sensor, or it was not allowed.",
    "no-vr": "The VR session could not be started.",
    insecure: "Motion and VR need a secure address: https, or 127.0.0.1.",
    "no-webgl": "This browser has no WebGL, so the picture is shown flat.",
    broken: "The picture could not be read.",
    "broken-depth": "The depth picture could not be read; both eyes see the same picture.",
  },
  zh: {
    picture: "全景图。拖动或按方向键环顾四周，加号和减号缩放，Home 键回到正前方。",
    controls: "查看器控件",
    "zoom-in": "放大 (+)",
    "zoom-out": "缩小 (-)",
    ahead: "看正前方 (Home)",
    motion: "移动设备来环顾四周 (G)",
    pair: "左右并排，用于手机头显 (S)",
    fullscreen: "全屏 (F)",
    vr: "进入 VR (V)",
    "leave-vr": "退出 VR (V)",
    "no-motion": "此设备没有运动传感器，或未获允许。",
    "no-vr": "无法启动 VR 会话。",
    insecure: "运动感应和 VR 需要安全的地址：https 或 127.0.0.1。",
    "no-webgl": "此浏览器没有 WebGL，图片以平面显示。",
    broken: "无法读取图片。",
    "broken-depth": "无法读取深度图；两眼看到同一张图片。",
  },
};

/** The texts of a language tag such as "zh-CN"; English for one that is not there. */
export function viewerTexts(language) {
  const short = String(language || "").toLowerCase().split("-")[0];
  return VIEWER_TEXTS[short] || VIEWER_TEXTS.en;
}
