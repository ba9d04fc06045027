import assert from "node:assert/strict";
import { access, readFile } from "node:fs/promises";
import test from "node:test";

test("the built page refers only to files that are there", async () => {
  const page = await readFile("dist/index.html", "utf8");
  const { imports } = JSON.parse(page.match(/importmap">(.*)<\/script>/)[1]);
  const main = page.match(/src="(.*)"/)[1];
  assert.deepEqual(Object.keys(imports), ["ago", "escape", "render"]);
  for (const file of [...Object.values(imports), main]) await access(`dist/${file}`);
});
