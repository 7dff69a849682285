// A method's score of every scored frame, in percent; null where it has none.
function scoresOf(method, metric) {
  if (metric !== "J&F") return method[metric].map((value) => (value === null ? null : value / 10));
  return method.J.map((value, at) => {
    const other = method.F[at];
    return value === null || other === null ? null : (value + other) / 20;
  });
}

const MARGIN = { left: 34, right: 8, top: 8, bottom: 30 };

// Draws the scores over all frames as SVG text: two chosen methods in full, the others faintly,
// and an upright line at the frame that is shown.
function curveSvg(clip, chosen, metric, frame, width, height) {
  const across = (index) =>
    MARGIN.left + (index / Math.max(1, clip.length - 1)) * (width - MARGIN.left - MARGIN.right);
  const up = (score) => height - MARGIN.bottom - (score / 100) * (height - MARGIN.top - MARGIN.bottom);
  const parts = [];
  for (const score of [0, 50, 100]) {
    const y = up(score).toFixed(1);
    parts.push(`<line class="grid" x1="${MARGIN.left}" x2="${width - MARGIN.right}" y1="${y}" y2="${y}"/>`);
    parts.push(`<text x="${MARGIN.left - 5}" y="${y}" dy=".35em" text-anchor="end">${score}</text>`);
  }
  const at = clip.scored.indexOf(frame);
  clip.methods.forEach((method, place) => {
    const order = chosen.indexOf(place);
    const scores = scoresOf(method, metric);
    let line = "";
    let pen = "M";
    scores.forEach((score, number) => {
      if (score === null) {
        pen = "M";
        return;
      }
      line += `${pen}${across(clip.scored[number]).toFixed(1)} ${up(score).toFixed(1)}`;
      pen = "L";
    });
    const kind = ["first", "second"][order] ?? "other";
    const path = `<path class="${kind}" stroke="${method.colour}" d="${line}"/>`;
    const dot = order >= 0 && at >= 0 && scores[at] !== null && scores[at] !== undefined
      ? `<path class="marker" fill="${method.colour}" d="${method.outline}" `
        + `transform="translate(${across(frame).toFixed(1)} ${up(scores[at]).toFixed(1)})"/>`
      : "";
    // Those that are compared lie on top.
    if (order < 0) parts.unshift(path);
    else parts.push(path, dot);
  });
  const x = across(frame).toFixed(1);
  parts.push(`<line class="now" x1="${x}" x2="${x}" y1="${MARGIN.top}" y2="${height - MARGIN.bottom}"/>`);
  const middle = (MARGIN.left + width - MARGIN.right) / 2;
  parts.push(`<text x="${middle}" y="${height - 6}" text-anchor="middle">frame</text>`);
  for (const index of [0, clip.length - 1]) {
    const anchor = index === 0 ? "start" : "end";
    parts.push(`<text x="${across(index)}" y="${height - 6}" text-anchor="${anchor}">${index}</text>`);
  }
  return `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" `
    + `aria-label="${metric.replace("&", "&amp;")} per frame">${parts.join("")}</svg>`;
}

// The frame index under a horizontal position in the curve.
function curveIndex(clip, x, width) {
  const share = (x - MARGIN.left) / (width - MARGIN.left - MARGIN.right);
  return Math.round(Math.min(1, Math.max(0, share)) * (clip.length - 1));
}
