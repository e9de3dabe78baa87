
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

const bytesOf = (coded) => new DataView(Uint8Array.from(atob(coded), (c) => c.charCodeAt(0)).buffer);

// A reply: the length of its JSON, the JSON, and the bytes that it points into.
function unframed(buffer) {
  const start = 4 + new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, start - 4));
  return JSON.parse(text, (_, value) => (value?.bytes ? new DataView(buffer, start + value.bytes[0], value.bytes[1]) : value));
}

// The same with a Python behind it: what the page has set is posted, and what Python has changed comes back.
class Served extends Values {
  constructor(values, address) {
    super(values);
    this.address = address;
  }

  async save_changes() {
    const { scene, extent, controls } = this.values;
    const settings = Object.fromEntries(controls.map(({ name }) => [name, this.values[name]]));
    const body = JSON.stringify({ extent, ...settings, scene });
    const reply = await fetch(this.address, { method: "POST", body }).catch(() => null);
    if (!reply?.ok) return; // the command has ended: the page says so where it has to wait
    const changed = unframed(await reply.arrayBuffer());
    for (const [name, value] of Object.entries(changed)) if (name === "answer" || !same(value, this.get(name))) this.set(name, value);
  }
}

// Put the live explorer where its still picture stands; the picture's image becomes its own.
function replaceStill(Kind, values, place, address) {
  const coded = place.querySelector("image")?.getAttribute("href").split(",")[1];
  const all = { ...values, picture: bytesOf(coded ?? "") };
  place.replaceChildren();
  return new Kind(address ? new Served(all, address) : new Values(all), place);
}
