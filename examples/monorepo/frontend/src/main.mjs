import { render } from "./render.mjs";

const answer = await fetch("/api/deployments");
document.querySelector("tbody").innerHTML = render(await answer.json(), new Date());
