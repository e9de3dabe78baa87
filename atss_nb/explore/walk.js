
// The way from p to q with both coordinates clamped: it bends where the edge crosses a line of the other box.
function clampedPath([px, py], [qx, qy], [left, right, top, bottom]) {
  const crossings = [...(qx !== px ? [left, right].map((v) => (v - px) / (qx - px)) : []), ...(qy !== py ? [top, bottom].map((v) => (v - py) / (qy - py)) : [])];
  const stops = [...new Set([0, 1, ...crossings.filter((s) => s > 0 && s < 1)])].sort((a, b) => a - b);
  return stops.map((s) => [clamp(px + s * (qx - px), left, right), clamp(py + s * (qy - py), top, bottom)]);
}

// The walk around a, edge by edge; the areas add up to what the boxes share.
function walkEdges(a, b) {
  const [dx, dy] = turned(b[0] - a[0], b[1] - a[1], -b[4]);
  const limits = [dx - b[2] / 2, dx + b[2] / 2, dy - b[3] / 2, dy + b[3] / 2];
  const all = [[1, -1], [1, 1], [-1, 1], [-1, -1]].map(([i, j]) => turned((i * a[2]) / 2, (j * a[3]) / 2, a[4] - b[4]));
  const scene = (points) => points.map(([x, y]) => point([a[0], a[1], 0, 0, b[4]], x, y));
  return all.map((p, index) => {
    const q = all[(index + 1) % 4];
    const path = clampedPath(p, q, limits);
    const area = walkEdge(...p, ...q, q[1] !== p[1] ? (q[0] - p[0]) / (q[1] - p[1]) : 0, ...limits) / 2;
    const foot = scene([[0, path[path.length - 1][1]], [0, path[0][1]]]);
    return { index, start: scene([p])[0], end: scene([q])[0], path: scene(path), foot, area };
  });
}

// What moving each edge outwards by one pixel adds to the IoU.
function edgePushes([x, y, w, h, t], [gx, gy, gw, gh], box) {
  const [c, s] = [Math.cos(t), Math.sin(t)];
  const sides = [[c, s, w, gw], [-s, c, h, gh], [-c, -s, w, gw], [s, -c, h, gh]];
  return sides.map(([nx, ny, side, g]) => ({ at: [x + (nx * side) / 2, y + (ny * side) / 2], normal: [nx, ny], push: g + (nx * gx + ny * gy) / 2, box }));
}

// The overlap walk: around box 1, with the coordinates clamped into box 2.
class OverlapWalk extends Explorer {
  static respond({ boxes, settings, extent }) {
    if (boxes.length !== 2) throw new Error(`the walk needs two boxes, not ${boxes.length}`);
    const [a, b] = boxes;
    const [iou, gradient] = [overlap(a, b), overlapGradient(a, b)];
    const edges = walkEdges(a, b).map((e) => ({ ...e, walked: e.index < settings.walked }));
    const areas = a[2] * a[3] + b[2] * b[3];
    const shared = (iou / (1 + iou)) * areas;
    const numbers = { iou, shared, union: areas - shared, walked: edges.reduce((sum, e) => sum + (e.walked ? e.area : 0), 0) };
    const far = 2 * Math.max(...extent);
    const up = [Math.sin(b[4]) * far, -Math.cos(b[4]) * far];
    const axis = [[a[0] - up[0], a[1] - up[1]], [a[0] + up[0], a[1] + up[1]]];
    return { axis, centre: a.slice(0, 2), edges, pushes: boxes.flatMap((box, i) => edgePushes(box, gradient[i], i)), show: settings.show, numbers, gradient };
  }

  look(i) {
    const { roles } = this.colors;
    return [{ color: "#ffffff", label: "1", width: 1.4 }, { color: roles.other, dash: [7, 5], label: "2", bar: false }][i] ?? {};
  }

  edgeColor(i) { return [1, 2, 4, 5].map((k) => this.colors.palette[k])[i]; }

