// Tiles and seams: which tiles hold an object, what each of them is labelled with, and what merging makes of it.
class TileSeam extends Explorer {
  static tallest = 460;

  look() { return { color: "#ffffff", label: "object" }; }

  window([x0, y0, x1, y1]) { this.trace([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]); }

  draw() {
    const { windows = [], rows = [] } = this.answer;
    for (const w of windows) {
      this.window(w);
      this.g.fillStyle = "rgb(255 255 255 / 7%)"; // overlaps come out lighter
      this.g.fill();
      this.g.strokeStyle = "rgb(255 255 255 / 45%)";
      this.g.lineWidth = 1;
      this.g.stroke();
    }
    rows.forEach(({ window, kept, iof }, i) => {
      const color = this.colors.palette[i % 8];
      this.window(window.map((v, k) => v + (k < 2 ? 2 : -2)));
      this.stroke(color, kept ? 3 : 1.6, kept ? [] : [5, 6]);
      const [x, y] = this.at(window);
      this.write(`${i + 1}: ${number(iof, 2)}`, [x + 9, y + 26 + 16 * (i % 2)], color, { align: "left" });
    });
  }

  drawOver() {
    for (const poly of this.answer.merged ?? []) {
      this.trace(poly);
      this.stroke(this.colors.roles.result, 2.4, [7, 6]);
    }
  }

  tell() {
    const { rows, kept, merged = [], verdict } = this.answer;
    if (!rows) return [];
    const lines = rows.map((r, i) => [make("span", {}, dot(this.colors.palette[i % 8], r.kept), `${i + 1}`), r.name, make("span", { dataset: { iof: i } }, number(r.iof)), make("span", { dataset: { verdict: i } }, r.verdict)]);
    return [
      make("div", {}, make("div", { className: "big" }, "in ", make("span", { dataset: { value: "kept" } }, kept), ` of ${rows.length} tiles`), make("div", { className: "note" }, "that see any of it")),
      table(["", "x, y", "IoF", "its label"], lines),
      make("div", { className: kept ? "card" : "alarm" }, verdict, kept ? make("div", { className: "note" }, "Merged: ", make("b", { dataset: { value: "merged" } }, merged.length), ", dashed in the picture") : null),
      make("div", { className: "note" }, "Drag the object over a seam, turn it, stretch it. Lighter strips are seen by more than one tile."),
    ];
  }
}

// A transformed image beside the original: the box moves with it, corner by corner.
class TurnedImage extends Explorer {
  static tallest = 430;

  look() { return { color: "#ffffff" }; }

  // Corners and their numbers, these a little outside so that no handle covers them.
  dots(points, color) {
    const middle = [0, 1].map((k) => points.reduce((sum, p) => sum + p[k] / points.length, 0));
    points.forEach((p, i) => {
      const [x, y] = this.at(p);
      const away = Math.hypot(p[0] - middle[0], p[1] - middle[1]) || 1;
      this.disc([x, y], 4, color);
      this.write(`${i + 1}`, [x + (15 * (p[0] - middle[0])) / away, y + 11 + (15 * (p[1] - middle[1])) / away], color, { size: 13 });
    });
  }

  draw() {
    const { corners: from = [], moved, points = [], frame } = this.answer;
    if (!frame) return;
    const [x, y, w, h] = frame;
    this.trace([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]);
    this.g.strokeStyle = "rgb(255 255 255 / 60%)";
    this.g.lineWidth = 1;
    this.g.stroke();
    if (moved) this.outline(moved, { color: this.colors.roles.result, width: 2.6 });
    this.dots(points, this.colors.roles.result);
    this.dots(from, "#ffffff");
  }

  tell() {
    const { names = [], before = [], after, gap, size } = this.answer;
    if (!size) return [];
    const rows = names.map((n, k) => [n, make("b", { dataset: { before: k } }, number(before[k], 2)), make("b", { dataset: { after: k } }, after ? number(after[k], 2) : "–")]);
    return [
      make("div", {}, make("div", { className: "big" }, "corners off by ", make("span", { dataset: { value: "gap" } }, after ? number(gap, 3) : "–"), " px"), make("div", { className: "note" }, "the corners of the box after, from the corners moved as points")),
      table(["", "before", "after"], rows),
      make("div", { className: after ? "card" : "alarm" }, after ? `The image has ${size[1]} × ${size[0]} px now.` : "The centre of the object left the image: its row is dropped."),
      make("div", { className: "note" }, "Drag and turn the box on the left. The dots are its corners, numbered; on the right they were moved as points, without any box."),
    ];
  }
}
