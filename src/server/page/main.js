// The page: what a person does becomes a query, and the answer a grid of photos.

import * as api from "./api.js";
import { Detail } from "./detail.js";
import { Filters } from "./filters.js";
import { Grid } from "./grid.js";
import * as Q from "./query.js";

const $ = (id) => document.getElementById(id);
const { query } = Q;

// Results of the first answer while typing, and how many of the true best are enough of them; all follow when the hands rest.
const FIRST = 300;
const QUICK = 0.95;
const DISTINCT = 1000;
const TYPING = 140;
const RESTING = 350;
// What is known of photos that were on screen.
const REMEMBERED = 5000;

const state = { found: null, shown: 0, most: 100000, libraries: [], facts: new Map(), asked: 0 };

// ---- asking ----

let typing, resting, running;

function changed(wait = 0) {
  clearTimeout(typing);
  typing = setTimeout(ask, wait);
}

async function ask() {
  clearTimeout(resting);
  running?.abort();
  running = new AbortController();
  const number = ++state.asked;
  document.body.setAttribute("aria-busy", "true");
  remember();
  try {
    const first = query.distinct ? Q.request(DISTINCT) : { ...Q.request(FIRST), recall: QUICK };
    const found = await api.rank(first, running.signal);
    if (number !== state.asked) return;
    $("mistake").textContent = "";
    take(found);
    if (!query.distinct && found.more) resting = setTimeout(() => askAll(number, running.signal), RESTING);
  } catch (mistake) {
    if (mistake.name !== "AbortError" && number === state.asked) tellMistake(mistake);
  } finally {
    if (number === state.asked) document.body.removeAttribute("aria-busy");
  }
}

async function askAll(number, signal) {
  try {
    const found = await api.rank(Q.request(state.most), signal);
    if (number === state.asked) take(found, state.found);
  } catch (mistake) {
    if (mistake.name !== "AbortError" && number === state.asked) tellMistake(mistake);
  }
}

function tellMistake(mistake) {
  const unreachable = mistake instanceof TypeError;
  $("mistake").textContent = unreachable ? "The server does not answer. Is it still running?" : mistake.message;
}

// What goes on from what was found before leaves one where one is.
function take(found, before) {
  state.found = found;
  scale();
  show(before && ((index) => before.ids[index] !== found.ids[index]));
}

// The slider of scores spans what was found.
function scale() {
  const { scores } = state.found;
  $("score").disabled = scores.length === 0;
}

function threshold() {
  const { scores } = state.found;
  const part = Number($("score").value) / 1000;
  if (!scores.length || part === 0) return -Infinity;
  return scores.at(-1) + (scores[0] - scores.at(-1)) * part;
}

function show(changed) {
  const { ids, scores, shapes, took, model, scored, more } = state.found;
  const least = threshold();
  let count = ids.length;
  if (least > -Infinity) {
    // Scores fall: a binary search for the first below the threshold.
    let low = 0, high = scores.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (scores[middle] >= least) low = middle + 1;
      else high = middle;
    }
    count = low;
  }
  state.shown = count;
  $("score-value").textContent = least > -Infinity ? least.toFixed(3) : "any";
  grid.show(count, shapes, changed);
  const photos = count === 1 ? "1 photo" : `${count.toLocaleString()} photos`;
  const partly = more && count === ids.length;
  $("status").textContent = count === 0 ? "" : scored
    ? `${partly ? "the best " : ""}${photos}, scores ${scores[0].toFixed(3)} to ${scores[count - 1].toFixed(3)} · ${model} · ${took.toFixed(0)} ms`
    : partly ? `the newest ${photos}` : `${photos}, newest first`;
  $("empty").hidden = count > 0;
  if (count === 0) {
    const bold = document.createElement("b");
    const bare = Q.isEmpty() && Q.filterCount() === 0;
    bold.textContent = bare ? "This library is empty." : "Nothing fits.";
    $("empty").replaceChildren(bold, bare ? "tintype index FOLDER takes photos into it." : "Fewer filters, or other words, may find more.");
  }
  $("json").disabled = $("csv").disabled = count === 0;
}

// ---- the grid ----

