// The player of a sequence: two methods and the ground truth on its frames, with a slider, and the
// score of every frame below. Clips lie in the page or in files that are loaded when needed.
const CURVE_HEIGHT = 150;
const STEP_SECONDS = 0.25;

// What was chosen last; a sequence that is opened takes it over.
const latest = { first: null, second: null, view: "side", metric: "J&F" };

class Player {
  constructor(clip, host) {
    this.clip = clip;
    this.host = host;
    this.choice = { ...latest };
    this.place = 0;
    this.timer = null;
    this.masks = new Map();
    this.images = clip.frames.map((frame) => {
      if (frame.image === null) return null;
      const image = new Image();
      image.src = frame.image;
      return image;
    });
    this.makeControls();
    this.makePictures();
    this.follow();
    new ResizeObserver(() => this.drawCurve()).observe(this.curve);
  }

  makeControls() {
    const names = this.clip.methods.map((method) => method.label);
    const select = (label, values, name) => {
      const options = values.map(([value, text]) => build("option", { value }, text));
      const made = build("select", {}, ...options);
      made.addEventListener("change", () => {
        this.choice[name] = latest[name] = made.value;
        this.draw();
      });
      return [made, labelled(label, made)];
    };
    const methods = names.map((name) => [name, name]);
    const [first, firstLabel] = select("Method A", methods, "first");
    const [second, secondLabel] = select("Method B", methods, "second");
    const views = [["side", "side by side"], ["over", "overlaid"]];
    const [view, viewLabel] = select("View", views, "view");
    const metrics = ["J&F", "J", "F"].map((name) => [name, name]);
    const [metric, metricLabel] = select("Curve", metrics, "metric");
    this.selects = { first, second, view, metric };

    this.slider = build("input", {
      type: "range", min: 0, max: this.clip.frames.length - 1, step: 1, value: 0,
    });
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    this.where = build("output", {});
    this.play = build("button", { type: "button", "aria-pressed": "false" }, "Play");
    this.play.addEventListener("click", () => this.toggle());
    this.host.append(
      build("div", { class: "controls" }, firstLabel, secondLabel, viewLabel, metricLabel),
    );
    this.bar = build(
      "div", { class: "controls bar" }, this.play, labelled("Frame", this.slider), this.where,
    );
    // Arrow keys move on from buttons too; the slider knows them by itself, and selects need them.
    this.host.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
      event.preventDefault();
      this.show(this.place + step);
    });
  }

  makePictures() {
    const { width, height } = this.clip;
    this.panels = [0, 1, 2].map(() => {
      const canvas = build("canvas", { width, height, role: "img" });
      const caption = build("figcaption", {});
      return { canvas, caption, figure: build("figure", {}, canvas, caption) };
    });
    this.pictures = build("div", { class: "panels" }, ...this.panels.map((panel) => panel.figure));
    this.host.append(this.pictures);
    this.film = build("div", { class: "film", "aria-hidden": "true" });
    this.clip.frames.forEach((frame, place) => {
      if (frame.image === null) return;
      const picture = build("img", { src: frame.image, alt: "" });
      picture.addEventListener("click", () => this.show(place));
      this.film.append(picture);
    });
    this.host.append(this.film, this.bar);
    this.curve = build("div", { class: "curve" });
    this.curve.addEventListener("click", (event) => {
      const box = this.curve.getBoundingClientRect();
      this.showIndex(curveIndex(this.clip, event.clientX - box.left, box.width));
    });
    const scored = this.clip.scored.length > 0;
    this.host.append(scored ? this.curve : build("p", { class: "remark" }, "No score of any frame."));
  }

  // Takes over what was chosen in another sequence; the two best methods where nothing was.
  follow() {
    const { first, second } = this.host.dataset;
    this.choice = { ...latest, first: latest.first ?? first, second: latest.second ?? second };
    for (const [name, select] of Object.entries(this.selects)) select.value = this.choice[name];
    this.draw();
  }

  show(place) {
    this.place = Math.min(this.clip.frames.length - 1, Math.max(0, place));
    this.slider.value = this.place;
    this.draw();
  }

  // Shows the frame nearest to an index.
  showIndex(index) {
    const distances = this.clip.frames.map((frame) => Math.abs(frame.index - index));
    this.show(distances.indexOf(Math.min(...distances)));
  }

  toggle() {
    const playing = this.timer === null;
    if (playing) {
      this.timer = setInterval(
        () => this.show((this.place + 1) % this.clip.frames.length), 1000 * STEP_SECONDS,
      );
    } else {
      clearInterval(this.timer);
      this.timer = null;
    }
    this.play.setAttribute("aria-pressed", playing);
    this.play.textContent = playing ? "Pause" : "Play";
  }

  chosen() {
    const names = this.clip.methods.map((method) => method.label);
    return [names.indexOf(this.choice.first), names.indexOf(this.choice.second)];
  }

  // Ids of the mask a text encodes; decoded once.
  ids(text) {
    if (text === null || text === undefined) return null;
    if (!this.masks.has(text)) {
      this.masks.set(text, decodeRuns(text, this.clip.width * this.clip.height));
    }
    return this.masks.get(text);
  }

  async draw() {
    const place = this.place;
    const frame = this.clip.frames[place];
    this.where.textContent = `${frame.name} (${place + 1} of ${this.clip.frames.length} shown)`;
    this.slider.setAttribute("aria-valuetext", this.where.textContent);
    [...this.film.children].forEach((picture, at) => picture.classList.toggle("now", at === place));
    this.drawCurve();
    const image = this.images[place];
    // A frame that cannot be decoded leaves a grey ground, as one that is missing does.
    if (image) await image.decode().catch(() => {});
    // Somebody moved on while the frame was decoded: their call draws.
    if (place !== this.place) return;
    this.drawPanels(frame, image);
  }

  drawPanels(frame, image) {
    const [first, second] = this.chosen().map((at) => this.clip.methods[at]);
    const truth = this.ids(frame.truth);
    const [a, b] = [first, second].map((method) => this.ids(method.masks[this.place]));
    const objects = (ids) => (pixels) => {
      if (ids) paintObjects(pixels, ids, this.clip.width, this.clip.objectColours);
    };
    const over = this.choice.view === "over";
    this.pictures.classList.toggle("single", over);
    this.panels.forEach((panel, at) => (panel.figure.hidden = over && at > 0));
    if (over) {
      const other = besides(first, second);
      const swapped = other === second.colour ? "" : " (in another colour here: both are of one kind)";
      const colours = [asRgb(first.colour), asRgb(other)];
      this.paint(0, image, (pixels) => paintPair(pixels, a, b, truth, this.clip.width, colours));
      this.caption(0, "Overlaid masks", [
        ...this.key(first.colour, `only ${first.label}`, first.outline),
        ...this.key(other, `only ${second.label}${swapped}`, second.outline),
        ...this.key("#ffffff", "both"),
        ...(truth ? this.key("#ffd600", "outline: ground truth") : []),
      ]);
      return;
    }
    for (const [at, method, ids] of [[0, first, a], [1, second, b]]) {
      this.paint(at, image, objects(ids));
      const missing = ids ? "" : ` – ${method.reason || "no mask"}`;
      const text = `${method.label}${this.score(method, frame.index)}${missing}`;
      this.caption(at, `Mask of ${method.label}`, this.key(method.colour, text, method.outline));
    }
    this.paint(2, image, objects(truth));
    this.caption(2, truth ? "Ground truth" : "Frame without ground truth", [
      truth ? "Ground truth" : "Frame (no ground truth)",
    ]);
  }

  paint(at, image, tint) {
    const { width, height } = this.clip;
    const context = this.panels[at].canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#404040";
    context.fillRect(0, 0, width, height);
    if (image && image.naturalWidth) context.drawImage(image, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    tint(pixels.data);
    context.putImageData(pixels, 0, 0);
  }

  caption(at, name, parts) {
    const { canvas, caption } = this.panels[at];
    const frame = this.clip.frames[this.place].name;
    canvas.setAttribute("aria-label", `${name}, ${this.clip.name}, frame ${frame}`);
    caption.replaceChildren(...parts);
  }

  key(colour, text, outline) {
    return [build("span", { class: "entry" }, swatch(colour, outline), text)];
  }

  // " · J 71.2, F 65.0", or nothing where the frame is not scored.
  score(method, index) {
    const at = this.clip.scored.indexOf(index);
    const values = ["J", "F"].map((name) => method[name][at]);
    if (at < 0 || values.some((value) => value === null || value === undefined)) return "";
    return ` · J ${(values[0] / 10).toFixed(1)}, F ${(values[1] / 10).toFixed(1)}`;
  }

  drawCurve() {
    const width = this.curve.clientWidth;
    if (!width) return;
    const frame = this.clip.frames[this.place].index;
    this.curve.innerHTML = curveSvg(
      this.clip, this.chosen(), this.choice.metric, frame, width, CURVE_HEIGHT,
    );
  }
}

