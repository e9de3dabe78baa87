
// The ATSS microscope: which anchors learn which object, and why.
class Microscope extends Explorer {
  static many = true;
  static chartHeight = 150;
  static keys = [
    [", .", "previous, next candidate of the object"],
    ["escape", "let the candidate go"],
  ];

  look(i) {
    const object = this.answer.objects?.[i];
    const orphan = object && !object.positives;
    return { color: orphan ? "#ff6a3d" : "#ffffff", dash: orphan ? [7, 6] : [], label: `${i + 1}${orphan ? " learns nothing" : ""}` };
  }

  // Candidates of the selected object, nearest levels first: {g, anchor, level, at, iou, distance, margin, reason}.
  get candidates() {
    return (this.answer.candidates ?? []).map(([g, anchor, level, x, y, iou, reason]) => ({ g, anchor, level, at: [x, y], iou, positive: reason === 0 }));
  }

  radius(level) { return 3 + 0.7 * level; }

  draw() {
    const { levels } = this.colors;
    const all = this.candidates;
    for (const { g, level, at, positive } of all) {
      const box = this.boxes[g];
      if (!positive || !plain(box ?? [])) continue;
      this.trace([at, box], false);
      this.g.strokeStyle = levels[level];
      this.g.lineWidth = 1;
      this.g.globalAlpha = 0.7;
      this.g.stroke();
      this.g.globalAlpha = 1;
    }
    for (const { g, level, at, positive } of all) {
      if (!positive && g === this.selected) this.disc(this.at(at), this.radius(level), levels[level], false);
    }
    for (const { level, at, positive } of all) {
      if (positive) this.disc(this.at(at), this.radius(level) + 0.5, levels[level]);
    }
    const { picked } = this.answer;
    if (!picked) return;
    this.outline(picked.box, { color: levels[picked.level], dash: [3, 5], width: 2, bar: false });
    this.g.beginPath();
    this.g.arc(...this.at(picked.box), this.radius(picked.level) + 5, 0, 7);
    this.stroke("#ffffff", 2);
  }

  // The candidate under the pointer; again on the same spot: the next one there, as levels share some of their centres.
  click(p, reach) {
    const far = (c, q) => Math.hypot(c.at[0] - q[0], c.at[1] - q[1]);
    const seen = this.candidates.filter((c) => c.positive || c.g === this.selected);
    const near = seen.map((c) => ({ ...c, far: far(c, p) + (c.g === this.selected ? 0 : reach / 4) })).filter((c) => c.far < reach);
    if (!near.length) return false;
    const top = near.reduce((a, b) => (b.far < a.far ? b : a));
    const stack = near.filter((c) => far(c, top.at) * this.scale < 2).sort((a, b) => a.anchor - b.anchor || a.g - b.g);
    const now = stack.findIndex((c) => c.anchor === this.scene.picked && c.g === this.selected);
    return this.pick(stack[(now + 1) % stack.length]);
  }

  pick({ g, anchor }) {
    this.scene.selected = g;
    this.scene.picked = anchor;
    this.changed();
    return true;
  }

  typed(key) {
    const mine = this.candidates.filter((c) => c.g === this.selected);
    const step = { ",": -1, ".": 1 }[key];
    if (step && mine.length) {
      const now = mine.findIndex((c) => c.anchor === this.scene.picked);
      return this.pick(mine[(now + step + mine.length) % mine.length]);
    }
    if (key !== "Escape") return false;
    delete this.scene.picked;
    return this.changed(), true;
  }

  tell() {
    const { levels = [], objects = [], counts, picked, orphans = [] } = this.answer;
    if (!counts) return [];
    const head = make("div", {}, make("div", { className: "big", dataset: { value: "positives" } }, `${counts.positives} positives`), make("div", { className: "note" }, `of ${counts.anchors} anchors, ${counts.per_location} per location${counts.ignored ? `; ${counts.ignored} ignored` : ""}`));
    const alarms = orphans.map((text) => make("div", { className: "alarm", role: "alert" }, text));
    const perLevel = levels.map((v, i) => [make("span", {}, dot(this.colors.levels[i]), `stride ${v.stride}`), `${v.cells[0]} × ${v.cells[1]}`, `${v.candidates}`, make("b", { dataset: { level: i } }, `${v.positives}`)]);
    const perObject = objects.map((o, i) => {
      const row = [`${i + 1}`, make("b", {}, `${o.positives}`), number(o.best), number(o.threshold)];
      row.props = { className: i === this.selected ? "chosen button" : "button", tabIndex: 0, onclick: () => this.select(i), onkeydown: (e) => e.key === "Enter" && this.select(i) };
      return row;
    });
    return [
      head,
      ...alarms,
      make("div", {}, table(["level", "cells", "candidates", "positives"], perLevel)),
      make("div", {}, table(["object", "positives", "best IoU", "threshold"], perObject)),
      picked ? this.card(picked) : make("div", { className: "note" }, "Click a candidate, or press . for the next one, to see why it was chosen or not. Where several lie on one spot, click again."),
    ];
  }

  card({ anchor, level, box, iou, distance, margin, reason, positive }) {
    const fact = (name, text, key) => [name, make("span", { dataset: { fact: key ?? name } }, text)];
    return make("div", { className: "card", role: "status" },
      make("div", {}, dot(this.colors.levels[level], positive), make("b", {}, `anchor ${anchor}`), ` · ${number(box[2], 0)} × ${number(box[3], 0)} px`),
      table(null, [fact("IoU", number(iou)), fact("distance", `${number(distance, 1)} px`), fact("depth inside", `${number(margin, 1)} px`, "margin")]),
      make("div", { dataset: { fact: "reason" } }, reason));
  }

  drawChart(width, height) {
    const { objects = [], levels = [] } = this.answer;
    const object = objects[this.selected];
    if (!object) return;
    const mine = this.candidates.filter((c) => c.g === this.selected);
    const right = Math.max(0.2, ...mine.map((c) => c.iou), ...object.marks.map((m) => m.x)) * 1.06;
    const top = Math.ceil(right * 20) / 20;
    const area = [64, 22, width - 84, height - 54];
    const marks = object.marks.map((m, i) => ({ ...m, label: `${m.label} ${number(m.x)}`, color: i === object.marks.length - 1 ? this.accent : this.soft, dash: i === object.marks.length - 1 ? [] : [4, 4] }));
    const close = marks.length === 2 && Math.abs(marks[0].x - marks[1].x) / top < 0.3;
    if (close) marks[0].label = ""; // told by the panel of the chart's foot, where two labels would meet
    const { px } = this.plot({ area, x: [0, top], y: [0, 1], ticks: [rounds(top), []], xlabel: `IoU of the ${mine.length} candidates of object ${this.selected + 1}`, marks });
    if (close) this.write(`${object.marks[0].label} ${number(object.marks[0].x)}`, [px(marks[0].x) - 4, 17], this.soft, { size: 11, align: "right", rim: false, bold: false });
    const line = (i) => area[1] + ((i + 0.5) / levels.length) * area[3];
    levels.forEach((v, i) => this.write(`stride ${v.stride}`, [area[0] - 8, line(i) + 4], this.soft, { size: 11, align: "right", rim: false, bold: false }));
    for (const { level, iou, positive, anchor } of mine) {
      this.disc([px(iou), line(level)], anchor === this.scene.picked ? 7 : 4.5, this.colors.levels[level], positive);
    }
  }
}