function make() {
  const cell = document.createElement("div");
  cell.className = "cell";
  cell.setAttribute("role", "listitem");
  const open = document.createElement("button");
  open.type = "button";
  const image = document.createElement("img");
  image.alt = "";
  image.decoding = "async";
  image.draggable = false;
  image.onload = () => cell.classList.add("ready");
  image.onerror = () => image.hasAttribute("src") && cell.classList.add("gone");
  open.append(image);
  open.onclick = () => {
    grid.cursor = cell.index;
    detail.open(cell.index);
  };
  const over = document.createElement("div");
  over.className = "over";
  const label = document.createElement("span");
  over.append(label);
  for (const [sign, name, does] of [["≈", "More like this", "like"], ["+", "Add to the query", "plus"], ["−", "Take away from the query", "minus"]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1;
    button.textContent = sign;
    button.title = name;
    button.setAttribute("aria-label", name);
    button.onclick = () => act(does, { index: cell.index, id: state.found.ids[cell.index] });
    over.append(button);
  }
  cell.append(open, over);
  return Object.assign(cell, { image, open, label });
}

function fill(cell, index) {
  const id = state.found.ids[index];
  const wide = (state.found.shapes[index] || 133) / 100;
  const longer = grid.height * Math.max(1, Math.min(3, wide)) * Math.min(2, window.devicePixelRatio);
  cell.image.src = api.thumbnail(query.library, id, longer > 330 ? 640 : longer > 165 ? 320 : 160);
  describe(cell, index);
}

function describe(cell, index) {
  const id = state.found.ids[index];
  const facts = state.facts.get(id);
  const name = facts?.name ?? "";
  // Rows of embeddings may have no picture at all, and then are what is said of them.
  if (facts && !facts.format) cell.dataset.says = facts.caption || name;
  else delete cell.dataset.says;
  const score = state.found.scores[index];
  cell.label.textContent = `${score === undefined ? "" : `${score.toFixed(3)} `}${name}`;
  cell.open.setAttribute("aria-label", `Result ${index + 1}${name ? `, ${name}` : ""}${score === undefined ? "" : `, score ${score.toFixed(3)}`}`);
}

function clear(cell) {
  cell.image.removeAttribute("src");
  cell.classList.remove("ready", "gone");
}

async function settled(first, last) {
  const found = state.found;
  if (!found) return;
  const ids = [];
  for (let index = first; index < Math.min(last, first + 500); index++) {
    if (!state.facts.has(found.ids[index])) ids.push(found.ids[index]);
  }
  if (ids.length) {
    try {
      for (const item of await api.items(query.library, ids)) state.facts.set(item.id, item);
    } catch {
      return;
    }
  }
  if (found !== state.found) return;
  for (const [index, cell] of grid.cells) describe(cell, index);
  if (state.facts.size > REMEMBERED) {
    for (const id of [...state.facts.keys()].slice(0, state.facts.size - REMEMBERED)) state.facts.delete(id);
  }
}

async function item(id) {
  if (!state.facts.has(id)) {
    const [known] = await api.items(query.library, [id]);
    if (known) state.facts.set(id, known);
    return known;
  }
  return state.facts.get(id);
}

const grid = new Grid($("results"), $("sheet"), { make, fill, clear, settled });
const detail = new Detail({
  known: (index) => ({ id: state.found.ids[index], score: state.found.scores[index] }),
  item,
  act,
  library: () => query.library,
  count: () => state.shown,
});
const filters = new Filters(() => changed(TYPING));

function act(name, { index, id, facts }) {
  const preview = () => api.thumbnail(query.library, id, 160);
  switch (name) {
    case "like":
      query.words = $("words").value = "";
      query.parts = [];
      Q.addPhoto(id, preview());
      break;
    case "plus": Q.addPhoto(id, preview()); break;
    case "minus": Q.addPhoto(id, preview(), -1); break;
    case "near":
      filters.set({ place: `${facts.latitude.toFixed(5)}, ${facts.longitude.toFixed(5)}` });
      return;
    case "day": {
      const day = (facts.taken || facts.modified).slice(0, 10);
      filters.set({ after: day, before: day });
      return;
    }
    case "closed":
      if (state.shown) grid.focus(Math.min(index, state.shown - 1));
      return;
  }
  drawParts();
  changed();
}

// ---- the query ----

function drawParts() {
  $("parts").replaceChildren(...query.parts.map((part) => {
    const entry = document.createElement("li");
    entry.classList.toggle("minus", part.sign < 0);
    const image = document.createElement("img");
    image.alt = part.label;
    image.src = part.preview;
    const button = (text, title, does) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = text;
      made.title = title;
      made.setAttribute("aria-label", `${text} ${title}: ${part.label}`);
      made.onclick = () => {
        does(part.handle);
        drawParts();
        changed();
        ($("parts").children[query.parts.indexOf(part)]?.querySelector(`[title="${title}"]`) || $("words")).focus();
      };
      return made;
    };
    entry.append(
      button(part.sign > 0 ? "+" : "−", "Turn the sign", Q.turn), image,
      button(`×${part.weight}`, "Change the weight", Q.reweigh), button("✕", "Remove", Q.remove),
    );
    return entry;
  }));
  $("words").placeholder = query.parts.length ? "and words" : "A dog on the beach, or drop a picture here";
}

// Pictures travel no larger than models look at them, unless they are small files anyway.
async function bring(files) {
  for (const file of files) {
    if (file.size === 0) continue;
    try {
      Q.addPicture(await dataAddress(file), file.name || "pasted picture");
    } catch {
      $("mistake").textContent = `${file.name} is no picture that can be read here.`;
    }
  }
  drawParts();
  changed();
}

async function dataAddress(file) {
  let blob = file;
  if (file.size > 2_000_000) {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, 1024 / Math.max(bitmap.width, bitmap.height));
    const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  }
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = reject;
    reader.readAsDataURL(blob);
  });
}

