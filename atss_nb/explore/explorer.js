// What all explorers share: one or two canvases with boxes to drag, settings above, a chart below, a panel beside,
// keys, undo, zoom, and the conversation with Python. An explorer extends `Explorer`; the module ends with
// `export default show(Name)`. An explorer with a static `respond` has a twin of its Python here: it answers by
// itself, in every frame and without a kernel, and Python, where there is one, confirms it once the hand rests.

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
const VIEW_KEYS = [["+ - 0", "zoom in, out, fit; also ctrl + wheel, or two fingers"]];

// What is odd about boxes, in words; an error for what is no box. As Python has it.
function checkBoxes(boxes) {
  boxes.forEach((box, i) => {
    if (!plain(box)) throw new Error(`object ${i + 1}: expected 5 finite numbers, got ${JSON.stringify(box)}`);
    if (box[2] < 0 || box[3] < 0) throw new Error(`boxes, row ${i}: expected finite numbers and sides >= 0, got [${box.join(", ")}]`);
  });
}

function boxNotes(boxes, [h, w]) {
  const flat = boxes.map(([, , a, b], i) => (a === 0 || b === 0 ? `object ${i + 1} has no area` : null));
  const off = boxes.map(([x, y], i) => (Math.min(x, w - x, y, h - y) < 0 ? `the centre of object ${i + 1} is off the image` : null));
  return [...flat, ...off].filter(Boolean);
}

class Explorer extends Drawing {
  static margin = 30; // screen pixels around the scene, so that handles at its border stay in reach
  static tallest = 540; // of the canvas [screen px]
  static chartHeight = 0; // of the canvas below [screen px]; 0: there is none
  static chartText = "chart"; // what it shows, for those who cannot see it
  static many = false; // objects can be added and deleted
  static still = false; // nothing to move
  static opens = false; // an image of one's own
  static side = 260; // of the panel beside the canvas [screen px]
  static keys = []; // [keys, what they do] of this explorer

  constructor(model, el) {
    super();
    this.model = model;
    this.name = Math.random().toString(36).slice(2); // tells two views of one explorer apart
    this.local = !!this.constructor.respond;
    this.controls = model.get("controls") ?? [];
    this.scene = structuredClone(model.get("scene"));
    this.settings = this.readSettings();
    this.answer = this.local ? {} : unpacked(model.get("answer") ?? {});
    this.colors = model.get("colors");
    [this.past, this.future] = [[], []];
    this.counts = { draws: 0, asked: 0, answers: 0, stale: 0 };
    this.asked = this.shown = this.scene.request ?? 0;
    this.zoom = 1;
    this.dirty = this.local;
    this.build(el);
    this.listen();
    this.receivePicture();
    this.tellAll();
    this.fit();
  }

  // ---- the page -------------------------------------------------------------------------------------------------
  build(el) {
    this.status = make("span", { className: "status", role: "status" });
    this.panel = make("div", { className: "panel" });
    this.voice = make("span", { className: "voice", ariaLive: "polite" });
    const { many, still, keys } = this.constructor;
    const list = [...(still ? [] : KEYS), ...(many ? EDIT_KEYS : []), ...VIEW_KEYS, ...keys].map(([k, text]) => [make("kbd", {}, k), text]);
    this.keys = make("div", { className: "keys", hidden: true }, table(null, list));
    this.code = make("textarea", { className: "code", hidden: true, readOnly: true, rows: 12, ariaLabel: "the scene as Python" });
    this.panes = this.makePanes();
    this.canvas = this.panes[0].canvas;
    const stage = make("div", { className: "stage" }, this.panes.map((p) => p.node));
    const body = make("div", { className: "body" }, stage, this.panel);
    const bar = make("div", { className: "bar", role: "group", ariaLabel: "tools" }, this.buttons(), this.status);
    const settings = this.buildControls(this.controls.filter((c) => !c.side));
    this.root = make("div", { className: "atss-explorer" }, this.header(settings), bar, this.keys, this.code, body, this.footer(settings), this.voice);
    this.root.style.setProperty("--gone", this.colors.roles.gone);
    this.root.setAttribute("data-lm-suppress-shortcuts", "true"); // or JupyterLab takes the keys
    el.append(this.root);
  }

