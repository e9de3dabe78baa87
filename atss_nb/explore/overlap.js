// The twin of atss_nb.geometry: shared area, its gradient and names of angles, number by number as Python has them.
// A box is [cx, cy, w, h, angle]: pixels and radians, clockwise on the screen. tests/test_twin.py compares the two.

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

// Twice what the edge from p to q adds to the walk around a box; slope is its dx / dy.
function walkEdge(px, py, qx, qy, slope, left, right, top, bottom) {
  const [y0, y1] = [clamp(py, top, bottom), clamp(qy, top, bottom)];
  const [xa, xb] = [px + (y0 - py) * slope, qx + (y1 - qy) * slope];
  const [ca, cb] = [clamp(xa, left, right), clamp(xb, left, right)];
  const [before, free, after] = [Math.abs(xa - ca), Math.abs(cb - ca), Math.abs(xb - cb)];
  const total = before + free + after;
  const moment = (ca + ca) * before + (ca + cb) * free + (cb + cb) * after;
  return (y1 - y0) * (total < total + total ? moment / total : ca + ca);
}

// The widest gap along the four axes; only where it is negative the boxes share an area.
function gap(dx, dy, cos, sin, aw, ah, bw, bh) {
  const [c, s, u, v] = [Math.abs(cos), Math.abs(sin), Math.abs(dx * cos + dy * sin), Math.abs(dy * cos - dx * sin)];
  const alongB = Math.max(Math.abs(dx) - bw - c * aw - s * ah, Math.abs(dy) - bh - s * aw - c * ah);
  return Math.max(alongB, u - aw - c * bw - s * bh, v - ah - s * bw - c * bh);
}

// Twice the shared area: origin in a, axes along b; d is b's center, (cos, sin) turns a; half sides.
function walk(dx, dy, cos, sin, aw, ah, bw, bh) {
  if (!(gap(dx, dy, cos, sin, aw, ah, bw, bh) < 0)) return 0;
  const [left, right, top, bottom] = [dx - bw, dx + bw, dy - bh, dy + bh];
  const [px, py, qx, qy] = [cos * aw - sin * ah, sin * aw + cos * ah, cos * aw + sin * ah, sin * aw - cos * ah];
  const along = sin * sin > 0 ? cos / sin : 0;
  const across = cos * cos > 0 ? -sin / cos : 0;
  let area = walkEdge(qx, qy, px, py, across, left, right, top, bottom);
  area += walkEdge(px, py, -qx, -qy, along, left, right, top, bottom);
  area += walkEdge(-qx, -qy, -px, -py, across, left, right, top, bottom);
  area += walkEdge(-px, -py, qx, qy, along, left, right, top, bottom);
  return Math.max(area, 0);
}

// Two boxes in the frame of the walk: origin in a, axes along b.
function frameOf([ax, ay, aw, ah, at], [bx, by, bw, bh, bt]) {
  const [x, y, c, s] = [bx - ax, by - ay, Math.cos(bt), Math.sin(bt)];
  const [ca, sa] = [Math.cos(at), Math.sin(at)];
  return [x * c + y * s, y * c - x * s, ca * c + sa * s, sa * c - ca * s, aw / 2, ah / 2, bw / 2, bh / 2];
}

// Shared area [px^2] of two boxes.
const sharedArea = (a, b) => Math.min(walk(...frameOf(a, b)) / 2, a[2] * a[3], b[2] * b[3]);

function overlap(a, b) {
  const shared = sharedArea(a, b);
  const union = a[2] * a[3] + b[2] * b[3] - shared;
  return union > 0 ? shared / union : 0;
}

// Where near <= m + t / per <= far: a range of t within -reach..reach.
function slab(m, per, reach, near, far) {
  if (per * per > 0) {
    const [t0, t1] = [(near - m) * per, (far - m) * per];
    return [Math.max(Math.min(t0, t1), -reach), Math.min(Math.max(t0, t1), reach)];
  }
  return near <= m && m <= far ? [-reach, reach] : [reach, -reach];
}

// Length inside, and twice the moment, of an edge.
function insideOf(mx, my, perX, perY, reach, left, right, top, bottom) {
  const [[x0, x1], [y0, y1]] = [slab(mx, perX, reach, left, right), slab(my, perY, reach, top, bottom)];
  const [low, high] = [Math.max(x0, y0), Math.min(x1, y1)];
  const length = Math.max(high - low, 0);
  return [length, length * (low + high)];
}

