const units = [
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];

// ago tells how long something is past, in its largest unit.
export function ago(then, now) {
  const seconds = (now - then) / 1000;
  for (const [name, size] of units) {
    const count = Math.floor(seconds / size);
    if (count >= 1) return `${count} ${name}${count > 1 ? "s" : ""} ago`;
  }
  return "just now";
}
