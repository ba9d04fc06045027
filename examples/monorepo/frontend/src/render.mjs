import { ago } from "ago";
import { escape } from "escape";

// render makes the rows of the table.
export function render(deployments, now) {
  if (deployments.length === 0) return '<tr><td colspan="3">Nothing is deployed</td></tr>';
  return deployments
    .map((d) => {
      const cells = [d.service, d.version, ago(new Date(d.at), now)];
      return `<tr>${cells.map((c) => `<td>${escape(c)}</td>`).join("")}</tr>`;
    })
    .join("\n");
}