// Twice the derivatives of the shared area by cx, cy, w, h, angle of a, in the frame of `walk`.
function walkGradient(dx, dy, cos, sin, aw, ah, bw, bh) {
  const limits = [dx - bw, dx + bw, dy - bh, dy + bh];
  const [ux, uy, vx, vy] = [cos * aw, sin * aw, -sin * ah, cos * ah];
  const perC = cos * cos > 0 ? cos / (cos * cos) : 0;
  const perS = sin * sin > 0 ? sin / (sin * sin) : 0;
  const [l0, t0] = insideOf(ux, uy, -perS, perC, ah, ...limits);
  const [l1, t1] = insideOf(-ux, -uy, -perS, perC, ah, ...limits);
  const [l2, t2] = insideOf(vx, vy, perC, perS, aw, ...limits);
  const [l3, t3] = insideOf(-vx, -vy, perC, perS, aw, ...limits);
  const [gx, gy] = [(l0 - l1) * cos - (l2 - l3) * sin, (l0 - l1) * sin + (l2 - l3) * cos];
  return [2 * gx, 2 * gy, l0 + l1, l2 + l3, t1 - t0 + t2 - t3];
}

// Derivatives of the IoU by box a and by box b.
function overlapGradient(a, b) {
  const [dx, dy, cos, sin, aw, ah, bw, bh] = frameOf(a, b);
  const [areaA, areaB] = [8 * aw * ah, 8 * bw * bh];
  const inter = Math.min(walk(dx, dy, cos, sin, aw, ah, bw, bh), areaA, areaB);
  const whole = areaA + areaB - inter;
  const least = Math.min(areaA, areaB) > 0 ? 1 / whole / whole : 0;
  const [up, down] = [least * whole + least * inter, 4 * least * inter];
  const [gx, gy, gw, gh, gt] = walkGradient(dx, dy, cos, sin, aw, ah, bw, bh);
  const [, , kw, kh, kt] = walkGradient(-dx * cos - dy * sin, dx * sin - dy * cos, cos, -sin, bw, bh, aw, ah);
  const [bc, bs] = [Math.cos(b[4]), Math.sin(b[4])];
  const [x, y] = [up * (gx * bc - gy * bs), up * (gx * bs + gy * bc)];
  return [[x, y, up * gw - down * ah, up * gh - down * aw, up * gt], [-x, -y, up * kw - down * bh, up * kh - down * bw, up * kt]];
}

// The upright box around a box, as hbb2obb(obb2hbb(box)).
function upright([x, y, w, h, t]) {
  const [c, s] = [Math.abs(Math.cos(t)), Math.abs(Math.sin(t))];
  const [u, v] = [(w / 2) * c + (h / 2) * s, (w / 2) * s + (h / 2) * c];
  const [x0, y0, x1, y1] = [x - u, y - v, x + u, y + v];
  return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0];
}

// An angle in [start, start + period) and the number of periods taken away.
function wrapAngle(angle, start, period) {
  if (angle >= start && angle < start + period) return [angle, 0];
  const turns = Math.floor((angle - start) / period);
  const wrapped = angle - turns * period;
  return wrapped >= start + period ? [start, turns + 1] : [Math.max(wrapped, start), turns];
}

const nearAngle = (t) => (Math.abs(t) <= 8 ? t : Math.atan2(Math.sin(t), Math.cos(t)));

function wrapQuarters([x, y, w, h, t], start) {
  const [angle, turns] = wrapAngle(nearAngle(t), start, Math.PI / 2);
  return Math.abs(turns % 2) === 1 ? [x, y, h, w, angle] : [x, y, w, h, angle];
}

// The canonical name of a box under "oc", "le90" or "le135".
function regularize(box, definition) {
  const [x, y, w, h, t] = box;
  if (definition === "oc") {
    const [, , a, b, angle] = wrapQuarters([x, y, w, h, -t], -Math.PI / 2);
    return [x, y, a, b, -angle];
  }
  const swap = w < h;
  const [angle] = wrapAngle(nearAngle(t) + (swap ? Math.PI / 2 : 0), definition === "le90" ? -Math.PI / 2 : -Math.PI / 4, Math.PI);
  return swap ? [x, y, h, w, angle] : [x, y, w, h, angle];
}

// A box as another project writes it; degrees of detectron2 and torchvision count the other way.
function convention(box, name) {
  const quarters = { oc_old: -Math.PI / 2, ultralytics: 0 }[name];
  if (quarters !== undefined) return wrapQuarters(box, quarters);
  if (["oc", "le90", "le135"].includes(name)) return regularize(box, name);
  return [...box.slice(0, 4), wrapAngle(-nearAngle(box[4]) * (180 / Math.PI), -180, 360)[0]];
}
