// What all explorers share: a canvas with boxes to drag, a chart below it, a panel beside it, keys, undo, and the
// conversation with Python. An explorer extends `Explorer`; the module ends with `export default show(Name)`.
// Nothing is computed here but where things are on the screen: every number shown comes in `answer`, from Python.

const DEGREE = Math.PI / 180;
const KEYS = [
  ["arrows", "move by 1 px"],
  ["shift + arrows", "stretch by 1 px: right and left the width, down and up the height"],
  ["[ ]", "turn by 1 degree"],
  ["alt with any of these", "ten times as far"],
  ["n, p", "next, previous object"],
  ["ctrl + z, ctrl + y", "undo, redo"],
];
const EDIT_KEYS = [
  ["a", "add an object"],
  ["delete", "delete the object"],
];

const number = (x, digits = 3) => (x == null || !Number.isFinite(x) ? "–" : x.toFixed(digits).replace(/^-(0\.?0*)$/, "$1"));
const plain = (box) => Array.isArray(box) && box.length === 5 && box.every(Number.isFinite);
const turned = (x, y, t) => [x * Math.cos(t) - y * Math.sin(t), x * Math.sin(t) + y * Math.cos(t)];

// The point (u, v) of a box's own frame, in scene pixels.
function point([x, y, , , t], u, v) {
  const [dx, dy] = turned(u, v, t);
  return [x + dx, y + dy];
}

// The four corners, in the order of the library's obb2poly.
function corners(box) {
  const [w, h] = [box[2] / 2, box[3] / 2];
  return [[-w, -h], [w, -h], [w, h], [-w, h]].map(([u, v]) => point(box, u, v));
}

function make(tag, props = {}, ...children) {
  const { dataset, ...plainProps } = props;
  const node = Object.assign(document.createElement(tag), plainProps);
  Object.assign(node.dataset, dataset ?? {});
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

// Round numbers from 0 to `top` or a little less, four or five of them.
function rounds(top) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1].find((s) => top / s <= 5) ?? top / 4;
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step);
}

// A table: rows of cells; a cell is text, a node or {text, ...props}.
function table(head, rows) {
  const cell = (tag) => (c) => (c instanceof Node || typeof c !== "object" ? make(tag, {}, c ?? "") : make(tag, c, c.text ?? ""));
  const line = (tag) => (cells) => make("tr", cells.props ?? {}, cells.map(cell(tag)));
  return make("table", {}, head && make("thead", {}, line("th")(head)), make("tbody", {}, rows.map(line("td"))));
}

// What sets a colour "#rrggbb" off from any ground: white around dark ones, black around light ones.
function rim(color) {
  const light = [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => sum + part * (parseInt(color.slice(1 + 2 * i, 3 + 2 * i), 16) / 255) ** 2.2, 0);
  return light < 0.2 ? "rgb(255 255 255 / 75%)" : "rgb(0 0 0 / 75%)";
}

const dot = (color, filled = true) => {
  const node = make("i", { className: filled ? "dot" : "dot hollow" });
  node.style.setProperty("--color", color);
  node.style.setProperty("--rim", rim(color));
  return node;
};

class Explorer {
  static margin = 30; // screen pixels around the scene, so that handles at its border stay in reach
  static tallest = 540; // of the canvas [screen px]
  static chartHeight = 0; // of the canvas below [screen px]; 0: there is none
  static many = false; // objects can be added and deleted
  static still = false; // nothing to move
  static keys = []; // [keys, what they do] of this explorer

  constructor(model, el) {
    this.model = model;
    this.name = Math.random().toString(36).slice(2); // tells two views of one explorer apart
    this.scene = structuredClone(model.get("scene"));
    this.answer = model.get("answer") ?? {};
    this.colors = model.get("colors");
    this.past = [];
    this.future = [];
    this.counts = { draws: 0, asked: 0, answers: 0, stale: 0 };
    this.asked = this.shown = this.scene.request ?? 0;
    this.build(el);
    this.listen();
    this.receivePicture();
    this.tellAll();
    this.fit();
  }