  header(settings) { return [settings]; } // nodes above the tools
  footer() { return null; } // a node below everything

  buttons() {
    const { many, still, opens } = this.constructor;
    const button = (text, title, act) => make("button", { type: "button", title, onclick: () => act.call(this) }, text);
    const file = make("input", { type: "file", multiple: true, hidden: true, onchange: () => this.openFiles([...file.files]).then(() => { file.value = ""; }) });
    return [
      many && button("Add", "Add an object (a)", this.add),
      many && button("Delete", "Delete the selected object (delete)", this.remove),
      !still && button("Undo", "Undo (ctrl + z)", this.undo),
      !still && button("Redo", "Redo (ctrl + y)", this.redo),
      make("span", { className: "pair" }, button("−", "Zoom out (-)", () => this.zoomBy(1 / 1.5)), button("+", "Zoom in (+)", () => this.zoomBy(1.5)), button("Fit", "Show the whole scene (0)", () => this.zoomBy(0))),
      opens && [button("Open image", "Open an image of your own, its label file, or both; or drop them here", () => file.click()), file],
      this.program && button("Copy as Python", "Copy this scene as Python code", this.copy),
      button("Keys", "Show the keys (?)", this.help),
    ].flat();
  }

  makePanes() { return [this.makePane(this.model.get("title"))]; }

  makePane(name, head = null) {
    const canvas = make("canvas", { className: "scene", tabIndex: 0, role: "application", ariaLabel: `${name}: drag the objects, or press ? for the keys` });
    const chart = this.constructor.chartHeight ? make("canvas", { className: "chart", role: "img", ariaLabel: this.constructor.chartText }) : null;
    return { canvas, chart, node: make("div", { className: "pane" }, head, canvas, chart) };
  }

  listen() {
    const end = (this.ending = new AbortController());
    const on = (target, type, act, options = {}) => target.addEventListener(type, act.bind(this), { signal: end.signal, ...options });
    this.panes.forEach((pane, i) => {
      on(pane.canvas, "pointerdown", this.press);
      on(pane.canvas, "pointermove", (e) => this.move(e, i));
      on(pane.canvas, "pointerup", this.release);
      on(pane.canvas, "pointercancel", this.release);
      on(pane.canvas, "pointerleave", () => this.hover(null));
      on(pane.canvas, "wheel", this.wheel, { passive: false });
      on(pane.canvas, "touchstart", this.touch, { passive: false });
      on(pane.canvas, "touchmove", this.pinch, { passive: false });
      if (!pane.chart) return;
      const scrub = (e) => e.buttons && this.scrub(e.offsetX, e.offsetY, i);
      on(pane.chart, "pointerdown", (e) => (pane.chart.setPointerCapture?.(e.pointerId), scrub(e)));
      on(pane.chart, "pointermove", (e) => (scrub(e), this.hoverChart(e.offsetX, e.offsetY, i)));
      on(pane.chart, "pointerleave", () => this.hover(null));
    });
    on(this.root, "keydown", this.type);
    if (this.constructor.opens) {
      on(this.root, "dragover", (e) => e.preventDefault());
      on(this.root, "drop", (e) => (e.preventDefault(), this.openFiles([...e.dataTransfer.files])));
    }
    on(window, "scroll", () => { if (this.drag) this.drag.frame = this.drag.canvas.getBoundingClientRect(); }, { capture: true });
    on(window, "resize", this.fit); // also when the zoom of the page changes
    on(window.matchMedia("(prefers-color-scheme: dark)"), "change", this.restyle);
    this.observers = [new ResizeObserver(() => this.fit()), new MutationObserver(() => this.restyle())];
    this.observers[0].observe(this.root);
    for (const node of [document.body, document.documentElement]) this.observers[1].observe(node, { attributes: true });
    this.callbacks = { "change:answer": () => this.receive(), "change:scene": () => this.adopt(), "change:picture": () => this.receivePicture(), "change:extent": () => this.refit(), "change:trouble": () => this.tellAll() };
    for (const { name } of this.controls) this.callbacks[`change:${name}`] = () => this.adoptSetting();
    for (const [name, act] of Object.entries(this.callbacks)) this.model.on(name, act);
  }