$("words").addEventListener("input", () => {
  query.words = $("words").value;
  changed(TYPING);
});
$("words").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && state.shown) {
    event.preventDefault();
    grid.focus(grid.cursor);
  } else if (event.key === "Backspace" && !$("words").value && query.parts.length) {
    query.parts.pop();
    drawParts();
    changed();
  }
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  changed();
});
$("choose").onclick = () => $("file").click();
$("file").onchange = () => bring($("file").files).then(() => ($("file").value = ""));

document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
  if (files.length) {
    event.preventDefault();
    bring(files);
  }
});
let dragged = 0;
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => hasFiles(event) && ($("drop").hidden = !++dragged));
document.addEventListener("dragleave", (event) => hasFiles(event) && ($("drop").hidden = !(dragged = Math.max(0, dragged - 1))));
document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  dragged = 0;
  $("drop").hidden = true;
  bring([...event.dataTransfer.files]);
});

// ---- the rest of the page ----

$("score").oninput = () => state.found && show(() => false);
$("distinct").onchange = () => {
  query.distinct = $("distinct").checked;
  changed();
};
$("by").onchange = () => {
  query.by = $("by").value;
  changed();
};
$("tile").oninput = () => {
  grid.resize(Number($("tile").value));
  localStorage.setItem("tile", $("tile").value);
};
$("look").onchange = () => {
  document.documentElement.dataset.look = $("look").value;
  localStorage.setItem("look", $("look").value);
};
$("library").onchange = () => {
  query.library = $("library").value;
  query.parts = query.parts.filter((part) => part.image);
  state.facts.clear();
  drawParts();
  offerRankings();
  filters.clear();
  filters.offer(query.library);
};
$("help-open").onclick = () => $("help").showModal();
$("help-close").onclick = () => $("help").close();
for (const format of ["json", "csv"]) {
  $(format).onclick = async () => {
    const body = { ...Q.request(state.shown), format };
    const least = threshold();
    if (least > -Infinity) body.min_score = least;
    try {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await api.table(body));
      link.download = `photos.${format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (mistake) {
      tellMistake(mistake);
    }
  };
}

$("results").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !state.shown || !event.target.closest(".cell")) return;
  const does = { m: "like", "+": "plus", "-": "minus", "−": "minus" }[event.key];
  if (does) {
    event.preventDefault();
    act(does, { index: grid.cursor, id: state.found.ids[grid.cursor] });
    return;
  }
  const target = grid.target(event.key);
  if (target !== undefined) {
    event.preventDefault();
    if (event.key === "ArrowUp" && target < 0) $("words").focus();
    else grid.focus(target);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const writing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (!$("filters").hidden && $("filters").contains(event.target)) {
      filters.toggle(false);
      $("filters-open").focus();
    } else {
      $("words").focus();
      $("words").select();
    }
  } else if (!writing && event.key === "/") {
    event.preventDefault();
    $("words").focus();
    $("words").select();
  } else if (!writing && event.key === "f") {
    event.preventDefault();
    filters.toggle();
  } else if (!writing && event.key === "?") {
    $("help").showModal();
  }
});

// Captions can be ranked by where there are any.
function offerRankings() {
  const library = state.libraries.find(({ name }) => name === query.library);
  const captions = (library?.caption_vectors ?? 0) > 0;
  $("by").closest("label").hidden = !(captions || library?.sources);
  $("by").querySelector("[value=caption]").disabled = !captions;
  if (query.by === "caption" && !captions) query.by = $("by").value = "";
}

// The address line holds the words, so that a search can be kept as a bookmark and Back leads back.
function remember() {
  const params = new URLSearchParams();
  if (query.words) params.set("q", query.words);
  if (query.library && $("library").selectedIndex > 0) params.set("library", query.library);
  const address = params.size ? `/?${params}` : "/";
  if (address !== location.pathname + location.search) history.replaceState(null, "", address);
}

async function begin() {
  const params = new URLSearchParams(location.search);
  query.words = $("words").value = params.get("q") || "";
  $("look").value = document.documentElement.dataset.look = localStorage.getItem("look") || "";
  $("tile").value = localStorage.getItem("tile") || (window.innerWidth < 700 ? 120 : 200);
  grid.height = Number($("tile").value);
  try {
    const about = await api.status();
    state.most = about.max_results;
    state.libraries = about.libraries;
    const names = about.libraries.map((library) => library.name);
    $("library").replaceChildren(...about.libraries.map(({ name, photos }) => new Option(`${name} (${photos.toLocaleString()})`, name)));
    query.library = names.includes(params.get("library")) ? params.get("library") : names[0];
    $("library").value = query.library;
    $("library").hidden = names.length < 2;
  } catch (mistake) {
    tellMistake(mistake);
  }
  offerRankings();
  filters.offer(query.library);
  ask();
  if (window.matchMedia("(hover: hover)").matches) $("words").focus();
}

begin();