  // ---- the page -------------------------------------------------------------------------------------------------
  build(el) {
    const { many, still, chartHeight, keys } = this.constructor;
    const button = (text, title, act) => make("button", { type: "button", title, onclick: () => act.call(this) }, text);
    this.status = make("span", { className: "status", role: "status" });
    const bar = [
      many && button("Add", "Add an object (a)", this.add),
      many && button("Delete", "Delete the selected object (delete)", this.remove),
      !still && button("Undo", "Undo (ctrl + z)", this.undo),
      !still && button("Redo", "Redo (ctrl + y)", this.redo),
      "code" in this.answer && button("Copy as Python", "Copy this scene as Python code", this.copy),
      button("Keys", "Show the keys (?)", this.help),
    ];
    this.canvas = make("canvas", { className: "scene", tabIndex: 0 });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", `${this.model.get("title")}: drag the objects, or press ? for the keys`);
    this.chart = chartHeight ? make("canvas", { className: "chart" }) : null;
    this.panel = make("div", { className: "panel" });
    this.voice = make("span", { className: "voice", ariaLive: "polite" });
    const list = [...(still ? [] : KEYS), ...(many ? EDIT_KEYS : []), ...keys].map(([k, text]) => [make("kbd", {}, k), text]);
    this.keys = make("div", { className: "keys", hidden: true }, table(null, list));
    this.code = make("textarea", { className: "code", hidden: true, readOnly: true, rows: 12, ariaLabel: "the scene as Python" });
    const body = make("div", { className: "body" }, make("div", { className: "left" }, this.canvas, this.chart), this.panel);
    this.root = make("div", { className: "atss-explorer" }, make("div", { className: "bar" }, bar, this.status), this.keys, this.code, body, this.voice);
    this.root.setAttribute("data-lm-suppress-shortcuts", "true"); // or JupyterLab takes the keys
    el.append(this.root);
  }

  listen() {
    const end = (this.ending = new AbortController());
    const on = (target, type, act) => target.addEventListener(type, act.bind(this), { signal: end.signal });
    on(this.canvas, "pointerdown", this.press);
    on(this.canvas, "pointermove", this.move);
    on(this.canvas, "pointerup", this.release);
    on(this.canvas, "pointercancel", this.release);
    on(this.root, "keydown", this.type);
    if (this.chart) {
      const scrub = (e) => e.buttons && this.scrub(e.offsetX, e.offsetY);
      on(this.chart, "pointerdown", (e) => (this.chart.setPointerCapture(e.pointerId), scrub(e)));
      on(this.chart, "pointermove", scrub);
    }
    on(window, "resize", this.fit); // also when the zoom of the page changes
    on(window.matchMedia("(prefers-color-scheme: dark)"), "change", this.restyle);
    this.observers = [new ResizeObserver(() => this.fit()), new MutationObserver(() => this.restyle())];
    this.observers[0].observe(this.root);
    this.observers[1].observe(document.body, { attributes: true });
    this.callbacks = { "change:answer": () => this.receive(), "change:scene": () => this.adopt(), "change:picture": () => this.receivePicture(), "change:extent": () => this.fit() };
    for (const [name, act] of Object.entries(this.callbacks)) this.model.on(name, act);
  }

  close() {
    this.ending.abort();
    clearTimeout(this.timer);
    this.observers.forEach((o) => o.disconnect());
    for (const [name, act] of Object.entries(this.callbacks)) this.model.off(name, act);
  }

  // ---- the conversation: one question at a time, the newest state next, late answers dropped ------------------------
  changed() {
    this.dirty = true;
    this.canvas.dataset.busy = "yes"; // until the answer to this is drawn
    this.paint();
    this.ask();
  }