  close() {
    this.ending.abort();
    [this.timer, this.busy, this.saver, this.teller].forEach(clearTimeout);
    this.observers.forEach((o) => o.disconnect());
    for (const [name, act] of Object.entries(this.callbacks)) this.model.off(name, act);
  }

  // ---- settings ---------------------------------------------------------------------------------------------------
  readSettings() { return Object.fromEntries(this.controls.map(({ name }) => [name, structuredClone(this.model.get(name))])); }

  buildControls(controls) {
    return controls.length ? make("div", { className: "controls" }, controls.map((c) => this.buildControl(c))) : null;
  }

  // A radio group, a list, a slider or a field; `put` shows a value in it.
  buildControl({ name, label, kind, options, min, max, step }) {
    const put = (this.puts ??= {});
    const heading = make("span", { className: "label" }, label);
    if (kind === "choice") {
      const group = `${this.name}-${name}`;
      const radios = options.map(([text, value]) => make("input", { type: "radio", name: group, onchange: () => this.set(name, value, true) }));
      put[name] = (v) => radios.forEach((r, i) => { r.checked = same(options[i][1], v); });
      return make("fieldset", { className: "control choice", dataset: { name } }, make("legend", { className: label ? "label" : "voice" }, label || name), make("span", { className: "segments" }, options.map(([text], i) => make("label", {}, radios[i], make("span", {}, text)))));
    }
    if (kind === "list") {
      const select = make("select", { onchange: () => this.set(name, options[select.selectedIndex][1], true) }, options.map(([text]) => make("option", {}, text)));
      put[name] = (v) => { select.selectedIndex = options.findIndex((o) => same(o[1], v)); };
      return make("label", { className: "control", dataset: { name } }, heading, select);
    }
    const slider = kind === "slider";
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const field = make("input", { type: slider ? "range" : "number", min, max, step, oninput: () => field.value !== "" && this.set(name, +field.value, !slider), onchange: () => { this.turning = null; } });
    const shown = make("output", {});
    put[name] = (v) => { if (+field.value !== v || field.value === "") field.value = v; shown.textContent = number(v, digits); };
    return make("label", { className: "control", dataset: { name } }, heading, field, slider && shown);
  }

  showSettings() {
    for (const [name, put] of Object.entries(this.puts ?? {})) put(this.settings[name]);
  }

  // A setting is turned. What Python has said of another rule is taken away at once, not when Python says more.
  set(name, value, whole) {
    if (same(this.settings[name], value)) return;
    if (this.turning !== name || whole) this.remember();
    this.turning = name;
    this.settings[name] = value;
    this.showSettings();
    if (whole && !this.local) this.forget();
    this.changed();
  }

  forget() {
    this.answer = {};
    this.tellAll();
  }

  // ---- the conversation: one question at a time, the newest state next, late answers dropped ------------------------
  changed() {
    this.dirty = true;
    this.adopted = false;
    this.paint();
    if (!this.local) this.ask();
  }

  ask() {
    if (this.waiting || !this.dirty) return;
    this.dirty = false;
    this.waiting = true;
    this.counts.asked += 1;
    this.save();
    const turned = this.turning;
    this.busy = setTimeout(() => {
      this.root.dataset.waiting = "yes";
      if (turned) this.forget();
    }, 60); // a mark within 100 ms
    this.timer = setTimeout(() => this.say("Python does not answer: is the kernel busy, or gone?", true), 5000);
  }

  save() {
    this.asked = Math.max(this.asked, this.model.get("scene").request ?? 0) + 1;
    this.saving = true;
    for (const [name, value] of Object.entries(this.settings)) if (!same(this.model.get(name), value)) this.model.set(name, structuredClone(value));
    this.model.set("scene", { ...structuredClone(this.scene), request: this.asked, view: this.name });
    this.model.save_changes();
    this.saving = false;
  }

