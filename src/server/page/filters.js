// The panel of filters: what the library can be filtered by, and what is chosen.

import * as api from "./api.js";
import { filterCount, query } from "./query.js";

const $ = (id) => document.getElementById(id);
const FIELDS = ["after", "before", "camera", "folder", "format", "place", "radius"];
const PLACE = /^\s*-?\d+(\.\d+)?\s*,\s*-?\d+(\.\d+)?\s*$/;

export class Filters {
  constructor(changed) {
    this.changed = changed;
    for (const name of FIELDS) {
      $(name).addEventListener($(name).type === "text" ? "input" : "change", () => this.read());
    }
    $("clear").onclick = () => this.clear();
    $("filters-open").onclick = () => this.toggle();
  }

  toggle(open = $("filters").hidden) {
    $("filters").hidden = !open;
    $("filters-open").setAttribute("aria-expanded", open);
    if (open) $("after").focus();
  }

  read() {
    const place = $("place");
    const wrong = place.value.trim() !== "" && !PLACE.test(place.value);
    place.setCustomValidity(wrong ? "Latitude, longitude: 48.85, 2.35" : "");
    place.setAttribute("aria-invalid", wrong);
    const filters = {};
    for (const name of FIELDS) filters[name] = $(name).value.trim();
    if (wrong) filters.place = "";
    if (!(Number(filters.radius) > 0)) filters.radius = "10";
    query.filters = filters;
    this.count();
    this.changed();
  }

  // Sets some fields, as if the person had.
  set(values) {
    for (const [name, value] of Object.entries(values)) $(name).value = value;
    this.read();
  }

  clear() {
    for (const name of FIELDS) $(name).value = name === "radius" ? "10" : "";
    $("score").value = 0;
    $("distinct").checked = query.distinct = false;
    this.read();
  }

  count() {
    const count = filterCount();
    $("filters-count").hidden = count === 0;
    $("filters-count").textContent = count;
  }

  // Offers what this library has.
  async offer(library) {
    let found;
    try {
      found = await api.facets(library);
    } catch {
      return;
    }
    const fill = (name, first, counts, label = (text) => text) => {
      const chosen = $(name).value;
      const options = counts.map((count) => new Option(`${label(count.name)} (${count.photos.toLocaleString()})`, count.name));
      $(name).replaceChildren(new Option(first, ""), ...options);
      $(name).value = counts.some((count) => count.name === chosen) ? chosen : "";
    };
    fill("camera", "Any", found.cameras);
    fill("format", "Any", found.formats, (text) => text.toUpperCase());
    fill("folder", "All", found.folders, indented(found.folders.map((folder) => folder.name)));
    const [first, last] = [found.months.at(0)?.name, found.months.at(-1)?.name];
    for (const name of ["after", "before"]) {
      if (first) $(name).title = `Photos are from ${first} to ${last}`;
    }
    $("place").closest("label").hidden = $("radius").closest("label").hidden = found.placed === 0;
  }
}

// A folder by its own name, set in as deep as it lies below another that is offered.
function indented(paths) {
  const known = new Set(paths);
  return (path) => {
    let depth = 0;
    let parent = path;
    for (let cut = path.lastIndexOf("/"); cut > 0; cut = parent.lastIndexOf("/")) {
      parent = parent.slice(0, cut);
      if (known.has(parent)) depth += 1;
    }
    return depth ? "\u2003".repeat(depth) + path.slice(path.lastIndexOf("/") + 1) : path;
  };
}
