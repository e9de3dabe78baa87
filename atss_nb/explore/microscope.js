// The ATSS microscope: which anchors learn which object, and why, under two rules side by side.

const WHY = [
  ({ iou, margin }) => `positive: IoU ${iou.toFixed(3)} is enough, and the centre lies ${margin.toFixed(1)} px inside.`,
  ({ iou, threshold }) => `not chosen: IoU ${iou.toFixed(3)} is below the threshold ${threshold.toFixed(3)}.`,
  ({ margin }) => `not chosen: its centre is not inside, or not central enough (${margin.toFixed(1)} px deep).`,
  ({ winner }) => `not chosen: object ${winner} takes it.`,
  () => "not chosen: its level is for objects of another size.",
  ({ iou }) => `ignored: IoU ${iou.toFixed(3)} is too little for a positive and too much for a negative.`,
];
const WHY_NONE = { [BELOW_THRESHOLD]: "overlap too little", [CENTER_OUTSIDE]: "lie outside", [LOST]: "go to another object", [WRONG_SIZE]: "are for another size", [BETWEEN]: "are neither positive nor negative" };
const NONE = [];
const MOST_SHOWN = 150; // candidates of the selected object

// Why an object learns nothing, in words.
function whyNone(row, g) {
  const counts = Object.entries(WHY_NONE).map(([reason, text]) => [row.reason.reduce((n, r) => n + (r === +reason), 0), text]);
  return `Object ${g + 1} learns nothing: of its ${row.index.length} candidates ${counts.filter(([n]) => n).map(([n, text]) => `${n} ${text}`).join(", ")}.`;
}

// The candidates worth showing: all, or the positives and those that overlap most.
function shownColumns(row) {
  const all = Array.from(row.index.keys());
  if (all.length <= MOST_SHOWN) return all;
  const rank = (c) => (row.reason[c] === POSITIVE ? 2 : 0) + row.iou[c] - 1e-9 * row.distance[c];
  return all.sort((a, b) => rank(b) - rank(a)).slice(0, MOST_SHOWN).sort((a, b) => a - b);
}

function marksOf(rule, row) {
  if (rule.name === "ATSS") return [{ x: row.mean, label: "mean" }, { x: row.threshold, label: "threshold: mean + std" }];
  return rule.name === "MaxIoU" ? [{ x: 0.4, label: "negative below" }, { x: 0.5, label: "positive from" }] : [];
}

const candidate = (grid, row, g, c) => ({ g, c, anchor: row.index[c], level: row.level[c], at: grid.box(row.index[c]).slice(0, 2), iou: row.iou[c], reason: row.reason[c] });

// The positives of object `g`: the very same list while they stay the same.
function wonBy(grid, row, g) {
  const { claims, reason, won = NONE } = row;
  let n = 0;
  let alike = !!row.won;
  for (const c of claims) if (reason[c] === POSITIVE) alike = won[n++]?.c === c && alike;
  if (!alike || won.length !== n) row.won = Array.from(claims.filter((c) => reason[c] === POSITIVE), (c) => candidate(grid, row, g, c));
  return row.won;
}

// One rule's answer to the scene: what Python's `Microscope.respond` says of it, and what else is drawn.
function sideAnswer(rule, grid, seen, known, selected, picked) {
  const { rows, owner, best } = explain(rule, grid, seen, known);
  const won = rows.map((row, g) => wonBy(grid, row, g));
  const levels = grid.levels.map(({ stride, height, width }) => ({ stride, cells: [height, width], positives: 0 }));
  for (const list of won) for (const { level } of list) levels[level].positives += 1;
  const positives = won.reduce((sum, list) => sum + list.length, 0);
  const orphaned = won.flatMap((list, g) => (list.length ? [] : [g]));
  let ignored = 0;
  if (rule.name === "MaxIoU") for (const i of new Set(rows.flatMap((row) => Array.from(row.claims, (c) => row.index[c])))) ignored += owner[i] === -2;
  const line = { ATSS: (row) => row.threshold, MaxIoU: () => 0.5 }[rule.name];
  const objects = { positives: won.map((list) => list.length), best: rows.map((row) => row.best), threshold: line ? rows.map(line) : null };
  const mine = rows[selected] ? shownColumns(rows[selected]).map((c) => candidate(grid, rows[selected], selected, c)) : [];
  return {
    rule, grid, rows, owner, best, won, mine, levels, objects,
    marks: rows[selected] ? marksOf(rule, rows[selected]) : [],
    counts: { positives, ignored, anchors: grid.count, per_location: grid.per, orphans: orphaned.length },
    orphans: orphaned.slice(0, 3).map((g) => whyNone(rows[g], g)),
    candidates: mine.map((m) => [m.anchor, m.level, ...m.at, m.iou, m.reason]),
    picked: pickedOf(rows, owner, grid, objects, selected, picked),
  };
}