  receive() {
    const answer = unpacked(this.model.get("answer"));
    if (this.local) return this.confirm(answer);
    if (answer.request < this.shown) {
      this.counts.stale += 1;
    } else if (answer.request >= this.asked || !this.dirty || same(this.readSettings(), this.settings)) {
      this.counts.answers += 1;
      this.shown = answer.request;
      this.answer = answer;
      this.tellAll();
      this.paint();
    }
    if (answer.request >= this.asked) this.quiet();
    this.ask();
  }

  quiet() {
    this.waiting = false;
    delete this.root.dataset.waiting;
    [this.timer, this.busy].forEach(clearTimeout);
  }

  // The twin's answer to the state as it is; Python hears of it when the hand rests.
  answerHere() {
    this.dirty = false;
    this.counts.asked += 1;
    this.counts.answers += 1;
    delete this.root.dataset.python;
    const began = performance.now();
    try {
      checkBoxes(this.boxes);
      this.answer = { notes: boxNotes(this.boxes, this.extent), ...this.constructor.respond(this) };
    } catch (error) {
      this.answer = { notes: [], error: error.message };
    }
    this.counts.took = performance.now() - began; // [ms]
    this.tellSoon();
    clearTimeout(this.saver);
    if (!this.adopted) this.saver = setTimeout(() => this.save(), 200);
    this.adopted = false;
    this.shown = this.asked + 1;
  }

  // The tables of many objects are long: while the hand moves, they are written twice a second.
  tellSoon() {
    clearTimeout(this.teller);
    const wait = this.boxes.length > 60 && this.drag?.moved ? (this.told ?? 0) + 500 - performance.now() : 0;
    if (wait > 0) return void (this.teller = setTimeout(() => this.tellSoon(), wait));
    this.tellAll();
    this.told = performance.now();
  }

  // Python's answer to what is shown must be what is shown.
  confirm(answer) {
    if (answer.request !== this.asked || this.dirty) return;
    this.root.dataset.python = answer.error ? "silent" : agree(answer, this.answer) ? "same" : "other";
    this.tellAll();
  }

  // A scene that came from Python, or from another view of the same explorer.
  adopt() {
    const scene = this.model.get("scene");
    if (this.saving || scene.view === this.name) return;
    this.scene = structuredClone(scene);
    this.asked = Math.max(this.asked, scene.request ?? 0);
    this.shown = Math.min(this.shown, scene.request ?? 0);
    this.dirty = this.adopted = this.local;
    this.quiet();
    this.tellAll();
    this.paint();
  }

  adoptSetting() {
    if (this.saving) return;
    this.settings = this.readSettings();
    this.dirty = this.adopted = this.local;
    this.showSettings();
    this.paint();
  }

  receivePicture() {
    const bytes = this.model.get("picture");
    [this.copies, this.ground] = [[], null];
    if (!bytes?.byteLength) return this.paint();
    const url = URL.createObjectURL(new Blob([bytes]));
    const image = new Image();
    image.onload = () => ((this.copies = [image]), URL.revokeObjectURL(url), (this.ground = null), this.paint());
    image.onerror = () => this.say("The browser cannot show this picture.", true);
    image.src = url;
  }

  // Files of one's own, an image, what belongs to it, or both: the browser reads them, so that it works without Python
  // and nothing leaves the machine. What cannot be read changes nothing.
  async openFiles(files) {
    if (!files.length) return;
    const isImage = ({ name, type }) => type.startsWith("image/") || !/\.(txt|json|xml)$/i.test(name);
    const [file, texts] = [files.find(isImage), files.filter((one) => !isImage(one))];
    try {
      const image = file && (await createImageBitmap(file).catch(() => { throw new Error(`${file.name} cannot be read: the browser knows no such image`); }));
      const extent = image ? [image.height, image.width] : this.extent;
      const read = await Promise.all(texts.map(async (one) => ({ file: one.name, text: await one.text() })));
      const scene = this.opened(file?.name ?? this.scene.image, extent, read);
      const picture = image && new DataView(await file.arrayBuffer());
      this.remember();
      this.scene = scene;
      if (picture) this.lay(picture, extent);
      this.changed();
    } catch (error) {
      this.say(error.message, true);
    }
  }

