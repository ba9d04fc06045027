// Builds dist/: each module under a name made from its content, so that browsers
// may keep it for ever, and a page that knows these names.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";

async function publish(name, content) {
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 12);
  const path = `assets/${name}.${hash}.mjs`;
  await writeFile(`dist/${path}`, content);
  console.log(`dist/${path} ${content.length} bytes`);
  return `./${path}`;
}

await rm("dist", { recursive: true, force: true });
await mkdir("dist/assets", { recursive: true });

const imports = {};
for (const name of (await readdir("node_modules")).filter((n) => !n.startsWith("."))) {
  const { exports } = JSON.parse(await readFile(`node_modules/${name}/package.json`, "utf8"));
  imports[name] = await publish(name, await readFile(`node_modules/${name}/${exports}`, "utf8"));
}
imports.render = await publish("render", await readFile("src/render.mjs", "utf8"));
const source = await readFile("src/main.mjs", "utf8");
const main = await publish("main", source.replace('"./render.mjs"', '"render"'));

const page = await readFile("src/index.html", "utf8");
await writeFile(
  "dist/index.html",
  page.replace("IMPORTS", JSON.stringify({ imports })).replace("MAIN", main),
);