// Every number of one candidate, and what became of it.
function pickedOf(rows, owner, grid, objects, g, anchor) {
  const c = rows[g] && anchor != null ? rows[g].index.indexOf(anchor) : -1;
  if (c < 0) return null;
  const [iou, distance, margin] = ["iou", "distance", "margin"].map((name) => rows[g][name][c]);
  const reason = WHY[rows[g].reason[c]]({ iou, margin, threshold: objects.threshold?.[g] ?? 0, winner: owner[anchor] + 1 });
  return { anchor, box: grid.box(anchor), level: rows[g].level[c], iou, distance, margin, reason, positive: rows[g].reason[c] === POSITIVE };
}

// The three steps of each rule: what they do with the candidates of one object, in a sentence.
const STEPS = [["nearest", "overlap", "inside"], ["overlapping", "threshold", "the best"], ["central cells", "near and inside", "size"]];
const RULES = ["ATSS", "MaxIoU", "centre sampling"];

function saying({ rule, rows, objects }, g, stage, name) {
  const row = rows[g];
  const n = (test) => row.reason.reduce((sum, _, c) => sum + test(c), 0);
  const total = row.index.length;
  const [f, positives] = [(v) => v.toFixed(3), objects.positives[g]];
  if (rule.name === "ATSS") {
    return [
      `The ${rule.k} anchors of each level that are nearest to the centre of ${name}: ${total} candidates, however little they overlap.`,
      `Their IoUs have the mean ${f(row.mean)} and the standard deviation ${f(row.std)}. What stays below ${f(row.mean)} + ${f(row.std)} = ${f(row.threshold)} is crossed out: ${n((c) => row.iou[c] < row.threshold - ROUNDING)}.`,
      `What is left must have its centre inside the object: ${positives} positives.`,
    ][stage - 1];
  }
  if (rule.name === "MaxIoU") {
    return [
      `Every anchor that overlaps ${name} is a candidate: ${total}.`,
      `The same line for all objects: IoU 0.5. Below 0.4 an anchor is a negative, between the two it is ignored. ${n((c) => row.iou[c] >= 0.5 - ROUNDING)} are above.`,
      `The best anchor of an object learns it whatever its IoU, here ${f(row.best)}: ${positives} positive${positives === 1 ? "" : "s"}.`,
    ][stage - 1];
  }
  return [
    `The cells around the centre of ${name}, on each level: ${total} candidates.`,
    `They must lie inside, within 1.5 strides of the centre along each side: ${n((c) => row.judged[c] !== CENTER_OUTSIDE)} do.`,
    `Each level is for a range of sizes, whatever the overlap: ${positives} positives.`,
  ][stage - 1];
}

// Has a candidate been crossed out after so many steps?
function crossedOut({ rule, rows }, { g, c }, stage) {
  const row = rows[g];
  if (rule.name === "ATSS") return (stage >= 2 && row.iou[c] < row.threshold - ROUNDING) || (stage >= 3 && row.margin[c] <= 0.01);
  if (rule.name === "MaxIoU") return stage >= 2 && row.iou[c] < 0.5 - ROUNDING && !(stage >= 3 && row.reason[c] === POSITIVE);
  return (stage >= 2 && row.judged[c] === CENTER_OUTSIDE) || (stage >= 3 && row.judged[c] === WRONG_SIZE);
}

class Microscope extends Explorer {
  static many = true;
  static opens = true;
  static side = 370;
  static chartHeight = 172;
  static chartText = "IoUs of the candidates";
  static keys = [
    [", .", "previous, next candidate of the object"],
    ["1 2 3 4", "the steps of the rules, and their result"],
    ["escape", "let the candidate go"],
  ];

  static respond(explorer) {
    const { boxes, extent, scene, selected } = explorer;
    const known = (explorer.known ??= []);
    const rules = explorer.rules;
    const alike = rules[1] && same(rules[0].shape, rules[1].shape);
    const answers = rules.map((rule, i) => {
      if (!rule) return null;
      const key = JSON.stringify([rule, extent]);
      if (known[i]?.key !== key) known[i] = { key, grid: new Grid(extent, rule.shape), before: null };
      const picked = alike || (scene.side ?? 0) === i ? scene.picked : null;
      const answer = sideAnswer(rule, known[i].grid, rule.upright ? boxes.map(upright) : boxes, known[i].before, selected, picked);
      known[i].before = answer;
      return answer;
    });
    return { ...answers[0], versus: answers[1], alike };
  }

