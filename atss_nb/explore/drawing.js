// How explorers draw: boxes, dots, arrows and charts on a canvas, and the nodes of the page around it.

const DEGREE = Math.PI / 180;
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
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

// Round numbers from 0 to `top` or a little less, four or five of them.
function rounds(top) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1].find((s) => top / s <= 5) ?? top / 4;
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step);
}

// A table: rows of cells; a cell is text, a node or {text, ...props}.
function tableRow(tag, cells) {
  const cell = (c) => (c instanceof Node || typeof c !== "object" ? make(tag, {}, c ?? "") : make(tag, c, c.text ?? ""));
  return make("tr", cells.props ?? {}, cells.map(cell));
}

const table = (head, rows) => make("table", {}, head && make("thead", {}, tableRow("th", head)), make("tbody", {}, rows.map((cells) => tableRow("td", cells))));

// A table of many rows, each with a key that says what it shows: only those that show something else are made anew.
class LongTable {
  constructor() {
    [this.head, this.body, this.keys] = [make("thead"), make("tbody"), []];
    this.node = make("table", {}, this.head, this.body);
  }

  update(head, keys, cellsOf) {
    morph(this.head, [tableRow("th", head)]);
    keys.forEach((key, i) => {
      if (this.keys[i] === key) return;
      const [old, next] = [this.body.children[i], tableRow("td", cellsOf(i))];
      if (old) blend(old, next);
      else this.body.append(next);
    });
    while (this.body.children.length > keys.length) this.body.lastChild.remove();
    this.keys = keys;
  }
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

// Give a node the children `fresh`, keeping those that are alike: what has the focus keeps it, and nothing flickers.
function morph(parent, fresh) {
  fresh.forEach((node, i) => {
    const [old, next] = [parent.childNodes[i], node instanceof Node ? node : document.createTextNode(node)];
    if (old) blend(old, next);
    else parent.append(next);
  });
  while (parent.childNodes.length > fresh.length) parent.lastChild.remove();
}

// Make a node what another one is; one that is marked as its own master takes the place as it is.
function blend(old, next) {
  if (old === next) return;
  if (old.nodeName !== next.nodeName || next.dataset?.own || old.dataset?.own) return void old.replaceWith(next);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const name of ["onclick", "onpointerenter", "onpointerleave"]) old[name] = next[name];
  morph(old, [...next.childNodes]);
}

// A canvas of so many screen pixels that is on no page.
function sheet(width, height) {
  const canvas = document.createElement("canvas");
  fitCanvas(canvas, width, height);
  return canvas;
}

function fitCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
}

function halved(image) {
  const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side / 2)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  return canvas;
}

// Things that lie on a ground, which is a canvas of so many screen pixels. A thing has its `area`: left, top, right,
// bottom. Where one is new or gone, all that lies there is drawn again, and nothing else.
class Layer {
  constructor(ground, width, height) {
    Object.assign(this, { ground, width, height, things: [], fresh: true });
    this.canvas = sheet(width, height);
  }

  update(things, draw) {
    const old = this.things;
    const changed = Array.from({ length: Math.max(things.length, old.length) }, (_, i) => (things[i] === old[i] ? [] : [things[i], old[i]])).flat().filter(Boolean);
    const dirty = this.fresh || changed.length > 100 ? [[0, 0, this.width, this.height]] : changed.map(({ area }) => area);
    Object.assign(this, { things, fresh: false });
    if (!dirty.length) return;
    const g = this.canvas.getContext("2d");
    g.save();
    g.beginPath();
    for (const [x0, y0, x1, y1] of dirty) g.rect(x0, y0, x1 - x0, y1 - y0); // wound alike: where two overlap, both count
    g.clip();
    g.drawImage(this.ground, 0, 0, this.width, this.height);
    const touches = ([x0, y0, x1, y1]) => dirty.some((d) => x0 < d[2] && d[0] < x1 && y0 < d[3] && d[1] < y1);
    draw(g, things.flatMap((thing, i) => (thing && touches(thing.area) ? [i] : [])));
    g.restore();
  }
}

// What draws on `g`, the canvas of now; `at` says where a point of the scene is on it.
class Drawing {
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
}

// What Python sent: long lists of numbers came as bytes, {shape, float64}.
function unpacked(value) {
  if (value === null || typeof value !== "object" || value instanceof DataView) return value;
  if (Array.isArray(value)) return value.map(unpacked);
  const { shape, float64: bytes } = value;
  if (!(bytes instanceof DataView)) return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, unpacked(one)]));
  const numbers = Array.from({ length: bytes.byteLength / 8 }, (_, i) => bytes.getFloat64(8 * i, true));
  const nest = ([n, ...rest], part) => (rest.length ? Array.from({ length: n }, (_, i) => nest(rest, part.slice((i * part.length) / n, ((i + 1) * part.length) / n))) : part);
  return nest(shape, numbers);
}

const same = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);

// Does what is shown have all that Python says, number by number?
function agree(python, shown) {
  if (typeof python === "number") return Math.abs(python - shown) <= 1e-6 * Math.max(1, Math.abs(python));
  if (python === null || typeof python !== "object") return python === (shown ?? null);
  const keys = Object.keys(python).filter((key) => !["request", "notes", "trouble"].includes(key));
  return !!shown && keys.every((key) => agree(python[key], shown[key])) && (!Array.isArray(python) || python.length === shown.length);
}
