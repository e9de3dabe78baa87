// One's own labels on the page, without Python: the files that atss_nb.data reads, read by the browser. A reader gives
// objects {name, box}, the boxes as Python has them, or an error that says file, line, what stands there and what
// was expected. tests/test_page_labels.py compares the two.

const amiss = (file, place, value, expected) => new Error(`${file}, ${typeof place === "number" ? `line ${place}` : place}: ${JSON.stringify(value)}; expected ${expected}`);
const lineAt = (text, index) => text.slice(0, index).split("\n").length;

function finite(file, place, texts, what) {
  const numbers = texts.map((t) => (t === "" || t == null || typeof t === "boolean" ? NaN : Number(t)));
  const bad = numbers.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0) throw amiss(file, place, texts[bad] ?? null, `a finite number for ${what[bad % what.length]}`);
  return numbers;
}

const pairs = (numbers) => Array.from({ length: numbers.length / 2 }, (_, i) => numbers.slice(2 * i, 2 * i + 2));

// The smallest box around points, as the library's poly2obb has it.
function smallestBox(points) {
  let [best, box] = [Infinity, [...points[0], 0, 0, 0]];
  const [x, y] = points[0];
  points.forEach((p, i) => points.slice(0, i).forEach((q) => {
    const [dx, dy] = [p[0] - q[0], p[1] - q[1]];
    const length = Math.hypot(dx, dy);
    if (!length) return;
    const [c, s] = [dx / length, dy / length];
    const [us, vs] = [points.map((r) => (r[0] - x) * c + (r[1] - y) * s), points.map((r) => (r[1] - y) * c - (r[0] - x) * s)];
    const [u0, u1, v0, v1] = [Math.min(...us), Math.max(...us), Math.min(...vs), Math.max(...vs)];
    const [u, v, area] = [(u0 + u1) / 2, (v0 + v1) / 2, (u1 - u0) * (v1 - v0)];
    if (area < best) [best, box] = [area, [x + u * c - v * s, y + u * s + v * c, u1 - u0, v1 - v0, Math.atan2(dy, dx)]];
  }));
  return regularize(box, "le90");
}

const tidy = (box) => smallestBox(corners(box)); // as Python keeps it: by its corners

// ---- a line for each object ------------------------------------------------------------------------------------------
const fieldsOf = (text) => (text.split(",").length > 8 ? text.split(",").map((f) => f.trim()) : text.trim().split(/\s+/));

function readDota(file, lines) {
  const header = /^\s*[A-Za-z]+( [A-Za-z]+)*:/;
  const first = lines.findIndex((text) => text.trim() && !header.test(text));
  return lines.flatMap((text, i) => {
    if (!text.trim() || i < first || first < 0) return [];
    const fields = fieldsOf(text);
    if (fields.length !== 9 && fields.length !== 10) throw amiss(file, i + 1, text, `8 numbers, a class and at most a difficulty, not ${fields.length} fields`);
    if (fields.length === 10 && !/^[012]$/.test(fields[9])) throw amiss(file, i + 1, fields[9], "a difficulty of 0, 1 or 2");
    const numbers = finite(file, i + 1, fields.slice(0, 8), ["x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"]);
    return [{ name: fields[8], box: smallestBox(pairs(numbers)) }];
  });
}

function readYolo(file, lines, [h, w], names) {
  return lines.flatMap((text, i) => {
    if (!text.trim()) return [];
    const [number, ...fields] = text.trim().split(/\s+/);
    if (fields.length > 6 && fields.length % 2) fields.pop(); // a score
    if (fields.length < 6 || fields.length % 2) throw amiss(file, i + 1, text, `a class number, 8 coordinates or an outline, and at most a score, not ${fields.length + 1} fields`);
    if (!/^\d+$/.test(number) || (names.length && !(number in names))) throw amiss(file, i + 1, number, names.length ? `a class number below ${names.length}` : "a class number");
    const shares = finite(file, i + 1, fields, ["x", "y"]);
    if (shares.some((v) => v < -1 || v > 2)) throw amiss(file, i + 1, text, "coordinates as shares of the image's size, about 0 to 1");
    return [{ name: names[number] ?? `class ${number}`, box: smallestBox(pairs(shares).map(([x, y]) => [x * w, y * h])) }];
  });
}

function readText(file, text, size, names) {
  const lines = text.split(/\r?\n/);
  const sample = fieldsOf(lines.find((t) => t.trim() && !t.includes(":")) ?? "");
  const yolo = sample.length >= 7 && /^\d+$/.test(sample[0]) && sample.slice(1).every((f) => Number.isFinite(+f));
  return yolo ? readYolo(file, lines, size, names) : readDota(file, lines);
}

// ---- JSON --------------------------------------------------------------------------------------------------------------
function parseJson(file, text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    const [, index] = error.message.match(/position (\d+)/) ?? [];
    const [, line] = error.message.match(/line (\d+)/) ?? [];
    throw amiss(file, line ? +line : index ? lineAt(text, +index) : lineAt(text), error.message, "valid JSON");
  }
}

