
// Where a convention's angle may point, clockwise on the screen [degrees]; two count degrees the other way.
const ANGLE_RANGES = { oc: [0, 90], le90: [-90, 90], le135: [-45, 135], oc_old: [-90, 0], ultralytics: [0, 90], detectron2: [-180, 180], torchvision: [-180, 180] };
const MIRRORED = ["detectron2", "torchvision"];

// L1 on the angle, blind to the fact that both ends of the range are neighbours.
const angleLoss = (pred, target, definition) => Math.abs(regularize(pred, definition)[4] - regularize(target, definition)[4]);

// A turned copy of a box as a cloud of points in the box's own frame: covariance and determinants.
function clouds(pred, target) {
  const [u, v, p, q] = [pred[2], pred[3], target[2], target[3]].map((side) => Math.max(side, 1e-2) ** 2 / 4);
  const [cos, sin] = [Math.cos(pred[4] - target[4]), Math.sin(pred[4] - target[4])];
  return { a: u * cos ** 2 + v * sin ** 2, b: u * sin ** 2 + v * cos ** 2, one: u * v, two: p * q, p, q };
}

// Losses of a prediction at the target's place, which differs in its angle alone; as model.losses has them.
const TURN_LOSSES = {
  "L1 on the angle": angleLoss,
  "rotated IoU": (pred, target) => 1 - Math.max(overlap(pred, target), 1e-6),
  KLD: (pred, target) => {
    const { a, b, one, two, p, q } = clouds(pred, target);
    return 1 - 1 / (1 + Math.log1p(Math.max((a / p + b / q + Math.log(two / one)) / 2 - 1, 0)));
  },
  KFIoU: (pred, target) => {
    const { a, b, one, two, p, q } = clouds(pred, target);
    const shared = Math.sqrt((one / (one + a * q + b * p + two)) * two);
    return 1 - (3 * shared) / (Math.sqrt(one) + Math.sqrt(two) - shared);
  },
};

// A curve with gaps where it jumps.
const withGaps = (points, jump) => points.flatMap((p, i) => (i && Math.abs(p[1] - points[i - 1][1]) > jump ? [null, p] : [p]));

// The angle dial: one rectangle, its names in every convention, and what they do when it turns.
class AngleDial extends Explorer {
  static chartHeight = 330;
  static tallest = 470;
  static keys = [[", .", "turn the prediction by 1 degree"]];

  static respond({ boxes, scene, settings: { definition } }) {
    if (boxes.length !== 1) throw new Error(`the dial shows one box, not ${boxes.length}`);
    const [box] = boxes;
    const turn = Number(scene.turn ?? 0);
    const copy = (degrees) => [...box.slice(0, 4), box[4] + degrees * DEGREE];
    const turns = Array.from({ length: 181 }, (_, i) => -180 + 2 * i);
    const names = Object.keys(ANGLE_RANGES).map((name) => ({ name, numbers: convention(box, name), unit: MIRRORED.includes(name) ? "degrees" : "rad", chosen: name === definition }));
    const rings = names.map(({ name, numbers, chosen }) => ({ name, low: ANGLE_RANGES[name][0], high: ANGLE_RANGES[name][1], at: MIRRORED.includes(name) ? -numbers[4] : numbers[4] / DEGREE, chosen }));
    const losses = Object.entries(TURN_LOSSES).map(([name, loss]) => ({ name, points: withGaps(turns.map((d) => [d, loss(copy(d), box, definition)]), 0.5), now: loss(copy(turn), box, definition) }));
    const curve = withGaps(turns.map((d) => [d, regularize(copy(d), definition)[4] / DEGREE]), 30);
    const [seen, real] = [angleLoss(copy(turn), box, definition) / DEGREE, Math.abs(((((turn + 90) % 180) + 180) % 180) - 90)];
    const jump = seen < real + 1e-6 ? "" : `The border of ${definition} lies between: turned by ${real.toFixed(0)}°, but ${seen.toFixed(0)}° apart in name.`;
    return { curve, losses, prediction: copy(turn), turn, definition, names, rings, jump };
  }

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

