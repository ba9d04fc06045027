// Puts the packages of package-lock.json into node_modules, unless they are there
// already, from a cache say. They all lie in this repository; with npm at hand,
// `npm ci` does the same.
import { copyFile, cp, readFile, rm } from "node:fs/promises";

const wanted = await readFile("package-lock.json", "utf8");
const installed = await readFile("node_modules/.installed-lock.json", "utf8").catch(() => "");
if (installed === wanted) {
  console.log("node_modules is what package-lock.json says");
  process.exit();
}

await rm("node_modules", { recursive: true, force: true });
for (const [target, entry] of Object.entries(JSON.parse(wanted).packages)) {
  if (!target.startsWith("node_modules/")) continue;
  if (!entry.resolved?.startsWith("file:")) {
    throw new Error(`package-lock.json: ${target} comes from ${entry.resolved}, expected file:`);
  }
  await cp(entry.resolved.slice("file:".length), target, { recursive: true });
  console.log(`installed ${target} ${entry.version}`);
}
await copyFile("package-lock.json", "node_modules/.installed-lock.json");