  ask() {
    if (this.waiting || !this.dirty) return;
    this.dirty = false;
    this.waiting = true;
    this.asked = Math.max(this.asked, this.model.get("scene").request ?? 0) + 1;
    this.counts.asked += 1;
    this.model.set("scene", { ...structuredClone(this.scene), request: this.asked, view: this.name });
    this.model.save_changes();
    this.timer = setTimeout(() => this.say("Python does not answer: is the kernel busy, or gone?", true), 5000);
  }

  receive() {
    const answer = this.model.get("answer");
    if (answer.request < this.shown) {
      this.counts.stale += 1;
    } else {
      this.counts.answers += 1;
      this.shown = answer.request;
      this.answer = answer;
      this.tellAll();
      this.paint();
    }
    if (answer.request >= this.asked) {
      this.waiting = false;
      clearTimeout(this.timer);
    }
    this.ask();
  }

  // A scene that came from Python, or from another view of the same explorer.
  adopt() {
    const scene = this.model.get("scene");
    if (scene.view === this.name) return;
    this.scene = structuredClone(scene);
    this.asked = Math.max(this.asked, scene.request ?? 0);
    this.shown = Math.min(this.shown, scene.request ?? 0);
    this.waiting = this.dirty = false;
    clearTimeout(this.timer);
    this.tellAll();
    this.paint();
  }

  receivePicture() {
    const bytes = this.model.get("picture");
    this.picture = null;
    if (!bytes?.byteLength) return this.paint();
    const url = URL.createObjectURL(new Blob([bytes]));
    const image = new Image();
    image.onload = () => ((this.picture = image), URL.revokeObjectURL(url), this.paint());
    image.onerror = () => this.say("The browser cannot show this picture.", true);
    image.src = url;
  }

  // ---- what is written beside and above the canvas -----------------------------------------------------------------
  say(text, bad = false) {
    this.status.textContent = text;
    this.status.classList.toggle("bad", bad);
  }

  tellAll() {
    const { error, notes } = this.answer;
    this.say([...(error ? [`Python says: ${error}`] : []), ...(notes ?? [])].join(" · "), !!error || !!notes?.length);
    this.panel.replaceChildren(...(error ? [] : this.tell()).filter(Boolean));
  }

  tell() { return []; } // nodes of the panel
  draw() {} // on the canvas, between the picture and the boxes
  drawOver() {} // between the boxes and the handles
  drawChart() {} // (width, height)
  click() { return false; } // (p, screen radius of a finger) -> whether it meant something
  scrub() {} // the chart is dragged: (x, y) on it
  typed() { return false; } // (key, event) -> whether this explorer knows the key
  look(i) { return { color: this.colors.palette[i % 8] }; } // of a box: color, dash, width, fill, label
  fresh() { // a box to add
    const [h, w] = this.extent;
    return [w / 2, h / 2, w / 6, h / 12, 0];
  }

  get boxes() { return this.scene.boxes ?? []; }
  get extent() { return this.model.get("extent"); }
  get selected() { return Math.min(this.scene.selected ?? 0, this.boxes.length - 1); }

  // ---- drawing -----------------------------------------------------------------------------------------------------
  fit() {
    const { margin, tallest, chartHeight } = this.constructor;
    const [h, w] = this.extent;
    const room = this.root.clientWidth - 24; // without its padding
    if (room <= 0) return;
    const beside = room >= 616;
    this.root.classList.toggle("narrow", !beside);
    const wide = Math.max(beside ? room - 276 : room, 260);
    this.scale = Math.min((wide - 2 * margin) / w, (tallest - 2 * margin) / h);
    this.width = w * this.scale + 2 * margin;
    this.height = h * this.scale + 2 * margin;
    this.resize(this.canvas, this.width, this.height);
    if (this.chart) this.resize(this.chart, Math.max(this.width, Math.min(wide, 600)), chartHeight);
    this.restyle();
  }