function cocoBox(file, place, { segmentation: parts, bbox, attributes }) {
  if (parts && !Array.isArray(parts)) throw amiss(file, `${place}.segmentation`, "a mask", "a polygon or a bbox; Python reads masks: atss explore --data");
  if (parts?.length) {
    const points = parts.flatMap((part) => pairs(finite(file, `${place}.segmentation`, part, ["x", "y"])));
    if (points.length < 3) throw amiss(file, `${place}.segmentation`, parts, "at least three points");
    return smallestBox(points);
  }
  if (!Array.isArray(bbox) || ![4, 5].includes(bbox.length)) throw amiss(file, `${place}.bbox`, bbox ?? null, "x, y, width, height, or cx, cy, width, height and an angle in degrees");
  const [x, y, w, h, turn] = finite(file, `${place}.bbox`, bbox, ["x", "y", "width", "height", "angle"]);
  if (w < 0 || h < 0) throw amiss(file, `${place}.bbox`, bbox, "a width and a height of at least 0");
  return tidy(turn === undefined ? [x + w / 2, y + h / 2, w, h, (attributes?.rotation ?? 0) * DEGREE] : [x, y, w, h, -turn * DEGREE]);
}

function readCoco(file, root, image) {
  const [images, kinds] = [root.images ?? [], root.categories ?? []];
  const base = (path) => `${path}`.split(/[\\/]/).at(-1);
  const mine = images.length === 1 && !image ? images[0] : images.find((one) => base(one.file_name) === image);
  if (!mine) throw amiss(file, "images", images.slice(0, 3).map((one) => one.file_name), image ? `the image ${image} among its ${images.length}` : "an image: drop it together with the file");
  return root.annotations.flatMap((one, i) => {
    if (one.image_id !== mine.id) return [];
    const kind = kinds.find((k) => k.id === one.category_id);
    if (!kind) throw amiss(file, `annotations[${i}].category_id`, one.category_id ?? null, `one of the ${kinds.length} categories`);
    return [{ name: kind.name, box: cocoBox(file, `annotations[${i}]`, one) }];
  });
}

function readLabelme(file, root) {
  return root.shapes.flatMap(({ label, points = [], shape_type: kind = "polygon" }, i) => {
    if (["point", "points", "line", "linestrip"].includes(kind)) return [];
    const flat = finite(file, `shapes[${i}].points`, points.flat(), ["x", "y"]);
    const [x1, y1, x2, y2] = flat;
    const outline = kind === "rectangle" && flat.length === 4 ? [[x1, y1], [x2, y1], [x2, y2], [x1, y2]] : pairs(flat);
    if (outline.length < 3) throw amiss(file, `shapes[${i}].points`, points, "at least three points");
    return [{ name: label, box: smallestBox(outline) }];
  });
}

function readJson(file, text, image) {
  const root = parseJson(file, text);
  if (Array.isArray(root?.annotations)) return readCoco(file, root, image);
  if (Array.isArray(root?.shapes)) return readLabelme(file, root);
  throw amiss(file, 1, Object.keys(root ?? {}).slice(0, 5), "annotations, as COCO has them, or shapes, as labelme has them");
}

// ---- XML: VOC, roLabelImg, DIOR-R, HRSC2016 ------------------------------------------------------------------------------
function readXml(file, text) {
  if (/<!(DOCTYPE|ENTITY)/.test(text)) throw amiss(file, lineAt(text, text.search(/<!(DOCTYPE|ENTITY)/)), "a definition", "XML that defines nothing");
  const page = new DOMParser().parseFromString(text, "text/xml");
  const broken = page.querySelector("parsererror")?.textContent;
  if (broken) throw amiss(file, +(broken.match(/line (?:number )?(\d+)/i)?.[1] ?? 1), broken.match(/: (.*)/)?.[1] ?? broken, "well-formed XML");
  const tag = { annotation: "object", HRSC_Image: "HRSC_Object" }[page.documentElement.tagName];
  if (!tag) throw amiss(file, 1, page.documentElement.tagName, "<annotation> or <HRSC_Image> as the outermost element");
  const starts = [...text.matchAll(new RegExp(`<${tag}[\\s>]`, "g"))];
  return [...page.getElementsByTagName(tag)].map((node, i) => readNode(file, lineAt(text, starts[i].index), node));
}

const VOC_CORNERS = ["left_top", "right_top", "right_bottom", "left_bottom"].flatMap((c) => [`x_${c}`, `y_${c}`]);

function readNode(file, line, node) {
  const inner = (tag) => node.getElementsByTagName(tag)[0]?.textContent.trim();
  const numbers = (tags) => finite(file, line, tags.map((tag) => inner(tag)), tags.map((tag) => `<${tag}>`));
  const box = (tags) => tidy(numbers(tags));
  if (inner("mbox_cx") !== undefined) return { name: "ship", box: box(["mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang"]) };
  const name = inner("name");
  if (!name) throw amiss(file, line, name ?? null, "the name of a class in <name>");
  if (inner("robndbox") !== undefined) return { name, box: inner("x_left_top") === undefined ? box(["cx", "cy", "w", "h", "angle"]) : smallestBox(pairs(numbers(VOC_CORNERS))) };
  const [x1, y1, x2, y2] = numbers(["xmin", "ymin", "xmax", "ymax"]);
  if (x2 < x1 || y2 < y1) throw amiss(file, line, [x1, y1, x2, y2], "xmin <= xmax and ymin <= ymax");
  return { name, box: tidy([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0]) };
}

// The objects of a label file; `image` and `size` (H, W) are those of the picture it belongs to.
function readLabels({ file, text, image = null, size, names = [] }) {
  const read = { txt: () => readText(file, text, size, names), json: () => readJson(file, text, image), xml: () => readXml(file, text) }[file.split(".").at(-1).toLowerCase()];
  if (!read) throw new Error(`${file}: expected a label file: .txt (DOTA, YOLO-OBB), .json (COCO, labelme) or .xml (VOC, roLabelImg, DIOR-R, HRSC2016)`);
  const objects = read();
  if (!objects.length) throw new Error(`${file}: there are no objects in it`);
  return objects;
}
