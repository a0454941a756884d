// What the server is asked, and how its mistakes are told.

export class Mistake extends Error {}

async function checked(response) {
  if (response.ok) return response;
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).message || message;
  } catch {
    // Not JSON: the status has to do.
  }
  throw new Mistake(message);
}

async function get(path) {
  return (await checked(await fetch(path))).json();
}

function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal }).then(checked);
}

function named(library, entries) {
  const params = new URLSearchParams(entries);
  if (library) params.set("library", library);
  return params;
}

export const status = () => get("/api/v1/status");
export const facets = (library) => get(`/api/v1/facets?${named(library, {})}`);
export const items = async (library, ids) =>
  (await get(`/api/v1/items?${named(library, { ids: ids.join(",") })}`)).items;
export const rank = async (body, signal) => (await post("/api/v1/rank", body, signal)).json();
export const table = async (body) => (await post("/api/v1/search", body)).blob();
export const thumbnail = (library, id, size) => `/api/v1/thumbnail?${named(library, { id, size })}`;
export const image = (library, id) => `/api/v1/image?${named(library, { id })}`;