  // The rules of both sides as the settings have them; null where there is nothing to compare.
  get rules() {
    const { scale, offset } = this.settings;
    return ["", "other_"].map((p) => {
      const [name, k, wide, tiling] = ["rule", "k", "upright", "tiling"].map((n) => this.settings[p + n]);
      return RULES.includes(name) ? { name, k, upright: wide, shape: { scale, tiling, offset } } : null;
    });
  }

  get sides() { return [this.answer.counts ? this.answer : null, this.answer.versus ?? null]; }

  nameOf(g) { return this.scene.names?.[g] ? `the ${this.scene.names[g]}` : `object ${g + 1}`; }

  // ---- the page --------------------------------------------------------------------------------------------------
  footer(settings) { return make("details", {}, make("summary", {}, "More settings"), settings); }

  header() {
    this.stage = 4;
    this.objects = new LongTable();
    this.list = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "positives of each object", dataset: { own: "yes" } }, this.objects.node);
    const tries = [["Shrink the smallest object until it learns nothing", this.shrink], ["Turn the longest one by 45°", this.turnLongest], ["Lay the smallest on top of the largest", this.cover]];
    this.play = make("button", { type: "button", className: "play", title: "Play the steps of the rules for the selected object", onclick: () => (this.playing ? this.stopPlay() : this.startPlay()) }, "▶ Play the rules");
    this.steps = [1, 2, 3, 4].map((n) => make("button", { type: "button", onclick: () => (this.stopPlay(), this.show(n)) }));
    return [
      make("p", { className: "intro" }, "Before a detector learns, a rule decides which anchors – boxes on a grid, here dots – learn which object. Two rules do so here side by side for the same objects: drag one, turn it, stretch it, and see which anchors it wins, which it loses, and why."),
      make("div", { className: "tries", role: "group", ariaLabel: "things to try" }, make("span", { className: "label" }, "Try:"), tries.map(([text, act]) => make("button", { type: "button", onclick: () => this.perform(act) }, text))),
      make("div", { className: "steps", role: "group", ariaLabel: "steps of the rules" }, this.play, this.steps),
    ];
  }

  makePanes() {
    return [0, 1].map((i) => {
      const controls = this.controls.filter((c) => c.side === i + 1);
      const said = make("p", { className: "saying" });
      const head = [make("div", { className: "controls" }, controls.map((c) => this.buildControl(c))), said];
      return { ...this.makePane(`${this.model.get("title")}, ${i ? "right" : "left"}`, head), said };
    });
  }

  showSettings() {
    super.showSettings();
    const { rules } = this;
    this.panes.forEach(({ node }, i) => {
      const k = node.querySelector("[data-name$=k]");
      k?.classList.toggle("unused", rules[i]?.name !== "ATSS");
      for (const part of node.querySelectorAll("canvas, .saying, .control:not([data-name$=rule])")) part.hidden = !rules[i];
    });
  }

  // ---- the three steps ---------------------------------------------------------------------------------------------
  get calm() { return window.matchMedia("(prefers-reduced-motion: reduce)").matches; }

  show(stage) {
    this.stage = stage;
    this.began = performance.now();
    this.tellAll();
    this.paint();
  }

  startPlay() {
    this.playing = true;
    this.show(1);
    const next = () => {
      if (this.stage === 4) return this.stopPlay();
      this.show(this.stage + 1);
      this.playTimer = setTimeout(next, this.stage === 4 ? 0 : 3200);
    };
    this.playTimer = setTimeout(next, 2600);
    this.tellAll();
  }

  stopPlay() {
    clearTimeout(this.playTimer);
    this.playing = false;
    this.tellAll();
  }

  // How far the motion of this step has come, from 0 to 1; the next frame is asked for while it moves.
  get progress() {
    const t = this.calm || !this.began ? 1 : Math.min(1, (performance.now() - this.began) / 1100);
    if (t < 1) this.paint();
    return t;
  }

  // ---- things to try: the scene moves as a hand would move it, and undo takes it back ---------------------------------
  perform(act) {
    if (!this.boxes.length) return;
    this.stopPlay();
    this.stage = 4;
    this.remember();
    this.zoomBy(0);
    cancelAnimationFrame(this.moving);
    act.call(this);
  }

  bySize(largest) {
    const area = (i) => this.boxes[i][2] * this.boxes[i][3];
    return this.boxes.map((_, i) => i).reduce((a, b) => (area(b) > area(a) === largest ? b : a));
  }

  // Move box `i` step by step while `next(box, t)` gives one; at once where motion is not welcome.
  animate(i, next, steps = 60) {
    this.scene.selected = i;
    delete this.scene.picked;
    const start = [...this.boxes[i]];
    let n = 0;
    const frame = () => {
      n += 1;
      const box = next(start, n / steps);
      if (!box) return;
      this.boxes[i] = box;
      this.changed();
      if (n < steps) this.calm ? frame() : (this.moving = requestAnimationFrame(frame));
    };
    frame();
  }

  shrink() {
    const i = this.bySize(false);
    this.animate(i, ([x, y, w, h, t], s) => (s > 0.02 && this.lost(i) ? null : [x, y, w * 0.95 ** (120 * s), h * 0.95 ** (120 * s), t]), 120);
  }

  lost(i) {
    this.answerHere();
    return this.sides.some((side) => side && side.objects.positives[i] === 0);
  }

  turnLongest() {
    const long = ([, , w, h]) => Math.max(w, h) / Math.max(1e-9, Math.min(w, h));
    const i = this.boxes.map((_, j) => j).reduce((a, b) => (long(this.boxes[b]) > long(this.boxes[a]) ? b : a));
    this.animate(i, ([x, y, w, h, t], s) => [x, y, w, h, t + (s * Math.PI) / 4]);
  }

  cover() {
    const to = this.boxes[this.bySize(true)];
    this.animate(this.bySize(false), ([x, y, w, h, t], s) => [x + (to[0] - x) * s, y + (to[1] - y) * s, w, h, t]);
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------
  // Dots shrink with the picture, or hundreds of objects would vanish under theirs.
  radius(level) { return (3 + 0.7 * level) * this.fine; }

  get fine() { return clamp(1.25 * this.scale, 0.35, 1); }

  lost(i, g) { return this.sides[i]?.objects.positives[g] === 0; }

  // All objects but the selected one lie below, with their anchors: what moves is drawn over them.
  below(i) {
    const ground = super.below(i);
    this.layers ??= [];
    if (this.layers[i]?.ground !== ground) this.layers[i] = new Layer(ground, this.width, this.height);
    const layer = this.layers[i];
    layer.update(this.boxes.map((_, g) => (g === this.selected ? null : this.thing(i, g, layer.things?.[g]))), (g, shown) => {
      this.g = g;
      if (this.stage === 4) this.drawAnchors(i, shown);
      this.drawOutlines(i, shown);
    });
    return layer.canvas;
  }

  // What is drawn of an object, for its layer; `old` if that is the same.
  thing(i, g, old) {
    const box = this.boxes[g];
    if (!plain(box ?? [])) return null;
    const won = (this.stage === 4 && this.sides[i]?.won[g]) || NONE;
    const news = won.map((c) => this.isNews(c, i));
    if (old?.won === won && old.news.every((v, k) => v === news[k]) && old.box.every((v, k) => v === box[k])) return old;
    const places = [...corners(box), ...won.map(({ at }) => at)].map((p) => this.at(p));
    const [xs, ys] = [0, 1].map((k) => places.map((p) => p[k]));
    return { box: [...box], won, news, area: [Math.floor(Math.min(...xs)) - 12, Math.floor(Math.min(...ys)) - 12, Math.ceil(Math.max(...xs)) + 12, Math.ceil(Math.max(...ys)) + 12] };
  }

  // The anchors that learn these objects, tied to them.
  drawAnchors(i, objects) {
    const side = this.sides[i];
    if (!side) return;
    const seen = objects.flatMap((g) => side.won[g] ?? []).filter(({ at }) => this.inView(at));
    const { levels } = this.colors;
    levels.forEach((color, level) => {
      this.g.beginPath();
      for (const { g, at, level: own } of seen) if (own === level) (this.g.moveTo(...this.at(at)), this.g.lineTo(...this.at(this.boxes[g] ?? at)));
      [this.g.strokeStyle, this.g.lineWidth, this.g.globalAlpha] = [color, 1, 0.6];
      this.g.stroke();
      this.g.globalAlpha = 1;
    });
    const news = seen.filter((d) => this.isNews(d, i));
    levels.forEach((color, level) => {
      this.dots(news.filter((d) => d.level === level), this.radius(level) + 3 * this.fine, "#ffffff", "rgb(0 0 0 / 60%)");
      this.dots(seen.filter((d) => d.level === level), this.radius(level) + 0.5 * this.fine, color, rim(color));
    });
  }

  drawOutlines(i, objects) {
    for (const orphan of [false, true]) {
      this.g.beginPath();
      for (const g of objects) if (this.lost(i, g) === orphan) this.ring(corners(this.boxes[g]));
      this.stroke(orphan ? this.colors.roles.gone : "#ffffff", 1.8 * Math.max(0.6, this.fine), orphan ? [7, 6] : []);
    }
  }

  drawBoxes(i) {
    if (this.boxes.length <= 40 && this.stage === 4) this.boxes.forEach((box, g) => g !== this.selected && plain(box ?? []) && this.label(i, g));
    const box = this.boxes[this.selected];
    if (!plain(box ?? [])) return;
    const lost = this.lost(i, this.selected);
    this.outline(box, { color: lost ? this.colors.roles.gone : "#ffffff", dash: lost ? [7, 6] : [], width: 2.6 });
    this.label(i, this.selected);
  }

  ring(points) {
    points.forEach((p, k) => (k ? this.g.lineTo(...this.at(p)) : this.g.moveTo(...this.at(p))));
    this.g.closePath();
  }

  label(i, g) {
    const [x, y] = this.at(corners(this.boxes[g]).reduce((a, b) => (b[1] < a[1] ? b : a)));
    const orphan = this.lost(i, g);
    const count = this.sides[i] ? `: ${orphan ? "learns nothing" : this.sides[i].objects.positives[g] ?? ""}` : "";
    this.write(`${g + 1}${count}`, [clamp(x, 24, this.width - 24), Math.max(y, 18)], orphan ? this.colors.roles.gone : "#ffffff");
  }

  draw(i) {
    const side = this.sides[i];
    if (!side) return;
    if (this.stage < 4) return this.drawStep(side, i);
    const { levels } = this.colors;
    this.g.globalAlpha = side.mine.length > 60 ? 0.35 : 0.75;
    for (const { level, at, reason } of side.mine) if (reason !== POSITIVE) this.ringlet(this.at(at), this.radius(level), levels[level]);
    this.g.globalAlpha = 1;
    this.drawAnchors(i, [this.selected]);
    this.drawPicked(side);
  }

  // A candidate that was not chosen: there, but no more than that.
  ringlet([x, y], radius, color) {
    this.g.beginPath();
    this.g.arc(x, y, radius, 0, 7);
    [this.g.strokeStyle, this.g.lineWidth] = [color, 1.6];
    this.g.stroke();
  }

  inView(p) {
    const [x, y] = this.at(p);
    return x > -20 && y > -20 && x < this.width + 20 && y < this.height + 20;
  }

  // Does only this side give this anchor to this object?
  isNews({ anchor, g }, i) { return this.answer.alike && !!this.sides[1 - i] && this.sides[1 - i].owner[anchor] !== g; }

  dots(dots, radius, color, edge) {
    if (!dots.length) return;
    this.g.beginPath();
    for (const { at } of dots) {
      const [x, y] = this.at(at);
      this.g.moveTo(x + radius, y);
      this.g.arc(x, y, radius, 0, 7);
    }
    [this.g.fillStyle, this.g.strokeStyle, this.g.lineWidth] = [color, edge, 1];
    this.g.fill();
    this.g.stroke();
  }

  drawStep(side) {
    const { levels } = this.colors;
    this.g.fillStyle = "rgb(0 0 0 / 45%)";
    this.g.fillRect(0, 0, this.width, this.height);
    const t = this.progress;
    side.mine.forEach((m, n) => {
      const out = crossedOut(side, m, this.stage);
      const fresh = out && !crossedOut(side, m, this.stage - 1);
      const grown = this.stage === 1 ? clamp(t * 1.6 - (0.6 * n) / side.mine.length, 0, 1) : 1;
      if (!grown) return;
      const place = this.at(m.at);
      this.g.globalAlpha = out && !fresh ? 0.35 : 1;
      this.disc(place, this.radius(m.level) * grown + (this.stage === 1 ? 4 * Math.sin(Math.PI * grown) : 0), levels[m.level], !out);
      if (out) this.cross(place, this.radius(m.level) + 2, fresh ? t : 1);
      this.g.globalAlpha = 1;
    });
    this.drawPicked(side);
  }

  cross([x, y], r, grown = 1) {
    this.g.beginPath();
    for (const s of [-1, 1]) (this.g.moveTo(x - r, y - s * r), this.g.lineTo(x - r + 2 * r * grown, y - s * r + 2 * s * r * grown));
    this.stroke(this.colors.roles.gone, 1.4);
  }

  drawPicked(side) {
    const { levels } = this.colors;
    for (const about of [this.hovered?.side === side.rule && this.hovered, side.picked]) {
      if (!about) continue;
      this.outline(about.box, { color: levels[about.level], dash: [3, 5], width: 2, bar: false });
      this.g.beginPath();
      this.g.arc(...this.at(about.box), this.radius(about.level) + 5, 0, 7);
      this.stroke("#ffffff", 2);
    }
    if (this.hovered?.side !== side.rule) return;
    const { box, iou, level, reason } = this.hovered;
    const [x, y] = this.at(box);
    const text = `IoU ${number(iou)}, stride ${STRIDES[level]}: ${["positive", "overlaps too little", "centre outside", "another object has it", "another level's size", "ignored"][reason]}`;
    this.write(text, [clamp(x, 120, Math.max(120, this.width - 120)), Math.max(22, y - 12)], "#ffffff");
  }

  // The strip: the IoUs of the selected object's candidates, level by level, and the lines the rule draws through them.
  drawChart(width, height, i) {
    const side = this.sides[i];
    if (!side?.rows[this.selected]) return;
    const top = Math.ceil(Math.max(0.2, ...side.mine.map((c) => c.iou), ...side.marks.map((m) => m.x)) * 1.06 * 20) / 20;
    const area = (this.strip = [56, 34, width - 74, height - 66]);
    const { stage, accent, soft } = this;
    const t = this.stage === 2 ? this.progress : 1;
    const shown = stage === 1 ? [] : side.marks;
    const px = (x) => area[0] + (x / top) * area[2];
    if (side.rule.name === "ATSS" && shown.length) { // the band of one standard deviation
      this.g.fillStyle = this.band;
      this.g.fillRect(px(shown[0].x), area[1], (px(shown[1].x) - px(shown[0].x)) * t, area[3]);
    }
    const marks = shown.map((m, n) => ({ x: m.x, color: n ? accent : soft, dash: n ? [] : [4, 4] }));
    this.plot({ area, x: [0, top], y: [0, 1], ticks: [rounds(top), []], xlabel: `IoU of ${side.mine.length < side.rows[this.selected].index.length ? `the best ${side.mine.length}` : `the ${side.mine.length}`} candidates of object ${this.selected + 1}`, marks });
    shown.forEach((m, n) => this.write(`${m.label} ${number(m.x)}`, [n ? width - 14 : area[0], n ? 28 : 14], n ? accent : soft, { size: 12, align: n ? "right" : "left", rim: false, bold: !!n }));
    const line = (level) => area[1] + ((level + 0.5) / side.levels.length) * area[3];
    side.levels.forEach((v, n) => this.write(`${v.stride}`, [area[0] - 8, line(n) + 4], this.soft, { size: 11, align: "right", rim: false, bold: false }));
    this.write("stride", [area[0] - 8, area[1] - 6], this.soft, { size: 11, align: "right", rim: false, bold: false });
    for (const m of side.mine) {
      const out = stage < 4 ? crossedOut(side, m, stage) : m.reason !== POSITIVE;
      const fall = stage === 2 ? 1 - (1 - t) ** 3 : 1;
      const place = [px(m.iou), (area[1] - 8) * (1 - fall) + line(m.level) * fall];
      const big = m.anchor === this.scene.picked || (this.hovered?.anchor === m.anchor && this.hovered.side === side.rule);
      this.g.globalAlpha = stage < 4 && out ? 0.5 : 1;
      this.disc(place, big ? 7 : 4.5, this.colors.levels[m.level], !out);
      if (stage < 4 && out && t === 1) this.cross(place, 5);
      this.g.globalAlpha = 1;
    }
    this.panes[i].dots = side.mine.map((m) => ({ ...m, x: px(m.iou), y: line(m.level) }));
  }

  // ---- the pointer and the keys --------------------------------------------------------------------------------------
  hover(p, reach, i) {
    const near = p ? this.near(p, reach, i)[0] : null;
    this.setHovered(near, i);
  }

  setHovered(m, i) {
    const side = this.sides[i];
    if ((m?.anchor ?? null) === (this.hovered?.anchor ?? null)) return;
    this.hovered = m ? { ...m, side: side.rule, box: side.grid.box(m.anchor) } : null;
    this.paint();
  }

  // Candidates near a point, the nearest spot first; those of the selected object before others.
  near(p, reach, i) {
    const side = this.sides[i];
    if (!side) return [];
    const far = (c) => Math.hypot(c.at[0] - p[0], c.at[1] - p[1]);
    const seen = this.stage < 4 ? side.mine : [...side.mine, ...side.won.flatMap((list, g) => (g === this.selected ? [] : list))];
    return seen.map((c) => ({ ...c, far: far(c) + (c.g === this.selected ? 0 : reach / 4) })).filter((c) => c.far < reach).sort((a, b) => a.far - b.far);
  }

  // The candidate under the pointer; again on the same spot: the next one there, as levels share some of their centres.
  click(p, reach, i) {
    const near = this.near(p, reach, i);
    if (!near.length) return false;
    const stack = near.filter((c) => Math.hypot(c.at[0] - near[0].at[0], c.at[1] - near[0].at[1]) * this.scale < 2).sort((a, b) => a.anchor - b.anchor || a.g - b.g);
    const now = stack.findIndex((c) => c.anchor === this.scene.picked && c.g === this.selected && i === (this.scene.side ?? 0));
    return this.pick(stack[(now + 1) % stack.length], i);
  }

  onStrip(x, y, i) { return (this.panes[i].dots ?? []).map((d) => ({ ...d, far: Math.hypot(d.x - x, d.y - y) })).filter((d) => d.far < 12).sort((a, b) => a.far - b.far); }

  hoverChart(x, y, i) {
    const [hit] = this.onStrip(x, y, i);
    this.panes[i].chart.style.cursor = hit ? "pointer" : "default";
    this.setHovered(hit ?? null, i);
  }

  scrub(x, y, i) {
    const [hit] = this.onStrip(x, y, i);
    if (hit) this.pick(hit, i);
  }

  pick({ g, anchor }, i) {
    Object.assign(this.scene, { selected: g, picked: anchor, side: i });
    this.changed();
    return true;
  }

  typed(key) {
    const i = document.activeElement === this.panes[1].canvas && this.sides[1] ? 1 : 0;
    const mine = this.sides[i]?.mine ?? [];
    const step = { ",": -1, ".": 1 }[key];
    if (step && mine.length) {
      const now = mine.findIndex((c) => c.anchor === this.scene.picked);
      return this.pick(mine[(now + step + mine.length) % mine.length], i);
    }
    if ("1234".includes(key)) return this.stopPlay(), this.show(+key), true;
    if (key !== "Escape") return false;
    delete this.scene.picked;
    return this.changed(), true;
  }

  spoken() {
    return this.sides.filter(Boolean).map((s) => `${s.rule.name}: ${s.objects.positives[this.selected] ?? 0} positives.`).join(" ");
  }

  add() {
    this.scene.names?.push("object");
    super.add();
  }

  remove() {
    this.scene.names?.splice(this.selected, 1);
    super.remove();
  }

  opened(image, size, texts) {
    const isNames = ({ file }) => texts.length > 1 && /^(classes|names)\.txt$/i.test(file);
    const names = texts.find(isNames)?.text.split("\n").map((line) => line.trim()).filter(Boolean);
    const objects = texts.filter((one) => !isNames(one)).flatMap((one) => readLabels({ ...one, image, size, names }));
    return { boxes: objects.map(({ box }) => box), names: objects.map(({ name }) => name), selected: 0, image };
  }

  // ---- the panel -----------------------------------------------------------------------------------------------------
  tellAll() {
    super.tellAll();
    if (!this.panes) return;
    const sides = this.sides;
    const name = this.boxes.length ? this.nameOf(this.selected) : "";
    this.panes.forEach(({ said, chart }, i) => {
      morph(said, sides[i] ? (this.stage < 4 && name ? [saying(sides[i], this.selected, this.stage, name)] : this.score(sides[i].counts, i)) : []);
      const { rule, mine, objects, marks } = sides[i] ?? { mine: [] };
      chart.ariaLabel = mine.length ? `IoUs of ${mine.length} candidates of ${name} under ${rule.name}: ${objects.positives[this.selected]} positive, the best ${number(objects.best[this.selected])}${marks.map((m) => `, ${m.label} ${number(m.x)}`).join("")}` : "no candidates";
    });
    const kinds = [...new Set(sides.filter(Boolean).map((s) => RULES.indexOf(s.rule.name)))];
    this.steps.forEach((button, n) => {
      const text = n === 3 ? "result" : `${n + 1} ${kinds.map((k) => STEPS[k][n]).join(" | ")}`;
      if (button.textContent !== text) button.textContent = text;
      button.ariaPressed = String(this.stage === n + 1);
    });
    const label = this.playing ? "❚❚ Stop" : "▶ Play the rules";
    if (this.play.textContent !== label) this.play.textContent = label;
  }

  score({ positives, anchors, ignored }, i) {
    const of = `positives of ${anchors.toLocaleString("en")} anchors${ignored ? `, ${ignored} ignored` : ""}`;
    return [make("b", { className: "big", dataset: { value: i ? "others" : "positives" } }, `${positives}`), ` ${of}`];
  }

  tell() {
    const sides = this.sides.filter(Boolean);
    if (!sides.length) return [];
    const names = sides.map((s) => (s.rule.name === "centre sampling" ? "centre" : s.rule.name));
    const most = Math.max(1, ...sides.flatMap((s) => s.objects.positives));
    const bar = (n) => {
      const cell = make("span", { className: n ? "count" : "count none" }, `${n}`);
      cell.style.setProperty("--share", `${(100 * n) / most}%`);
      return cell;
    };
    const adaptive = sides.filter((s) => s.rule.name === "ATSS");
    const name = (g) => `${g + 1} ${this.scene.names?.[g] ?? ""}`.trim();
    const keys = this.boxes.map((_, g) => [name(g), most, g === this.selected, ...sides.map((s) => s.objects.positives[g]), ...adaptive.map((s) => number(s.objects.threshold[g], 2))].join());
    this.objects.update(["object", ...names, ...adaptive.map(() => "mean+std")], keys, (g) => this.row(g, [name(g), ...sides.map((s) => bar(s.objects.positives[g])), ...adaptive.map((s) => number(s.objects.threshold[g], 2))]));
    const levels = sides[0].levels.map((v, n) => [make("span", {}, dot(this.colors.levels[n]), `stride ${v.stride}`), ...sides.map((s, i) => make("b", { dataset: { [i ? "other" : "level"]: n } }, `${s.levels[n].positives}`))]);
    const lost = sides.reduce((sum, s) => sum + s.counts.orphans, 0);
    const orphans = sides.flatMap((s) => s.orphans.map((text) => (sides.length > 1 ? `${s.rule.name}: ${text}` : text)));
    return [
      ...orphans.slice(0, 3).map((text) => make("div", { className: "alarm", role: "status" }, text)),
      lost > 3 && make("div", { className: "alarm" }, `and ${lost - 3} more`),
      ...this.cards(),
      this.list,
      make("div", {}, table(["level", ...names], levels)),
      this.legendNodes(),
    ].filter(Boolean);
  }

  cards() {
    const picked = this.sides.filter((s) => s?.picked);
    if (!picked.length) return [make("div", { className: "note" }, "Click a dot, in the image or in the strip, or press . to see why it was chosen or not.")];
    const { anchor, level, box, iou, distance, margin } = picked[0].picked;
    const fact = (name, text, key) => [name, make("span", { dataset: { fact: key ?? name } }, text)];
    return [make("div", { className: "card", role: "status" },
      make("div", {}, dot(this.colors.levels[level]), make("b", {}, `anchor ${anchor}`), ` · ${number(box[2], 0)} × ${number(box[3], 0)} px`),
      table(null, [fact("IoU", number(iou)), fact("distance", `${number(distance, 1)} px`), fact("depth inside", `${number(margin, 1)} px`, "margin")]),
      picked.map((s, i) => make("div", { dataset: { fact: i ? "other" : "reason" } }, `${s.rule.name}: ${s.picked.reason}`)))];
  }

  legendNodes() {
    const [color] = this.colors.levels;
    const entry = (mark, text) => make("li", {}, mark, text);
    const ringed = dot(color);
    ringed.classList.add("ringed");
    return make("ul", { className: "legend", ariaLabel: "legend" },
      entry(dot(color), "positive anchor, in the colour of its level"), entry(dot(color, false), "candidate that was not chosen"),
      this.answer.alike && entry(ringed, "positive on this side only"), entry(make("i", { className: "dash" }), "object that learns nothing"));
  }

  // The scene as a program that makes the assignment of the left side.
  program() {
    const { name, k, upright: wide, shape: { scale, tiling: [ratios, sizes], offset } } = this.rules[0];
    const real = (v) => (Number.isInteger(v) ? `${v}.0` : `${v}`);
    const rows = this.boxes.map((b) => `    [${b.map((v) => real(+v.toFixed(6))).join(", ")}],\n`).join("");
    const rule = { ATSS: `ATSS(k=${k})`, MaxIoU: "MaxIoU()", "centre sampling": "CenterSampling()" }[name];
    return [
      "import torch", "",
      ...(wide ? ["from atss_nb.geometry.boxes import hbb2obb, obb2hbb"] : []),
      "from atss_nb.samples.anchors import AnchorGrid", `from atss_nb.samples.assign import ${rule.split("(")[0]}`, "",
      `boxes = torch.tensor([  # cx, cy, w, h [px], angle [rad]\n${rows}], dtype=torch.float64).view(-1, 5)`,
      ...(wide ? ["boxes = hbb2obb(obb2hbb(boxes))"] : []),
      `grid = AnchorGrid(octave_base_scale=${real(scale)}, scales_per_octave=${sizes}, ratios=(${ratios.map(real).join(", ")},), center_offset=${real(offset)})`,
      `explanation = ${rule}.explain(grid((${this.extent.join(", ")})), boxes)`,
      "print(explanation.assignment.gt_index.unique(return_counts=True))", "",
    ].join("\n");
  }
}