  lay(picture, extent) {
    this.model.set("extent", extent);
    this.model.set("picture", picture);
    this.model.set("trouble", "");
  }

  opened() { return this.scene; } // (image, extent, [{file, text}]) -> the scene that these files make

  // ---- what is written beside and above the canvas -----------------------------------------------------------------
  say(text, bad = false) {
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.classList.toggle("bad", bad);
  }

  // What is written belongs to the scene as it is: a twin answers first.
  tellAll() {
    if (this.local && this.dirty) return this.answerHere();
    const { error, notes = [] } = this.answer;
    const trouble = this.model.get("trouble");
    const said = [...(error ? [`${this.local ? "Not possible" : "Python says"}: ${error}`] : []), ...(trouble ? [trouble] : []), ...notes];
    const { python } = this.root.dataset;
    const confirmed = { same: "✓ Python says the same", other: "Python says something else: please report this scene" }[python] ?? "";
    const more = said.length > 16 ? [`and ${said.length - 15} more`] : [];
    this.say([...said.slice(0, more.length ? 15 : 16), ...more].join(" · ") || confirmed, !!said.length || python === "other");
    const wait = !this.local && !error && !Object.keys(this.answer).length;
    this.root.setAttribute("aria-busy", wait ? "true" : "false");
    morph(this.panel, (error ? [] : wait ? [make("div", { className: "note waiting" }, "Computing …")] : this.tell()).flat().filter(Boolean));
  }

  tell() { return []; } // nodes of the panel
  draw() {} // on canvas `i`, between the picture and the boxes
  drawOver() {} // between the boxes and the handles
  drawChart() {} // (width, height, i)
  click() { return false; } // (p, screen radius of a finger, i) -> whether it meant something
  hover() {} // (p or null, radius, i)
  hoverChart() {} // (x, y, i)
  scrub() {} // the chart is dragged: (x, y, i) on it
  typed() { return false; } // (key, event) -> whether this explorer knows the key
  look(i) { return { color: this.colors.palette[i % 8] }; } // of a box: color, dash, width, fill, label
  fresh() { // a box to add: in the middle of what is seen
    const [h, w] = this.extent;
    return [...this.center, w / 6 / this.zoom, h / 12 / this.zoom, 0];
  }

  // A row of a table that selects object i, by a click or by its button.
  row(i, cells) {
    const button = make("button", { type: "button", className: "link", ariaPressed: String(i === this.selected), onclick: (e) => (e.stopPropagation(), this.select(i)) }, cells[0]);
    const row = [button, ...cells.slice(1)];
    row.props = { className: i === this.selected ? "chosen pick" : "pick", onclick: () => this.select(i) };
    return row;
  }

  get boxes() { return this.scene.boxes ?? []; }
  get extent() { return this.model.get("extent"); }
  get selected() { return Math.min(this.scene.selected ?? 0, this.boxes.length - 1); }

  // ---- where things are on the screen --------------------------------------------------------------------------------
  refit() {
    this.zoom = 1;
    this.origin = this.ground = null;
    if (this.local) this.dirty = this.adopted = true;
    this.fit();
  }

