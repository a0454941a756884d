// One photo, large, with what is known of it.

import * as api from "./api.js";

const $ = (id) => document.getElementById(id);

function date(text) {
  // Times of cameras have no zone: they are shown as written.
  const time = new Date(`${text.slice(0, 19)}Z`);
  return Number.isNaN(time.valueOf()) ? text : time.toLocaleString(undefined, { dateStyle: "full", timeStyle: "short", timeZone: "UTC" });
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) (count /= 1000), (unit += 1);
  return `${unit && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

// `f/2.8, 1/250 s, ISO 400, 50 mm`: what is known of it.
function exposure({ aperture, exposure_time: time, iso, focal_length: focal }) {
  const short = (number) => Number(number.toFixed(number < 10 ? 1 : 0)).toString();
  return [
    aperture && `f/${short(aperture)}`,
    time && (time < 0.3 ? `1/${Math.round(1 / time)}\u00a0s` : `${short(time)}\u00a0s`),
    iso && `ISO\u00a0${iso}`,
    focal && `${short(focal)}\u00a0mm`,
  ].filter(Boolean).join(", ");
}

export class Detail {
  // known(index) gives { id, score } of a result; item(id) a promise of what is known; act(name, photo) does what is asked.
  constructor({ known, item, act, library, count }) {
    Object.assign(this, { known, item, act, library, count });
    this.dialog = $("detail");
    this.image = $("detail-image");
    $("detail-close").onclick = () => this.dialog.close();
    $("detail-before").onclick = () => this.show(this.index - 1);
    $("detail-after").onclick = () => this.show(this.index + 1);
    for (const name of ["like", "plus", "minus", "near", "day"]) $(`detail-${name}`).onclick = () => this.do(name);
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("close", () => {
      this.image.removeAttribute("src");
      this.act("closed", { index: this.index });
    });
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.image.onload = () => ($("detail-gone").hidden = true);
    this.image.onerror = () => ($("detail-gone").hidden = false);
  }

  open(index) {
    this.show(index);
    if (!this.dialog.open) this.dialog.showModal();
  }

  do(name) {
    if (name !== "plus" && name !== "minus") this.dialog.close();
    this.act(name, { index: this.index, id: this.id, facts: this.facts });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const does = {
      ArrowLeft: () => this.show(this.index - 1), ArrowRight: () => this.show(this.index + 1),
      m: () => this.do("like"), "+": () => this.do("plus"), "-": () => this.do("minus"), "−": () => this.do("minus"),
    }[event.key];
    if (does) {
      event.preventDefault();
      does();
    }
  }

  async show(index) {
    if (index < 0 || index >= this.count()) return;
    this.index = index;
    const { id, score } = this.known(index);
    this.id = id;
    this.facts = null;
    const large = Math.max(window.innerWidth, window.innerHeight) * window.devicePixelRatio > 1400 ? 2560 : 1280;
    this.image.src = api.thumbnail(this.library(), id, large);
    $("detail-original").href = api.image(this.library(), id);
    $("detail-before").disabled = index === 0;
    $("detail-after").disabled = index >= this.count() - 1;
    let item;
    try {
      item = await this.item(id);
    } catch (mistake) {
      item = { name: mistake.message };
    }
    if (this.id === id) this.tell(item || { name: "This photo has left the library." }, score, index);
  }

  tell(item, score, index) {
    this.facts = item;
    $("detail-name").textContent = item.name;
    this.image.alt = item.caption || item.name;
    $("detail-caption").textContent = item.caption || "";
    $("detail-gone").textContent = item.format === "" ? "The library has no picture of this." : "The file of this photo cannot be read now.";
    const facts = [
      ["Result", `${(index + 1).toLocaleString()} of ${this.count().toLocaleString()}${score === undefined ? "" : `, score ${score.toFixed(3)}`}`],
      ["Taken", item.taken && date(item.taken)],
      ["File from", !item.taken && item.modified && date(item.modified)],
      ["Camera", item.camera],
      ["Lens", item.lens],
      ["Exposure", exposure(item)],
      ["Place", item.latitude != null && `${item.latitude.toFixed(5)}, ${item.longitude.toFixed(5)}`],
      ["Picture", item.width > 0 && `${item.width} × ${item.height}${item.format ? `, ${item.format.toUpperCase()}` : ""}${item.size ? `, ${bytes(item.size)}` : ""}`],
      ["Path", item.path],
      ["Number", item.id],
      ...Object.entries(item.metadata || {}).filter(([, value]) => value !== null && value !== ""),
    ];
    $("detail-facts").replaceChildren(
      ...facts.filter(([, value]) => value || value === 0).flatMap(([name, value]) => {
        const [term, fact] = [document.createElement("dt"), document.createElement("dd")];
        term.textContent = name;
        fact.textContent = typeof value === "object" ? JSON.stringify(value) : value;
        return [term, fact];
      }),
    );
    // Of a picture of the web the library has a small copy at most.
    const source = [item.link, item.path].find((place) => /^https?:\/\//.test(place || ""));
    if (source) $("detail-original").href = source;
    $("detail-original").textContent = source ? "On the web ↗" : "Original file";
    const placed = item.latitude != null;
    $("detail-near").hidden = $("detail-map").hidden = !placed;
    $("detail-day").hidden = !(item.taken || item.modified);
    if (placed) {
      const { latitude, longitude } = item;
      $("detail-map").href = `https://www.openstreetmap.org/?mlat=${latitude}&mlon=${longitude}#map=15/${latitude}/${longitude}`;
    }
  }
}
