// A small line chart over the last minutes; points are [seconds, value or null].

const SPAN_S = 300;

export function drawChart(canvas, lines, nowS) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const draw = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  draw.setTransform(scale, 0, 0, scale, 0, 0);
  draw.clearRect(0, 0, width, height);
  draw.font = "11px system-ui, sans-serif";

  const points = lines.flatMap((line) => line.points.filter((p) => p[1] !== null));
  const first = points.reduce((least, p) => Math.min(least, p[0]), nowS);
  const spanS = Math.min(SPAN_S, Math.max(30, nowS - first));
  const top = nice(points.reduce((most, p) => Math.max(most, p[1]), 0));
  const left = 40;
  const bottom = height - 18;
  const x = (atS) => left + (1 - (nowS - atS) / spanS) * (width - left - 6);
  const y = (value) => bottom - (value / top) * (bottom - 8);

  draw.fillStyle = color("--soft");
  draw.strokeStyle = color("--line");
  draw.lineWidth = 1;
  draw.textBaseline = "middle";
  draw.textAlign = "right";
  for (const part of points.length ? [0, 0.5, 1] : [0]) {
    const at = Math.round(y(top * part)) + 0.5;
    draw.beginPath();
    draw.moveTo(left, at);
    draw.lineTo(width - 6, at);
    draw.stroke();
    draw.fillText(label(top * part), left - 6, at);
  }
  draw.textBaseline = "alphabetic";
  draw.textAlign = "left";
  draw.fillText(spanS >= 90 ? `${Math.round(spanS / 60)} min ago` : `${Math.round(spanS)} s ago`, left, height - 3);
  draw.textAlign = "right";
  draw.fillText("now", width - 6, height - 3);
  if (!points.length) {
    draw.textAlign = "center";
    draw.fillText("nothing to show yet", (width + left) / 2, height / 2);
    return;
  }
  for (const line of lines) {
    draw.strokeStyle = color(line.color);
    draw.lineWidth = line.width ?? 1.75;
    draw.lineJoin = "round";
    draw.beginPath();
    let before = null;
    for (const [atS, value] of line.points) {
      if (value === null || atS < nowS - spanS) continue;
      if (before === null || atS - before > 10) draw.moveTo(x(atS), y(value));
      else draw.lineTo(x(atS), y(value));
      before = atS;
    }
    draw.stroke();
  }
}

function nice(value) {
  if (!(value > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * step).find((n) => n >= value) ?? value;
}

function label(value) {
  if (value >= 10000) return `${value / 1000}k`;
  return String(Math.round(value * 1000) / 1000);
}