  fit() {
    const { margin, tallest, chartHeight, side } = this.constructor;
    const [h, w] = this.extent;
    const room = this.root.clientWidth - 24; // without its padding
    if (room <= 0) return;
    const beside = room >= (this.panes.length > 1 ? 1100 : 616);
    const columns = this.panes.length > 1 && room >= 560 ? 2 : 1;
    this.root.classList.toggle("narrow", !beside);
    this.root.classList.toggle("tiny", room < 420);
    this.root.style.setProperty("--columns", columns);
    this.root.style.setProperty("--side", `${side}px`);
    const wide = Math.max((room - (beside ? side + 16 : 0) - 14 * (columns - 1)) / columns, 260);
    const high = Math.max(tallest, Math.min(820, window.innerHeight * 0.72));
    const least = Math.min(margin, wide / 24);
    this.margin = room < 480 ? least : margin;
    this.fitted = Math.min((wide - 2 * this.margin) / w, (high - 2 * this.margin) / h);
    [this.width, this.height] = [w * this.fitted + 2 * this.margin, h * this.fitted + 2 * this.margin];
    for (const { canvas, chart, node } of this.panes) {
      fitCanvas(canvas, this.width, this.height);
      if (chart) fitCanvas(chart, Math.max(this.width, Math.min(wide, 600)), chartHeight);
      node.style.width = `${Math.max(this.width, chart ? Math.min(wide, 600) : 0)}px`;
    }
    this.center = this.origin ?? [w / 2, h / 2];
    this.lookAt(this.center, this.zoom);
    this.restyle();
  }

  // Show the scene around a point; at zoom 1 it is there as a whole.
  lookAt(center, zoom) {
    const [h, w] = this.extent;
    this.zoom = clamp(zoom, 1, 64);
    this.scale = this.fitted * this.zoom;
    const half = [this.width, this.height].map((v) => v / 2 / this.scale);
    const pad = this.margin / this.scale;
    this.center = [w, h].map((v, k) => clamp(center[k], Math.min(half[k] - pad, v / 2), Math.max(v - half[k] + pad, v / 2)));
    this.origin = this.zoom > 1 ? this.center : null;
    this.ground = null;
    for (const { canvas } of this.panes) canvas.classList.toggle("zoomed", this.zoom > 1);
    this.paint();
  }

  zoomBy(factor, fixed = this.center) {
    const zoom = clamp(factor ? this.zoom * factor : 1, 1, 64);
    const keep = this.zoom / zoom; // the fixed point stays where it is
    this.lookAt(this.center.map((v, k) => fixed[k] + (v - fixed[k]) * keep), zoom);
  }

  at([x, y]) { return [this.width / 2 + (x - this.center[0]) * this.scale, this.height / 2 + (y - this.center[1]) * this.scale]; }

  place(event, canvas = event.currentTarget ?? event.target) {
    const frame = this.drag?.frame ?? canvas.getBoundingClientRect();
    return [(event.clientX - frame.left - this.width / 2) / this.scale + this.center[0], (event.clientY - frame.top - this.height / 2) / this.scale + this.center[1]];
  }

  restyle() {
    const style = getComputedStyle(this.root);
    for (const name of ["ink", "soft", "line", "paper", "edge", "accent", "alarm", "band", "hit", "false", "missed"]) this[name] = style.getPropertyValue(`--${name}`).trim();
    this.font = style.fontFamily;
    this.ground = null;
    this.showSettings();
    this.paint();
  }

  paint() {
    if (this.queued) return;
    this.queued = true;
    this.canvas.dataset.busy = "yes"; // until it is drawn, and what was asked is answered
    requestAnimationFrame(() => this.frame());
  }

  frame() {
    this.queued = false;
    if (!this.scale) return;
    if (this.local && this.dirty) this.answerHere();
    this.counts.draws += 1;
    this.panes.forEach((pane, i) => this.drawPane(pane, i));
    const [left, top] = this.at([0, 0]);
    const moving = !!this.drag?.moved;
    Object.assign(this.canvas.dataset, this.counts, { busy: this.waiting || this.dirty || moving ? "yes" : "", request: this.shown, scale: this.scale, left, top, selected: this.selected, error: this.answer.error ?? "" });
    if (!moving) this.canvas.dataset.boxes = JSON.stringify(this.boxes);
  }

  drawPane({ canvas, chart }, i) {
    const below = this.below(i);
    this.g = canvas.getContext("2d");
    this.g.drawImage(below, 0, 0, this.width, this.height);
    this.draw(i);
    this.drawBoxes(i);
    this.drawOver(i);
    this.drawHandles();
    if (!chart) return;
    this.g = chart.getContext("2d");
    const [width, height] = [parseFloat(chart.style.width), parseFloat(chart.style.height)];
    this.g.clearRect(0, 0, width, height);
    this.drawChart(width, height, i);
  }

