
// Detections with scores: suppression, precision and recall, and a training run, which share their looks.
class Detections extends Explorer {
  static keys = [["+ -", "raise, lower the score"]];

  typed(key) {
    const step = { "+": 0.01, "=": 0.01, "-": -0.01 }[key];
    const { scores } = this.scene;
    if (!step || !Number.isFinite(scores?.[this.selected])) return false;
    this.remember();
    scores[this.selected] = Math.min(1, Math.max(0, +(scores[this.selected] + step).toFixed(4)));
    return this.changed(), true;
  }
}

class Suppression extends Detections {
  static many = true;

  look(i) {
    const row = this.answer.rows?.[i];
    const label = `${i + 1}: ${number(this.scene.scores?.[i], 2)}`;
    if (!row || row.kept) return { color: this.colors.outcomes.hit, label, fill: "rgb(86 180 233 / 18%)" };
    return { color: this.colors.outcomes.false, dash: [7, 5], label, below: true };
  }

  draw() {
    (this.answer.rows ?? []).forEach((row, i) => {
      const [from, to] = [this.boxes[row.by], this.boxes[i]];
      if (row.by != null && from && to) this.arrow(this.at(from), this.at(to), this.colors.outcomes.false, 1.6);
    });
  }

  tell() {
    const { rows = [], soft, threshold } = this.answer;
    const order = rows.map((row, i) => ({ ...row, i })).sort((a, b) => b.score - a.score || a.i - b.i);
    const cells = order.map((r) => {
      const verdict = r.kept ? "stays" : `goes: ${r.by + 1} covers it`;
      const row = [`${r.i + 1}`, number(r.score, 2), soft ? number(r.lowered, 3) : number(r.iou), make("span", { dataset: { verdict: r.i } }, soft ? (r.kept ? "stays" : "goes") : verdict)];
      row.props = { className: r.i === this.selected ? "chosen button" : "button", tabIndex: 0, onclick: () => this.select(r.i), onkeydown: (e) => e.key === "Enter" && this.select(r.i) };
      return row;
    });
    return [
      make("div", {}, make("div", { className: "big" }, make("span", { dataset: { value: "kept" } }, rows.filter((r) => r.kept).length), ` of ${rows.length} stay`), make("div", { className: "note" }, soft ? "Scores fall with every better box that overlaps." : `A box goes where a better one that stays covers it with IoU above ${number(threshold, 2)}.`)),
      table(["box", "score", soft ? "new score" : "IoU", ""], cells),
    ];
  }
}

class PrecisionRecall extends Detections {
  static chartHeight = 230;
  static tallest = 400;

  look(i) {
    const { truths = 0, verdicts = [], matched = [] } = this.answer;
    const { outcomes } = this.colors;
    if (i < truths) return { color: matched[i] ? "#ffffff" : outcomes.missed, dash: matched[i] ? [] : [2, 4], label: matched[i] ? `${i + 1}` : `${i + 1}: missed`, bar: false };
    const hit = verdicts[i - truths] === 1;
    return { color: hit ? outcomes.hit : outcomes.false, dash: hit ? [] : [7, 5], label: `${i + 1}: ${number(this.scene.scores?.[i], 2)}`, below: true };
  }

  tell() {
    const { ap, rows = [], truths } = this.answer;
    if (!rows.length && ap == null) return [];
    const value = (name, text) => make("span", { dataset: { value: name } }, text);
    const cells = rows.map((r) => {
      const row = [`${r.index + 1}`, number(r.score, 2), number(r.iou), make("span", { dataset: { verdict: r.index } }, r.hit ? "hit" : "false"), number(r.precision, 2), number(r.recall, 2)];
      row.props = { className: r.index === this.selected ? "chosen button" : "button", tabIndex: 0, onclick: () => this.select(r.index), onkeydown: (e) => e.key === "Enter" && this.select(r.index) };
      return row;
    });
    return [
      make("div", {}, make("div", { className: "big" }, "AP ", value("ap", number(ap, 3))), make("div", { className: "note" }, `${truths} objects, ${rows.length} detections, by falling score`)),
      table(["box", "score", "best IoU", "", "precision", "recall"], cells),
    ];
  }

