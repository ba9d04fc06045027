const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

// escape makes any text harmless in HTML.
export function escape(text) {
  return String(text).replace(/[&<>"']/g, (c) => entities[c]);
}