  drawBoxes() {
    this.boxes.forEach((box, i) => plain(box) && this.outline(box, { ...this.look(i), width: i === this.selected ? 2.6 : 1.8 }));
  }

  below() { return this.background(); } // what lies under all that pane `i` draws in every frame

  // Paper and picture as they lie under all panes: drawn anew only when the view changes.
  background() {
    if (this.ground) return this.ground;
    const g = (this.ground = sheet(this.width, this.height)).getContext("2d");
    const [h, w] = this.extent;
    const [left, top] = this.at([0, 0]);
    const area = [left, top, w * this.scale, h * this.scale];
    g.fillStyle = this.edge;
    g.fillRect(0, 0, this.width, this.height);
    g.fillStyle = this.paper;
    g.fillRect(...area);
    if (this.copies.length) g.drawImage(this.copyFor(area[2] * (window.devicePixelRatio || 1)), ...area);
    g.strokeStyle = "rgb(255 255 255 / 20%)";
    g.strokeRect(...area);
    return this.ground;
  }

  // The picture, halved until it has at most twice the pixels that it is drawn on: each size is made once.
  copyFor(wide) {
    let n = 0;
    for (; this.copies[n].width > 2 * wide; n += 1) this.copies[n + 1] ??= halved(this.copies[n]);
    return this.copies[n];
  }

  // ---- handles: eight to stretch, one to turn ------------------------------------------------------------------------
  handles() {
    const box = this.boxes[this.selected];
    if (!plain(box ?? [])) return [];
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
  under(p, finger = 9) {
    const pad = 5 / this.scale;
    const inside = (box) => {
      const [u, v] = turned(p[0] - box[0], p[1] - box[1], -box[4]);
      return Math.abs(u) <= box[2] / 2 + pad && Math.abs(v) <= box[3] / 2 + pad;
    };
    const own = this.boxes[this.selected];
    const reach = plain(own ?? []) && inside(own) ? Math.min(finger, (Math.min(own[2], own[3]) * this.scale) / 4) : finger; // a small box can still be moved
    const far = ({ at }) => Math.hypot(at[0] - p[0], at[1] - p[1]) * this.scale;
    const grip = this.handles().map((g) => ({ ...g, far: far(g) })).filter((g) => g.far < (g.kind === "turn" ? finger : reach)).sort((a, b) => a.far - b.far)[0];
    if (grip) return { ...grip, index: this.selected };
    const hit = this.boxes.map((box, index) => ({ box, index, kind: "move" })).filter(({ box }) => plain(box ?? []) && inside(box));
    hit.sort((a, b) => (b.index === this.selected) - (a.index === this.selected) || a.box[2] * a.box[3] - b.box[2] * b.box[3]);
    return hit[0];
  }

  // A finger on a box drags it; beside the boxes it scrolls the page, unless the view is zoomed. Two fingers zoom.
  touch(event) {
    const [a, b] = event.touches;
    if (b) this.drag = null;
    this.fingers = b ? { far: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), zoom: this.zoom } : null;
    if (b || this.zoom > 1 || this.under(this.place(a, event.currentTarget), 16)) event.preventDefault();
  }

  pinch(event) {
    const [a, b] = event.touches;
    if (!b || !this.fingers) return;
    event.preventDefault();
    const middle = { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
    const zoom = (this.fingers.zoom * Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY)) / this.fingers.far;
    this.zoomBy(zoom / this.zoom, this.place(middle, event.currentTarget));
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    this.zoomBy(1.0015 ** -event.deltaY, this.place(event));
  }

  press(event) {
    if (event.button || this.fingers) return;
    const canvas = event.currentTarget;
    canvas.setPointerCapture?.(event.pointerId);
    canvas.focus({ preventScroll: true });
    const p = this.place(event, canvas);
    const hit = this.under(p, event.pointerType === "touch" ? 16 : 9);
    this.drag = { p, hit, canvas, frame: canvas.getBoundingClientRect(), center: this.center, start: hit && [...this.boxes[hit.index]], before: this.snapshot(), moved: false, x: event.clientX, y: event.clientY };
  }

