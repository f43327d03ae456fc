// The page without its server: static files come from the network, and from what was kept where there is none.
const KEPT = "page-1";
const SHELL = ["./", "static/style.css", "static/parts.css", "static/boot.js", "static/app.js", "static/vendor/preact.js", "static/vendor/icons.svg", "static/i18n/en.json",
  "static/i18n/zh.json", "static/icons/icon.svg", "manifest.webmanifest"];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(SHELL)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(caches.keys().then((names) => Promise.all(names.filter((name) => name !== KEPT).map((name) => caches.delete(name)))).then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url), base = new URL("./", self.registration.scope).pathname;
  const ours = url.origin === location.origin && event.request.method === "GET" && (url.pathname === base || url.pathname.startsWith(`${base}static/`) || url.pathname.endsWith("manifest.webmanifest"));
  if (!ours) return;
  event.respondWith((async () => {
    const cache = await caches.open(KEPT);
    try {
      const answer = await fetch(event.request);
      if (answer.ok) await cache.put(event.request, answer.clone());
      return answer;
    } catch {
      return (await cache.match(event.request, { ignoreSearch: true })) || Response.error();
    }
  })());
});