const players = new Map();

// Runs a script beside the page that puts a clip into window.vosReport.clips.
function loadClip(source) {
  return new Promise((resolve, reject) => {
    const script = build("script", { src: source });
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error(source)));
    document.head.append(script);
  });
}

async function openClip(details) {
  const host = details.querySelector(".player");
  if (!host) return null;
  if (!players.has(details.id)) {
    players.set(details.id, startPlayer(details, host));
  }
  const player = await players.get(details.id);
  if (player) player.follow();
  return player;
}

async function startPlayer(details, host) {
  const inline = document.getElementById(`data-${details.id}`);
  try {
    if (!inline) await loadClip(host.dataset.source);
  } catch {
    host.append(build("p", { class: "alert" }, `${host.dataset.source} is missing beside this page.`));
    return null;
  }
  const clip = inline ? JSON.parse(inline.textContent) : window.vosReport.clips[details.id];
  const stills = details.querySelector("details.stills");
  if (stills) stills.open = false;
  return new Player(clip, host);
}

window.vosReport = { clips: {} };
for (const details of document.querySelectorAll("details.clip")) {
  details.addEventListener("toggle", () => {
    if (details.open) openClip(details);
    else players.get(details.id)?.then((player) => player?.timer && player.toggle());
  });
  if (details.open) openClip(details);
}

// Worst cases lead to their frame in the player.
for (const link of document.querySelectorAll("a[data-frame]")) {
  link.addEventListener("click", async () => {
    const details = document.getElementById(link.hash.slice(1));
    if (link.dataset.first) latest.first = link.dataset.first;
    latest.second = link.dataset.second;
    details.open = true;
    const player = await openClip(details);
    if (player) player.showIndex(Number(link.dataset.frame));
  });
}
