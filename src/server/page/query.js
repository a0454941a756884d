// The query: words, pictures with signs and weights, filters; and its form for the server.

const WEIGHTS = [0.25, 0.5, 1, 2, 4];

export const query = { words: "", parts: [], filters: {}, distinct: false, by: "", library: null };

let next = 0;

// A photo of the library.
export function addPhoto(id, preview, sign = 1) {
  if (!query.parts.some((part) => part.id === id && part.sign === sign)) {
    query.parts.push({ handle: ++next, id, preview, sign, weight: 1, label: `photo ${id}` });
  }
}

// A picture that the person brought, as a data: address.
export function addPicture(data, label) {
  query.parts.push({ handle: ++next, image: data, preview: data, sign: 1, weight: 1, label });
}

export function remove(handle) {
  query.parts = query.parts.filter((part) => part.handle !== handle);
}

export function turn(handle) {
  for (const part of query.parts) if (part.handle === handle) part.sign = -part.sign;
}

export function reweigh(handle) {
  for (const part of query.parts) {
    if (part.handle === handle) part.weight = WEIGHTS[(WEIGHTS.indexOf(part.weight) + 1) % WEIGHTS.length];
  }
}

const quoted = (text) => `"${text.replace(/[\\"]/g, "\\$&")}"`;

function dayAfter(day) {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + 1);
  return date.toISOString().slice(0, 10);
}

// Filters as people could have written them.
export function filterText({ after, before, camera, folder, format, place, radius } = query.filters) {
  const parts = [];
  if (after) parts.push(`after:${after}`);
  if (before) parts.push(`before:${dayAfter(before)}`);
  if (camera) parts.push(`camera:${quoted(camera)}`);
  if (folder) parts.push(`in:${quoted(folder)}`);
  if (format) parts.push(`type:${format}`);
  if (place) parts.push(`near:${place.replace(/\s+/g, "")}~${radius || 10}km`);
  return parts.join(" ");
}

export const filterCount = () =>
  ["after", "before", "camera", "folder", "format", "place"].filter((name) => query.filters[name]).length;

export function isEmpty() {
  return !query.words.trim() && query.parts.length === 0;
}

// The body of a request. Quotes that are still being typed are closed.
export function request(limit) {
  let words = query.words.trim();
  if ((words.match(/(?<!\\)"/g) || []).length % 2) words += '"';
  const body = { q: `${words} ${filterText()}`.trim(), limit };
  if (query.library) body.library = query.library;
  if (query.by) body.by = query.by;
  if (query.distinct) body.deduplicate = true;
  if (query.parts.length) {
    body.parts = query.parts.map(({ id, image, sign, weight }) =>
      id === undefined ? { image, weight: sign * weight } : { id, weight: sign * weight });
  }
  return body;
}
