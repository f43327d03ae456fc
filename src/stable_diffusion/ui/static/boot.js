// Runs before the first paint: the chosen theme and language, so that nothing flashes.
(() => {
  const root = document.documentElement;
  let ui = {};
  try { ui = JSON.parse(localStorage.getItem("sd.ui") || "{}"); } catch { /* unreadable: defaults */ }
  if (ui.theme === "light" || ui.theme === "dark") root.dataset.theme = ui.theme;
  const lang = ui.lang || ((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en");
  root.lang = lang === "zh" ? "zh-CN" : "en";
  const link = document.createElement("link");
  Object.assign(link, { rel: "preload", as: "fetch", href: `static/i18n/${lang}.json`, crossOrigin: "anonymous" });
  document.head.append(link);
})();