  move(event, i) {
    const canvas = event.currentTarget ?? this.panes[i].canvas;
    const p = this.place(event, canvas);
    const { drag } = this;
    if (!drag) {
      const kind = this.under(p)?.kind;
      canvas.style.cursor = { turn: "grab", stretch: "crosshair", move: "move" }[kind] ?? (this.zoom > 1 ? "grab" : "default");
      return this.hover(p, 8 / this.scale, i);
    }
    if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 3) return;
    if (!drag.hit) {
      drag.moved = true;
      return this.zoom > 1 && this.lookAt([drag.center[0] - (event.clientX - drag.x) / this.scale, drag.center[1] - (event.clientY - drag.y) / this.scale], this.zoom);
    }
    if (!drag.moved) {
      drag.moved = true;
      this.remember(drag.before);
      this.scene.selected = drag.hit.index;
      this.hover(null);
      this.tellAll();
    }
    this.boxes[drag.hit.index] = this.dragged(drag.hit, drag.start, drag.p, p, event.shiftKey);
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
    this.drag = this.fingers = null;
    if (drag?.moved) return this.tellAll(), this.paint(); // without delay
    if (!drag) return;
    const [p, i] = [this.place(event, drag.canvas), this.panes.findIndex(({ canvas }) => canvas === drag.canvas)];
    if (event.type === "pointerup" && !this.click(p, 8 / this.scale, i) && drag.hit) this.select(drag.hit.index);
  }

  // ---- keys and buttons ------------------------------------------------------------------------------------------------
  snapshot() { return { ...structuredClone({ scene: this.scene, settings: this.settings }), picture: this.model.get("picture"), extent: this.extent }; }

  remember(state = this.snapshot()) {
    this.past.push(state);
    this.past.splice(0, this.past.length - 200);
    this.future = [];
    this.turning = null;
  }

  step(from, to) {
    if (!from.length) return;
    to.push(this.snapshot());
    const { scene, settings, picture, extent } = from.pop();
    if (!this.local && !same(settings, this.settings)) this.forget();
    [this.scene, this.settings] = [scene, settings];
    this.showSettings();
    if (picture !== this.model.get("picture")) this.lay(picture, extent);
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
    this.code.value = this.program();
    this.root.dataset.copied = this.code.value;
    try {
      await navigator.clipboard.writeText(this.code.value);
      this.say("Copied.");
    } catch { // no right to the clipboard: show the text, selected
      this.code.hidden = !this.code.hidden;
      if (!this.code.hidden) this.code.select();
    }
  }

  // Keys belong to the canvas; only undo and redo reach further. All others are the browser's.
  type(event) {
    const field = event.target.closest("textarea, select, input[type=number]");
    const control = event.ctrlKey || event.metaKey;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (field || (!control && !event.target.closest("canvas"))) return;
    const known = control ? this.command(key, event) : this.typed(key, event) || this.edit(key, event);
    if (!known) return;
    event.preventDefault();
    event.stopPropagation();
    this.tellAll();
    const box = this.boxes[this.selected];
    if (plain(box ?? [])) this.voice.textContent = `object ${this.selected + 1} of ${this.boxes.length}: x ${number(box[0], 0)}, y ${number(box[1], 0)}, ${number(box[2], 0)} by ${number(box[3], 0)} pixels, ${number(box[4] / DEGREE, 0)} degrees. ${this.spoken()}`;
  }

  spoken() { return ""; } // what became of the selected object, for those who listen

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
    if ((dx || dy || turn) && plain(box ?? [])) {
      this.remember();
      const [x, y, w, h, t] = box;
      this.boxes[this.selected] = event.shiftKey && !turn ? [x, y, Math.max(0, w + dx), Math.max(0, h + dy), t] : [x + dx, y + dy, w, h, t + turn * DEGREE];
      return this.changed(), true;
    }
    const zoom = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 0 }[key];
    if (zoom !== undefined) return this.zoomBy(zoom, box ? [box[0], box[1]] : undefined), true;
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
