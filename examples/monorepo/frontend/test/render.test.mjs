import assert from "node:assert/strict";
import test from "node:test";

import { render } from "../src/render.mjs";

const now = new Date("2026-05-01T12:00:00Z");

test("shows a row for each deployment", () => {
  const html = render(
    [
      { service: "api", version: "2.0", at: "2026-05-01T10:00:00Z" },
      { service: "web", version: "1.4", at: "2026-04-30T11:00:00Z" },
    ],
    now,
  );
  assert.equal(
    html,
    "<tr><td>api</td><td>2.0</td><td>2 hours ago</td></tr>\n" +
      "<tr><td>web</td><td>1.4</td><td>1 day ago</td></tr>",
  );
});

test("escapes what others wrote", () => {
  const html = render([{ service: "<script>", version: "'&\"", at: now }], now);
  assert.match(html, /&lt;script&gt;/);
  assert.match(html, /&#39;&amp;&quot;/);
});

test("says when there is nothing", () => {
  assert.match(render([], now), /Nothing is deployed/);
});
