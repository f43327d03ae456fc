// Where the server wants a token: asked for once, kept by the server in a cookie that scripts cannot read.
import { html, useSignal } from "../vendor/preact.js";
import { t } from "../core/i18n.js";
import { post, locked } from "../core/api.js";
import { Dialog } from "./basics.js";

export default function Login() {
  const fault = useSignal(""), token = useSignal("");
  const send = async (event) => {
    event.preventDefault();
    try {
      await post("v1/session", { token: token.value });
      locked.value = false;
    } catch (error) {
      fault.value = error.message;
      locked.value = true;
    }
  };
  return html`<${Dialog} title=${t("login")} onClose=${() => {}}>
    <form onSubmit=${send}><p>${t("login.help")}</p>
      <label class="field"><span>${t("login.token")}</span><input type="password" autocomplete="current-password" value=${token.value} onInput=${(event) => { token.value = event.target.value; }} /></label>
      ${fault.value && html`<p class="fault" role="alert">${fault.value}</p>`}
      <footer><button class="button primary">${t("login.go")}</button></footer></form><//>`;
}
