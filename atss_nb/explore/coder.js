
// The box coder: what a network has to say so that the anchor becomes the object.
class BoxCoder extends Explorer {
  look(i) {
    return [{ color: this.colors.roles.other, dash: [7, 5], label: "anchor", bar: false }, { color: "#ffffff", label: "object" }][i] ?? {};
  }

  draw() {
    const [from, to] = this.boxes;
    if (plain(from ?? []) && plain(to ?? [])) this.arrow(this.at(from), this.at(to), this.colors.roles.other, 2);
    if (this.answer.decoded) this.outline(this.answer.decoded, { color: this.colors.roles.result, dash: [3, 4], width: 2.4, label: "decoded", below: true });
  }

  // The sliders are called what the coder calls its numbers.
  tellAll() {
    super.tellAll();
    (this.answer.names ?? []).forEach((name, k) => { this.root.querySelectorAll(".control[data-name^=d] .label")[k].textContent = `error in ${name}`; });
  }

  tell() {
    const { names = [], deltas = [], predicted = [], iou, decoded } = this.answer;
    if (!decoded) return [];
    const rows = names.map((n, k) => [n, make("b", { dataset: { delta: k } }, number(deltas[k], 4)), number(predicted[k], 4), make("span", { dataset: { decoded: k } }, number(decoded[k], 2))]);
    return [
      make("div", {}, make("div", { className: "big" }, "IoU ", make("span", { dataset: { value: "iou" } }, number(iou, 4))), make("div", { className: "note" }, "of the object and the box that the network says")),
      table(["", "should say", "says", "decoded"], rows),
      make("div", { className: "note" }, "Drag anchor and object; let the network err in each of the five with the sliders above."),
    ];
  }
}

