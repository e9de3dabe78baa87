
// The angle dial: one rectangle, its names in every convention, and what they do when it turns.
class AngleDial extends Explorer {
  static chartHeight = 330;
  static tallest = 470;
  static keys = [[", .", "turn the prediction by 1 degree"]];

  look() { return { color: "#ffffff", label: "object" }; }

  draw() {
    const [box, { rings = [], prediction }] = [this.boxes[0], this.answer];
    if (!plain(box ?? [])) return;
    if (prediction) this.outline(prediction, { color: "#ffffff", dash: [3, 5], width: 1.6, label: "prediction", below: true, bar: false });
    const [x, y] = this.at(box);
    const far = (84 + 18 * rings.length) * this.scale;
    [[1, 0, "0°"], [0, 1, "90°"], [-1, 0, "180°"], [0, -1, "-90°"]].forEach(([u, v, text]) => this.write(text, [x + u * far, y + v * far + 10], "#ffffff", { size: 11, bold: false }));
    rings.forEach(({ low, high, at, chosen }, i) => {
      const r = (70 + 18 * i) * this.scale; // in scene pixels, so that all rings fit
      const color = this.colors.palette[i % 7];
      this.g.beginPath();
      this.g.arc(x, y, r, low * DEGREE, high * DEGREE);
      this.g.lineCap = "butt";
      this.g.lineWidth = chosen ? 9 : 5;
      this.g.strokeStyle = color;
      this.g.globalAlpha = chosen ? 0.9 : 0.55;
      this.g.stroke();
      this.g.globalAlpha = 1;
      this.disc([x + r * Math.cos(at * DEGREE), y + r * Math.sin(at * DEGREE)], chosen ? 7 : 5, color);
    });
  }

  drawChart(width) {
    const { curve = [], losses = [], turn = 0, range, definition } = this.answer;
    if (!curve.length) return;
    const x = [-180, 180];
    const ticks = [-180, -90, 0, 90, 180];
    const marks = [{ x: turn, label: `turned by ${number(turn, 0)}°` }];
    const chosen = this.answer.names.findIndex((n) => n.chosen);
    const lines = [{ points: curve, color: this.colors.palette[chosen], label: `angle under ${definition} [degrees]` }];
    this.plot({ area: [48, 40, width - 70, 90], x, y: [-180, 180], ticks: [ticks, [-90, 0, 90]], lines, marks });
    this.legend(lines, 48, 16);
    const styles = [[], [8, 4], [2, 3], [9, 3, 2, 3]];
    const drawn = losses.map((l, i) => ({ ...l, label: l.name, color: [this.colors.palette[5], this.accent, this.colors.palette[2], this.colors.palette[4]][i], dash: styles[i] }));
    const top = Math.ceil(Math.max(1, ...losses.flatMap((l) => l.points.map((p) => (p ? p[1] : 0)))) * 2) / 2;
    const high = [0, top / 2, top];
    this.area = [48, 192, width - 70, 96];
    this.plot({ area: this.area, x, y: [0, top], ticks: [ticks, high], lines: drawn, marks: [{ x: turn }], xlabel: "turn of the prediction [degrees]" });
    this.legend(drawn, 48, 176);
  }

  scrub(x) {
    if (!this.area) return;
    this.turn(-180 + (360 * (x - this.area[0])) / this.area[2]);
  }

  turn(degrees) {
    this.scene.turn = Math.round(Math.max(-180, Math.min(180, degrees)));
    this.changed();
  }

  typed(key) {
    const step = { ",": -1, ".": 1 }[key];
    return !!step && (this.turn((this.answer.turn ?? 0) + step), true);
  }

  tell() {
    const { names = [], losses = [], turn, jump } = this.answer;
    const rows = names.map((n, i) => {
      const row = [make("span", {}, dot(this.colors.palette[i % 7]), n.name), ...n.numbers.map((v, k) => make("span", { dataset: { value: `${n.name}${k}` } }, number(v, k === 4 && n.unit === "rad" ? 3 : 1)))];
      row.props = { className: n.chosen ? "chosen" : "" };
      return row;
    });
    return [
      make("div", {}, make("h4", {}, "One rectangle, its names"), table(["convention", "x", "y", "w", "h", "angle"], rows)),
      jump && make("div", { className: "alarm" }, jump),
      make("div", {}, make("h4", {}, `Loss of a prediction turned by ${number(turn, 0)}°`), table(null, losses.map((l) => [l.name, make("b", { dataset: { loss: l.name } }, number(l.now, 4))]))),
      make("div", { className: "note" }, "oc, le90, le135 and oc_old count radians clockwise on the screen; detectron2 and torchvision count degrees the other way. Drag the chart to turn the prediction."),
    ];
  }
}

