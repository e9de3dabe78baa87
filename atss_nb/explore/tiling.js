
// Anchor tiling: where the anchors of a pyramid stand, and how well they fit an object.
class AnchorTiling extends Explorer {
  look() { return { color: "#ffffff" }; }

  draw() {
    const { level, levels = [], cell = [], best } = this.answer;
    const grid = levels[level];
    if (!grid) return;
    const color = this.colors.levels[level];
    for (let row = 0; row < grid.cells[0]; row += 1) {
      for (let col = 0; col < grid.cells[1]; col += 1) {
        const [x, y] = this.at([grid.offset + col * grid.stride, grid.offset + row * grid.stride]);
        this.g.fillStyle = color;
        this.g.globalAlpha = 0.85;
        this.g.fillRect(x - 2, y - 2, 4, 4);
      }
    }
    this.g.globalAlpha = 1;
    for (const box of cell) this.outline(box, { color, width: 1.8, bar: false });
    if (best) this.outline(best.box, { color: this.colors.roles.result, width: 2.4, dash: [8, 5], bar: false, label: `best: ${number(best.iou)}` });
  }

  tell() {
    const { levels = [], best, total, level } = this.answer;
    if (!best) return [];
    const rows = levels.map((v, i) => {
      const row = [make("span", {}, dot(this.colors.levels[i]), `${v.stride}`), `${v.cells[0]} × ${v.cells[1]}`, v.count, v.sides, make("span", { dataset: { best: i } }, number(v.best))];
      row.props = { className: i === level ? "chosen" : "" };
      return row;
    });
    return [
      make("div", {}, make("div", { className: "big" }, make("span", { dataset: { value: "total" } }, total), " anchors"), make("div", { className: "note" }, "Drag the object; its nearest cell shows the anchors of the level chosen above.")),
      table(["stride", "cells", "anchors", "sides [px]", "best IoU"], rows),
      make("div", { className: "card" }, "No anchor fits better than ", make("b", {}, `anchor ${best.index}`), `, with IoU ${number(best.iou)} on stride ${best.stride}.`),
    ];
  }
}

