// "In your room": makes a transparent picture from the prompt and lets it stand where the user taps.
import { html, useEffect, useRef, useSignal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { api } from "../core/api.js";
import { onEvent, submit } from "../core/server.js";
import { Button } from "../components/basics.js";

/** The picture of a job as soon as there is one; throws with the server's sentence where it failed. */
async function made(request) {
  let end;
  const early = [];
  const listen = onEvent((name, data) => early.push([name, data]));
  try {
    const job = await submit(request);
    const id = await new Promise((done, failed) => {
      const look = (name, data) => {
        if (data.job !== job.id) return;
        if (name === "picture") done(data.id);
        if (["failed", "lost", "cancelled"].includes(name)) failed(new Error(data.error || t("job.failed")));
      };
      early.forEach(([name, data]) => look(name, data));
      end = onEvent(look);
    });
    return createImageBitmap(await api(`v1/gallery/${id}/file`, { raw: true }));
  } finally {
    listen();
    end?.();
  }
}

/** @param {() => object} request the settings of the picture; `before` is called first (a phone's camera can be used once only) */
export function InYourRoom({ request, before }) {
  const possible = useSignal(null), state = useSignal(null), count = useSignal(0), fault = useSignal(null);
  const overlay = useRef(), placing = useRef(null);
  useEffect(() => {
    import("./place.js").then(({ canPlace }) => canPlace()).then((can) => { possible.value = can; }, () => { possible.value = false; });
    return () => placing.current?.end();
  }, []);
  const begin = async () => {
    fault.value = null;
    before();
    try {
      const { startPlacing } = await import("./place.js");
      placing.current = await startPlacing({
        overlay: overlay.current,
        placed: (n) => { count.value = n; },
        ended: () => { placing.current = null; state.value = null; count.value = 0; },
      });
    } catch {
      fault.value = t("live.ar.failed");
      return;
    }
    state.value = "making";
    try {
      placing.current?.show(await made(request()));
      if (state.peek()) state.value = "ready";
    } catch (error) {
      fault.value = error.message;
      placing.current?.end();
    }
  };
  const why = isSecureContext ? t("live.ar.none") : t("live.ar.insecure");
  const said = { making: t("live.ar.making"), ready: count.value ? t("live.ar.placed", { n: count.value }) : t("live.ar.tap") }[state.value];
  return html`<section class="live-room" aria-label=${t("live.ar")}>
    <div class="live-room-start">
      <${Button} icon="move" onClick=${begin} disabled=${!possible.value}>${t("live.ar")}<//>
      <p class="help">${possible.value === false ? why : t("live.ar.help")}</p>
    </div>
    ${fault.value && html`<p class="fault" role="alert">${fault.value}</p>`}
    <div ref=${overlay} class="live-overlay" hidden=${!state.value}>
      <p role="status">${said}</p>
      <div><button type="button" class="button" disabled=${!count.value} onClick=${() => placing.current?.remove()}>${t("live.ar.remove")}</button>
        <button type="button" class="button" onClick=${() => placing.current?.end()}>${t("live.ar.leave")}</button></div>
    </div>
  </section>`;
}