  draw() {
    const { edges = [], show } = this.answer;
    const [a, b] = this.boxes;
    if (plain(a ?? []) && plain(b ?? [])) { // what both share
      this.g.save();
      this.trace(corners(a));
      this.g.clip();
      this.trace(corners(b));
      this.g.fillStyle = "rgb(86 180 233 / 30%)";
      this.g.fill();
      this.g.restore();
    }
    if (show === "gradient") return;
    for (const { path, foot, index } of edges.filter((e) => e.walked)) { // the area between the walk and the line through the centre
      this.trace([...path, ...foot]);
      this.g.fillStyle = `${this.edgeColor(index)}38`;
      this.g.fill();
    }
    if (this.answer.axis) {
      this.trace(this.answer.axis, false);
      this.stroke("#ffffff", 1, [2, 5]);
    }
  }

  drawOver() {
    const { edges = [], pushes = [], centre, show } = this.answer;
    if (show === "gradient") return this.drawPushes(pushes);
    for (const { start, end, path, index, walked } of edges) {
      this.trace([start, end], false);
      this.stroke(this.edgeColor(index), 2, [3, 4]);
      if (!walked) continue;
      this.trace(path, false);
      this.stroke(this.edgeColor(index), 4);
      const longest = path.slice(1).map((q, i) => [path[i], q]).sort((a, b) => Math.hypot(b[1][0] - b[0][0], b[1][1] - b[0][1]) - Math.hypot(a[1][0] - a[0][0], a[1][1] - a[0][1]))[0];
      const [p, q] = longest.map((r) => this.at(r));
      const middle = [(p[0] + q[0]) / 2, (p[1] + q[1]) / 2];
      const reach = Math.hypot(q[0] - p[0], q[1] - p[1]);
      if (reach > 12) this.arrow([middle[0] - (q[0] - p[0]) / reach * 8, middle[1] - (q[1] - p[1]) / reach * 8], [middle[0] + (q[0] - p[0]) / reach * 8, middle[1] + (q[1] - p[1]) / reach * 8], "#ffffff", 2);
    }
    if (centre) this.disc(this.at(centre), 3, "#ffffff");
  }

  drawPushes(pushes) {
    const most = Math.max(1e-12, ...pushes.map((p) => Math.abs(p.push)));
    for (const { box, at, normal, push } of pushes) {
      const length = (56 * push) / most;
      const [x, y] = this.at(at);
      this.arrow([x, y], [x + normal[0] * length, y + normal[1] * length], box ? this.colors.roles.other : this.colors.roles.result, 3);
    }
  }

  tell() {
    const { edges = [], numbers = {}, gradient = [], show } = this.answer;
    const value = (name, text) => make("span", { dataset: { value: name } }, text);
    const rows = edges.map((e) => [make("span", {}, dot(this.edgeColor(e.index)), `edge ${e.index + 1}`), value(`edge${e.index}`, e.walked ? `${number(e.area, 1)} px²` : "–")]);
    const walk = [...rows, [make("b", {}, "sum"), make("b", {}, value("sum", `${number(numbers.walked, 1)} px²`))]];
    const names = ["cx", "cy", "w", "h", "angle"];
    const slopes = names.map((n, k) => [n, ...gradient.map((g, i) => value(`g${i}${k}`, number(g[k], 5)))]);
    return [
      make("div", {}, make("div", { className: "big" }, "IoU ", value("iou", number(numbers.iou, 4))), make("div", { className: "note" }, `shared ${number(numbers.shared, 1)} px², union ${number(numbers.union, 1)} px²`)),
      show === "walk" && make("div", {}, make("h4", {}, "Each edge of box 1, clamped into box 2, adds"), table(null, walk)),
      make("div", {}, make("h4", {}, "d IoU, per pixel and per radian"), table(["", "box 1", "box 2"], slopes)),
      show === "gradient" && make("div", { className: "note" }, "Each arrow says how much IoU an edge would win by moving one pixel that way."),
    ];
  }
}

