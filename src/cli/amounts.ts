const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** A size as PostgreSQL writes it: `16 MB`. */
export function showBytes(bytes: number): string {
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${bytes < 0 ? "-" : ""}${Number(value.toFixed(digits))} ${UNITS[unit]}`;
}

const SPANS = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]] as const;

/** A span of time by its two largest units: `3 d 4 h`. */
export function showSeconds(seconds: number): string {
  if (seconds < 1) return "less than 1 s";
  const first = SPANS.findIndex(([, length]) => seconds >= length);
  let rest = seconds;
  const parts: string[] = [];
  for (const [unit, length] of SPANS.slice(first, first + 2)) {
    const count = Math.floor(rest / length);
    rest -= count * length;
    if (count > 0) parts.push(`${count.toLocaleString("en")} ${unit}`);
  }
  return parts.join(" ");
}
