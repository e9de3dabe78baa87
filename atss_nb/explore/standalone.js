
// An explorer without Python: the values that a kernel would hold, and a place on the page.
class Values {
  constructor(values) {
    this.values = values;
    this.listeners = {};
  }

  get(name) { return this.values[name]; }

  set(name, value) {
    this.values[name] = value;
    for (const act of [...(this.listeners[`change:${name}`] ?? [])]) act();
  }

  save_changes() {}

  on(name, act) { (this.listeners[name] ??= []).push(act); }

  off(name, act) { this.listeners[name] = (this.listeners[name] ?? []).filter((a) => a !== act); }
}

// Put the live explorer where its still picture stands; the picture's image becomes its own.
function replaceStill(Kind, values, place) {
  const coded = place.querySelector("image")?.getAttribute("href").split(",")[1];
  const bytes = coded ? Uint8Array.from(atob(coded), (c) => c.charCodeAt(0)) : new Uint8Array();
  place.replaceChildren();
  return new Kind(new Values({ ...values, picture: new DataView(bytes.buffer) }), place);
}