  drawChart(width, height) {
    const { curve = [], envelope = [] } = this.answer;
    const lines = [{ points: envelope, color: this.accent, width: 2.4, label: "envelope, whose area is AP" }, { points: curve, color: this.colors.roles.result, dash: [5, 4], label: "precision at each detection" }];
    const { px, py } = this.plot({ area: [48, 30, width - 70, height - 66], x: [0, 1], y: [0, 1.05], ticks: [[0, 0.25, 0.5, 0.75, 1], [0, 0.5, 1]], lines, xlabel: "recall" });
    for (const p of curve) this.disc([px(p[0]), py(p[1])], 3.5, this.colors.roles.result);
    this.legend(lines, 48, 16);
  }
}

// A recorded run: nothing to move but time.
class TrainingPlayer extends Explorer {
  static chartHeight = 170;
  static still = true;
  static keys = [[", .", "previous, next epoch"], ["home, end", "first, last epoch"]];

  draw() {
    const { truths = [], predictions = [], positives = [] } = this.answer;
    const { outcomes, levels } = this.colors;
    for (const { box, matched } of truths) this.outline(box, { color: matched ? "#ffffff" : outcomes.missed, dash: [2, 4], bar: false, width: 1.4 });
    for (const [x, y, level] of positives) this.disc(this.at([x, y]), 2.5 + 0.5 * level, levels[level]);
    for (const { box, hit, score } of predictions) this.outline(box, { color: hit ? outcomes.hit : outcomes.false, dash: hit ? [] : [7, 5], label: number(score, 2) });
  }

  tell() {
    const { epoch, epochs, counts, names = [], shipped } = this.answer;
    if (!counts) return [];
    const { outcomes, levels } = this.colors;
    const value = (name) => make("b", { dataset: { value: name } }, counts[name]);
    return [
      make("div", {}, make("div", { className: "big" }, shipped ? "shipped weights" : ["epoch ", make("span", { dataset: { value: "epoch" } }, epoch + 1), ` of ${epochs}`]), make("div", { className: "note" }, names.join(", "))),
      table(null, [[make("span", {}, dot(outcomes.hit), "found"), value("hits")], [make("span", {}, dot(outcomes.false), "false"), value("false")], [make("span", {}, dot(outcomes.missed, false), "missed"), value("missed")], [make("span", {}, levels.slice(0, 5).map((c) => dot(c)), "positive anchors"), value("positives")]]),
      make("div", { className: "note" }, "Dots are the positive anchors, in the colours of their levels; drag the chart to move in time."),
    ];
  }

  drawChart(width, height) {
    const { history = [], epoch = 0, epochs = 1 } = this.answer;
    const series = [["hits", this.hit, [], "found"], ["false", this.false, [7, 4]], ["missed", this.missed, [2, 3]]];
    const lines = series.map(([name, color, dash, label = name]) => ({ points: history.map((h, i) => [i + 1, h[name]]), color, dash, label }));
    const top = Math.max(1, ...history.flatMap((h) => [h.hits, h.false, h.missed]));
    this.area = [40, 30, width - 60, height - 66];
    const ticks = [...new Set([1, Math.ceil(epochs / 2), epochs])];
    this.plot({ area: this.area, x: [1, Math.max(2, epochs)], y: [0, top], ticks: [ticks, [0, top]], lines, marks: [{ x: epoch + 1 }], xlabel: "epoch" });
    this.legend(lines, 40, 16);
  }

  scrub(x) {
    if (this.area) this.go(((x - this.area[0]) / this.area[2]) * Math.max(1, (this.answer.epochs ?? 1) - 1));
  }

  go(epoch) {
    this.scene.epoch = Math.round(Math.max(0, Math.min((this.answer.epochs ?? 1) - 1, epoch)));
    this.changed();
  }

  typed(key) {
    const now = this.answer.epoch ?? 0;
    const target = { ",": now - 1, ".": now + 1, Home: 0, End: 1e9 }[key];
    return target != null && (this.go(target), true);
  }
}

