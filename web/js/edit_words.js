// How an edit's numbers are written: dollars, seconds, a day.

// "0.1200" as "$0.12", "0.0425" as "$0.0425".
export function dollarsOf(amount) {
  const exact = Number(Number(amount).toFixed(4));
  return `$${Number.isInteger(Math.round(exact * 1e4) / 100) ? exact.toFixed(2) : exact}`;
}

// 9.2 as "9 s", 75 as "1:15", 7300 as "2:01 h".
export function secondsOf(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const pair = (more, less) => `${more}:${String(less).padStart(2, "0")}`;
  if (whole < 3600) return pair(Math.floor(whole / 60), whole % 60);
  return `${pair(Math.floor(whole / 3600), Math.floor((whole % 3600) / 60))} h`;
}

export function dayOf(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}