  resize(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  restyle() {
    const style = getComputedStyle(this.root);
    for (const name of ["ink", "soft", "line", "paper", "edge", "accent", "alarm"]) this[name] = style.getPropertyValue(`--${name}`).trim();
    this.font = style.fontFamily;
    this.paint();
  }

  paint() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => this.frame());
  }

  frame() {
    this.queued = false;
    if (!this.scale) return;
    this.counts.draws += 1;
    const g = (this.g = this.canvas.getContext("2d"));
    const { margin } = this.constructor;
    const area = [margin, margin, this.width - 2 * margin, this.height - 2 * margin];
    g.fillStyle = this.edge;
    g.fillRect(0, 0, this.width, this.height);
    g.fillStyle = this.paper;
    g.fillRect(...area);
    if (this.picture) g.drawImage(this.picture, ...area);
    g.strokeStyle = "rgb(255 255 255 / 20%)";
    g.lineWidth = 1;
    g.strokeRect(...area);
    this.draw();
    this.boxes.forEach((box, i) => plain(box) && this.outline(box, { ...this.look(i), width: i === this.selected ? 2.6 : 1.8 }));
    this.drawOver();
    this.drawHandles();
    if (this.chart) {
      this.g = this.chart.getContext("2d");
      const [width, height] = [this.chart.clientWidth, this.chart.clientHeight];
      this.g.clearRect(0, 0, width, height);
      this.drawChart(width, height);
    }
    Object.assign(this.canvas.dataset, this.counts, { busy: this.waiting || this.dirty ? "yes" : "", request: this.shown, scale: this.scale, margin, boxes: JSON.stringify(this.boxes), selected: this.selected, error: this.answer.error ?? "" });
  }

  at([x, y]) {
    const { margin } = this.constructor;
    return [margin + x * this.scale, margin + y * this.scale];
  }

  trace(points, closed = true) {
    this.g.beginPath();
    points.forEach((p, i) => (i ? this.g.lineTo(...this.at(p)) : this.g.moveTo(...this.at(p))));
    if (closed) this.g.closePath();
  }

  // A line with a dark rim, which shows on asphalt and on snow.
  stroke(color, width = 1.8, dash = []) {
    this.g.lineJoin = this.g.lineCap = "round";
    this.g.setLineDash(dash);
    this.g.strokeStyle = "rgb(0 0 0 / 55%)";
    this.g.lineWidth = width + 1.6;
    this.g.stroke();
    this.g.strokeStyle = color;
    this.g.lineWidth = width;
    this.g.stroke();
    this.g.setLineDash([]);
  }

  outline(box, { color, width = 1.8, dash = [], fill = null, bar = true, label = null, below = false }) {
    this.trace(corners(box));
    if (fill) {
      this.g.fillStyle = fill;
      this.g.fill();
    }
    this.stroke(color, width, dash);
    if (bar) { // on the edge that the box's x axis points at
      this.trace([point(box, box[2] / 2, -box[3] / 4), point(box, box[2] / 2, box[3] / 4)], false);
      this.stroke(color, width * 2);
    }
    if (!label) return;
    const [x, y] = this.at(corners(box).reduce((a, b) => (b[1] < a[1] === !below ? b : a)));
    this.write(label, [x, below ? y + 22 : y], color);
  }

  write(text, [x, y], color = this.ink, { size = 12, align = "center", rim = true, bold = true } = {}) {
    this.g.font = `${bold ? "600 " : ""}${size}px ${this.font}`;
    this.g.textAlign = align;
    this.g.textBaseline = "alphabetic";
    if (rim) {
      this.g.lineJoin = "round";
      this.g.lineWidth = 3;
      this.g.strokeStyle = "rgb(0 0 0 / 75%)";
      this.g.strokeText(text, x, y - 6);
    }
    this.g.fillStyle = color;
    this.g.fillText(text, x, rim ? y - 6 : y);
  }

  arrow(from, to, color, width = 2) { // screen pixels
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    const length = Math.hypot(dx, dy);
    if (length < 1) return;
    const head = Math.min(9, length * 0.6);
    const wing = (side) => [to[0] - (head * dx - (side * head * dy) / 1.8) / length, to[1] - (head * dy + (side * head * dx) / 1.8) / length];
    this.g.beginPath();
    this.g.moveTo(...from);
    this.g.lineTo(...to);
    this.g.moveTo(...wing(1));
    this.g.lineTo(...to);
    this.g.lineTo(...wing(-1));
    this.stroke(color, width);
  }

  disc([x, y], radius, color, filled = true) { // screen pixels
    this.g.beginPath();
    this.g.arc(x, y, radius, 0, 7);
    if (filled) {
      this.g.fillStyle = color;
      this.g.fill();
    }
    this.g.lineWidth = filled ? 1 : 3.4;
    this.g.strokeStyle = rim(color);
    this.g.globalAlpha = filled ? 1 : 0.4;
    this.g.stroke();
    this.g.globalAlpha = 1;
    if (filled) return;
    this.g.lineWidth = 2;
    this.g.strokeStyle = color;
    this.g.stroke();
  }

  // A line chart: lines are {points: [[x, y] or null], color, dash, label}, marks upright lines {x, label, color}.
  plot({ area: [left, top, width, height], x: [x0, x1], y: [y0, y1], xlabel = "", ticks = [[], []], lines = [], marks = [] }) {
    const { g } = this;
    const px = (x) => left + ((x - x0) / (x1 - x0)) * width;
    const py = (y) => top + height - ((y - y0) / (y1 - y0)) * height;
    const write = (text, place, align, color = this.soft) => this.write(text, place, color, { size: 11, align, rim: false, bold: false });
    g.lineWidth = 1;
    g.strokeStyle = this.line;
    g.beginPath();
    for (const t of ticks[0]) (g.moveTo(px(t), top), g.lineTo(px(t), top + height), write(`${+t.toFixed(2)}`, [px(t), top + height + 13], "center"));
    for (const t of ticks[1]) (g.moveTo(left, py(t)), g.lineTo(left + width, py(t)), write(`${+t.toFixed(2)}`, [left - 5, py(t) + 4], "right"));
    g.stroke();
    write(xlabel, [left + width, top + height + 27], "right");
    for (const { points, color, dash = [], label, width: thick = 2 } of lines) {
      g.beginPath();
      let pen = false;
      for (const p of points) {
        if (p) g[pen ? "lineTo" : "moveTo"](px(p[0]), py(p[1]));
        pen = !!p;
      }
      g.setLineDash(dash);
      g.lineJoin = "round";
      g.lineWidth = thick;
      g.strokeStyle = color;
      g.stroke();
      g.setLineDash([]);
    }
    marks.forEach(({ x, label, color = this.ink, dash = [] }) => {
      g.beginPath();
      g.moveTo(px(x), top);
      g.lineTo(px(x), top + height);
      g.setLineDash(dash);
      g.lineWidth = 1.6;
      g.strokeStyle = color;
      g.stroke();
      g.setLineDash([]);
      if (label) write(label, [px(x), top - 5], px(x) > left + width - 40 ? "right" : px(x) < left + 40 ? "left" : "center", color);
    });
    return { px, py };
  }

  // A legend for lines, from left to right.
  legend(lines, x, y) {
    const { g } = this;
    for (const { label, color, dash = [] } of lines) {
      if (!label) continue;
      g.beginPath();
      g.moveTo(x, y - 4);
      g.lineTo(x + 22, y - 4);
      g.setLineDash(dash);
      g.lineWidth = 2;
      g.strokeStyle = color;
      g.stroke();
      g.setLineDash([]);
      this.write(label, [x + 27, y], this.soft, { size: 11, align: "left", rim: false, bold: false });
      x += 27 + g.measureText(label).width + 16;
    }
  }

  // ---- handles: eight to stretch, one to turn ------------------------------------------------------------------------
  handles() {
    const box = this.boxes[this.selected];
    if (!plain(box)) return [];
    const [, , w, h] = box;
    const grips = [{ kind: "turn", at: point(box, 0, -h / 2 - 24 / this.scale) }];
    for (const sx of [-1, 0, 1]) {
      for (const sy of [-1, 0, 1]) {
        const room = (sx || w * this.scale > 44) && (sy || h * this.scale > 44); // none in the way on a small box
        if ((sx || sy) && room) grips.push({ kind: "stretch", sx, sy, at: point(box, (sx * w) / 2, (sy * h) / 2) });
      }
    }
    return grips;
  }

  drawHandles() {
    const box = this.boxes[this.selected];
    for (const { kind, at } of this.handles()) {
      const [x, y] = this.at(at);
      if (kind === "turn") {
        this.trace([point(box, 0, -box[3] / 2), at], false);
        this.stroke("#ffffff", 1.4);
        this.disc([x, y], 6, "#ffffff");
      } else {
        this.g.fillStyle = "#ffffff";
        this.g.strokeStyle = "rgb(0 0 0 / 80%)";
        this.g.lineWidth = 1;
        this.g.fillRect(x - 4, y - 4, 8, 8);
        this.g.strokeRect(x - 4, y - 4, 8, 8);
      }
    }
  }

  // What lies under a point of the scene: a handle, else the selected box, else the smallest one.
  under(p) {
    const near = (at, reach) => Math.hypot(at[0] - p[0], at[1] - p[1]) * this.scale < reach;
    const grip = this.handles().find(({ at }) => near(at, 9));
    if (grip) return { ...grip, index: this.selected };
    const pad = 5 / this.scale;
    const inside = (box) => {
      const [u, v] = turned(p[0] - box[0], p[1] - box[1], -box[4]);
      return Math.abs(u) <= box[2] / 2 + pad && Math.abs(v) <= box[3] / 2 + pad;
    };
    const hit = this.boxes.map((box, index) => ({ box, index, kind: "move" })).filter(({ box }) => plain(box) && inside(box));
    hit.sort((a, b) => (b.index === this.selected) - (a.index === this.selected) || a.box[2] * a.box[3] - b.box[2] * b.box[3]);
    return hit[0];
  }

  place(event) {
    const { margin } = this.constructor;
    const frame = this.canvas.getBoundingClientRect();
    return [(event.clientX - frame.left - margin) / this.scale, (event.clientY - frame.top - margin) / this.scale];
  }

  press(event) {
    if (event.button) return;
    this.canvas.setPointerCapture?.(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    const p = this.place(event);
    const hit = this.under(p);
    this.drag = { p, hit, start: hit && [...this.boxes[hit.index]], before: structuredClone(this.scene), moved: false };
  }

  move(event) {
    const p = this.place(event);
    if (!this.drag) {
      const kind = this.under(p)?.kind;
      this.canvas.style.cursor = { turn: "grab", stretch: "crosshair", move: "move" }[kind] ?? "default";
      return;
    }
    const { hit, start, p: from } = this.drag;
    if (!this.drag.moved && Math.hypot(p[0] - from[0], p[1] - from[1]) * this.scale < 3) return;
    if (!this.drag.moved) {
      this.drag.moved = true;
      if (hit) (this.remember(this.drag.before), (this.scene.selected = hit.index), this.tellAll());
    }
    if (!hit) return;
    this.boxes[hit.index] = this.dragged(hit, start, from, p, event.shiftKey);
    this.changed();
  }

  dragged({ kind, sx, sy }, start, from, to, snap) {
    const [x, y, w, h, t] = start;
    if (kind === "move") return [x + to[0] - from[0], y + to[1] - from[1], w, h, t];
    if (kind === "turn") {
      const step = snap ? 15 * DEGREE : 1e-9;
      return [x, y, w, h, Math.round((Math.atan2(to[1] - y, to[0] - x) + Math.PI / 2) / step) * step];
    }
    const [u, v] = turned(to[0] - from[0], to[1] - from[1], -t);
    const [wide, high] = [Math.max(0, w + sx * u), Math.max(0, h + sy * v)];
    return [...point(start, (sx * (wide - w)) / 2, (sy * (high - h)) / 2), wide, high, t];
  }

  release(event) {
    const { drag } = this;
    this.drag = null;
    if (!drag || drag.moved) return;
    const p = this.place(event);
    if (event.type === "pointerup" && !this.click(p, 8 / this.scale) && drag.hit) this.select(drag.hit.index);
  }

  // ---- keys and buttons ------------------------------------------------------------------------------------------------
  remember(scene) {
    this.past.push(scene ?? structuredClone(this.scene));
    this.past.splice(0, this.past.length - 200);
    this.future = [];
  }

  step(from, to) {
    if (!from.length) return;
    to.push(structuredClone(this.scene));
    this.scene = from.pop();
    this.changed();
  }

  undo() { this.step(this.past, this.future); }
  redo() { this.step(this.future, this.past); }

  select(index) {
    if (!this.boxes.length) return;
    this.scene.selected = (index + this.boxes.length) % this.boxes.length;
    this.changed();
    this.tellAll();
  }

  add() {
    this.remember();
    this.boxes.push(this.fresh());
    this.scene.scores?.push(0.5);
    this.select(this.boxes.length - 1);
  }

  remove() {
    if (!this.boxes.length) return;
    this.remember();
    for (const rows of [this.boxes, this.scene.scores]) rows?.splice(this.selected, 1);
    this.scene.selected = Math.max(0, this.selected - 1);
    this.changed();
  }

  help() { this.keys.hidden = !this.keys.hidden; }

  async copy() {
    this.code.value = this.answer.code ?? "";
    this.root.dataset.copied = this.code.value;
    try {
      await navigator.clipboard.writeText(this.code.value);
      this.say("Copied.");
    } catch { // no right to the clipboard: show the text, selected
      this.code.hidden = !this.code.hidden;
      if (!this.code.hidden) this.code.select();
    }
  }

  type(event) {
    if (event.target.closest("textarea") || (event.target.closest("button") && [" ", "Enter"].includes(event.key))) return;
    const control = event.ctrlKey || event.metaKey;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const known = control ? this.command(key, event) : this.edit(key, event) || this.typed(key, event);
    if (!known) return;
    event.preventDefault();
    event.stopPropagation();
    const box = this.boxes[this.selected];
    if (box) this.voice.textContent = `object ${this.selected + 1} of ${this.boxes.length}: x ${number(box[0], 0)}, y ${number(box[1], 0)}, ${number(box[2], 0)} by ${number(box[3], 0)} pixels, ${number(box[4] / DEGREE, 0)} degrees`;
  }

  command(key, event) {
    if (key === "z") return event.shiftKey ? this.redo() : this.undo(), true;
    if (key === "y") return this.redo(), true;
    return false;
  }

  edit(key, event) {
    const far = event.altKey ? 10 : 1;
    const [dx, dy] = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[key] ?? [0, 0];
    const turn = { "[": -far, "]": far }[key] ?? { BracketLeft: -far, BracketRight: far }[event.code] ?? 0;
    const box = this.boxes[this.selected];
    if ((dx || dy || turn) && plain(box)) {
      this.remember();
      const [x, y, w, h, t] = box;
      this.boxes[this.selected] = event.shiftKey && !turn ? [x, y, Math.max(0, w + dx), Math.max(0, h + dy), t] : [x + dx, y + dy, w, h, t + turn * DEGREE];
      return this.changed(), true;
    }
    if (key === "n" || key === "p") return this.select(this.selected + (key === "n" ? 1 : -1)), true;
    if (key === "?") return this.help(), true;
    if (!this.constructor.many) return false;
    if (key === "a") return this.add(), true;
    if (key === "Delete" || key === "Backspace") return this.remove(), true;
    return false;
  }
}

const show = (Kind) => ({
  render({ model, el }) {
    const explorer = new Kind(model, el);
    return () => explorer.close();
  },
});
