// Ids of a mask, one byte per pixel, from base64 runs: an id in one byte, then a length in base 128.
function decodeRuns(text, size) {
  const bytes = atob(text);
  const ids = new Uint8Array(size);
  let place = 0;
  for (let at = 0; at < bytes.length; ) {
    const id = bytes.charCodeAt(at++);
    let length = 0;
    let shift = 0;
    let byte;
    do {
      byte = bytes.charCodeAt(at++);
      length |= (byte & 127) << shift;
      shift += 7;
    } while (byte & 128);
    ids.fill(id, place, place + length);
    place += length;
  }
  return ids;
}

const VOID = 255;

// Whether a pixel's right or lower neighbour, or the one before it, has another id.
function onEdge(ids, at, width) {
  const id = ids[at];
  return (at % width > 0 && ids[at - 1] !== id) || (at >= width && ids[at - width] !== id)
    || (at % width < width - 1 && ids[at + 1] !== id)
    || (at + width < ids.length && ids[at + width] !== id);
}

function mix(pixels, at, colour, opacity) {
  for (let channel = 0; channel < 3; channel++) {
    const place = 4 * at + channel;
    pixels[place] = (1 - opacity) * pixels[place] + opacity * colour[channel];
  }
}

// Tints every object in its own colour, opaque along its outline.
function paintObjects(pixels, ids, width, colours) {
  for (let at = 0; at < ids.length; at++) {
    const id = ids[at];
    if (id === 0 || id === VOID) continue;
    mix(pixels, at, colours[(id - 1) % colours.length], onEdge(ids, at, width) ? 1 : 0.45);
  }
}

const BOTH = [255, 255, 255];
const TRUTH = [255, 214, 0];

// Tints what only the first mask holds, only the second, and both; outlines the ground truth.
function paintPair(pixels, first, second, truth, width, colours) {
  const inside = (ids, at) => ids !== null && ids[at] !== 0 && ids[at] !== VOID;
  for (let at = 0; at < pixels.length / 4; at++) {
    const a = inside(first, at);
    const b = inside(second, at);
    if (a && b) mix(pixels, at, BOTH, 0.45);
    else if (a) mix(pixels, at, colours[0], 0.7);
    else if (b) mix(pixels, at, colours[1], 0.7);
    if (inside(truth, at) && onEdge(truth, at, width)) mix(pixels, at, TRUTH, 1);
  }
}

const SUBSTITUTES = ["#D36E00", "#006BBB"];

// The colour of the second of two overlaid methods: its own, or another one, unlike the first's,
// where both are of one kind of label regime and so of one hue.
function besides(first, second) {
  if (first.kind !== second.kind) return second.colour;
  const away = (colour) => Math.hypot(
    ...asRgb(colour).map((value, channel) => value - asRgb(first.colour)[channel]),
  );
  return SUBSTITUTES.reduce((best, other) => (away(other) > away(best) ? other : best));
}

// "#006BBB" as three numbers.
function asRgb(text) {
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}
