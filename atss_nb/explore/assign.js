// The twin of atss_nb.samples: grids of anchors, the k nearest of each level, and who learns what under ATSS, MaxIoU
// and centre sampling, number by number as Python has them. tests/test_twin.py compares the two.

const ROUNDING = 1e-12; // equal overlaps may differ by this much: they still count as equal
const STRIDES = [8, 16, 32, 64, 128]; // RetinaNet's levels P3 to P7 (Lin et al. 2017, section 4)
const POSITIVE = 0, BELOW_THRESHOLD = 1, CENTER_OUTSIDE = 2, LOST = 3, WRONG_SIZE = 4, BETWEEN = 5;
const SIZE_RANGES = [[-1, 64], [64, 128], [128, 256], [256, 512], [512, Infinity]];

// The anchors of an image: upright boxes on grids, in float32 as Python keeps them.
class Grid {
  constructor([height, width], { scale = 4, tiling: [ratios, sizes] = [[1], 1], offset = 0 }) {
    const shapes = ratios.flatMap((r) => Array.from({ length: sizes }, (_, i) => [2 ** (i / sizes), Math.sqrt(r)]));
    this.per = shapes.length;
    this.count = 0;
    this.levels = STRIDES.map((stride) => {
      const sides = shapes.map(([s, root]) => [Math.fround((stride * scale * s) / root), Math.fround(stride * scale * s * root)]);
      const level = { stride, height: Math.ceil(height / stride), width: Math.ceil(width / stride), start: this.count, offset: offset * stride, sides };
      level.count = level.height * level.width * this.per;
      level.lines = Float64Array.from({ length: Math.max(level.height, level.width) }, (_, i) => Math.fround(i * stride + Math.fround(level.offset)));
      level.reach = Math.max(...sides.map(([w, h]) => Math.hypot(w, h))) / 2;
      this.count += level.count;
      return level;
    });
  }

  levelOf(index) { return this.levels.findLastIndex((v) => v.start <= index); }

  box(index) {
    const level = this.levels[this.levelOf(index)];
    const cell = Math.floor((index - level.start) / this.per);
    return [level.lines[cell % level.width], level.lines[Math.floor(cell / level.width)], ...level.sides[(index - level.start) % this.per], 0];
  }
}

// The k anchors of a level nearest to a point, by squared distance, then by index: from the nearest cell outwards.
function nearest(level, per, [x, y], k) {
  const m = Math.ceil(k / per);
  const [distance, cells] = [new Float64Array(m), new Int32Array(m)];
  let n = 0;
  const insert = (d, cell) => {
    if (n === m && (d > distance[m - 1] || (d === distance[m - 1] && cell > cells[m - 1]))) return;
    let j = Math.min(n, m - 1);
    for (; j > 0 && (distance[j - 1] > d || (distance[j - 1] === d && cells[j - 1] > cell)); j -= 1) [distance[j], cells[j]] = [distance[j - 1], cells[j - 1]];
    [distance[j], cells[j]] = [d, cell];
    n = Math.min(n + 1, m);
  };
  const line = (v, lines) => clamp(Math.round((v - level.offset) / level.stride), 0, lines - 1);
  const [row, col] = [line(y, level.height), line(x, level.width)];
  for (const down of [1, -1]) {
    for (let r = row + Math.min(down, 0); r >= 0 && r < level.height; r += down) {
      const dy = level.lines[r] - y;
      if (n === m && dy * dy > distance[m - 1]) break;
      for (const right of [1, -1]) {
        for (let c = col + Math.min(right, 0); c >= 0 && c < level.width; c += right) {
          const dx = level.lines[c] - x;
          if (n === m && dx * dx + dy * dy > distance[m - 1]) break;
          insert(dx * dx + dy * dy, r * level.width + c);
        }
      }
    }
  }
  return Array.from({ length: k }, (_, j) => level.start + cells[Math.floor(j / per)] * per + (j % per));
}

// All anchors of a level that may overlap a box.
function around(level, per, [x, y, w, h]) {
  const size = Math.sqrt(w * w + h * h) / 2 + level.reach;
  const span = (v, lines) => [clamp(Math.ceil((v - size - level.offset) / level.stride), 0, lines), clamp(Math.floor((v + size - level.offset) / level.stride) + 1, 0, lines)];
  const [[row, lastRow], [col, lastCol], found] = [span(y, level.height), span(x, level.width), []];
  for (let r = row; r < lastRow; r += 1) for (let i = (r * level.width + col) * per; i < (r * level.width + lastCol) * per; i += 1) found.push(level.start + i);
  return found;
}

// Where the m columns and the m rows nearest to a point cross.
function crossing(level, per, [x, y], m) {
  const first = (v, count) => clamp(Math.ceil((v - level.offset) / level.stride - m / 2), 0, Math.max(count - m, 0));
  const [row, col, found] = [first(y, level.height), first(x, level.width), []];
  for (let r = row; r < row + Math.min(m, level.height); r += 1) for (let i = (r * level.width + col) * per; i < (r * level.width + col + Math.min(m, level.width)) * per; i += 1) found.push(level.start + i);
  return found;
}

// Candidates of one box on each level, under a rule.
function candidatesOf(rule, grid, box) {
  return grid.levels.map((level, i) => {
    if (rule.name === "ATSS") return nearest(level, grid.per, box, Math.min(rule.k, level.count));
    if (rule.name === "MaxIoU") return around(level, grid.per, box);
    const reach = Math.min(SIZE_RANGES[i][1] / level.stride, 1.5, level.height + level.width);
    return crossing(level, grid.per, box, Math.floor(Math.sqrt(8) * reach) + 2);
  });
}

// What a rule says of a candidate by itself: POSITIVE for a claim, which another box may still win, else the reason.
function judge(rule, { level, iou, margin }, c, off, size, threshold) {
  if (rule.name === "ATSS") {
    if (iou[c] < threshold - ROUNDING) return BELOW_THRESHOLD;
    return margin[c] > 0.01 ? POSITIVE : CENTER_OUTSIDE;
  }
  if (rule.name === "MaxIoU") return iou[c] >= 0.5 - ROUNDING ? LOST : iou[c] >= 0.4 - ROUNDING ? BETWEEN : BELOW_THRESHOLD;
  if (!(margin[c] > 0.01 && off < STRIDES[level[c]] * 1.5)) return CENTER_OUTSIDE;
  const [low, high] = SIZE_RANGES[level[c]];
  return size >= low && size <= high ? POSITIVE : WRONG_SIZE;
}

// Distance, overlap and depth inside of each candidate of one box; those of MaxIoU that overlap nothing are left out.
function measure(rule, grid, box) {
  const parts = candidatesOf(rule, grid, box);
  const total = parts.reduce((sum, p) => sum + p.length, 0);
  const [index, level, reason] = [new Int32Array(total), new Uint8Array(total), new Uint8Array(total)];
  const [distance, iou, margin, off, size] = Array.from({ length: 5 }, () => new Float64Array(total));
  const [x, y, w, h, t] = box;
  const [c, s] = [Math.cos(t), Math.sin(t)];
  let n = 0;
  parts.forEach((part, i) => {
    const { lines, width, start, sides } = grid.levels[i];
    for (const anchor of part) {
      const cell = Math.floor((anchor - start) / grid.per);
      const [aw, ah] = sides[(anchor - start) % grid.per];
      const [dx, dy] = [lines[cell % width] - x, lines[Math.floor(cell / width)] - y];
      const shared = Math.min(walk(dx, dy, c, s, w / 2, h / 2, aw / 2, ah / 2) / 2, w * h, aw * ah);
      const union = w * h + aw * ah - shared;
      if (rule.name === "MaxIoU" && !(shared > 0)) continue;
      const [u, v] = [Math.abs(dx * c + dy * s), Math.abs(dy * c - dx * s)];
      [index[n], level[n], distance[n], iou[n]] = [anchor, i, Math.sqrt(dx * dx + dy * dy), union > 0 ? shared / union : 0];
      [margin[n], off[n], size[n]] = [Math.min(w / 2 - u, h / 2 - v), Math.max(u, v), Math.max(u + w / 2, v + h / 2)];
      n += 1;
    }
  });
  const row = { box, area: w * h, index: index.subarray(0, n), level: level.subarray(0, n), distance: distance.subarray(0, n), iou: iou.subarray(0, n), margin: margin.subarray(0, n), reason: reason.subarray(0, n) };
  row.best = row.iou.reduce((a, b) => Math.max(a, b), 0);
  if (rule.name === "ATSS") {
    row.mean = row.iou.reduce((sum, v) => sum + v, 0) / Math.max(n, 1);
    row.std = Math.sqrt(row.iou.reduce((sum, v) => sum + (v - row.mean) ** 2, 0) / Math.max(n - 1, 1));
    row.threshold = row.mean + row.std;
  }
  row.reason.forEach((_, j) => { row.reason[j] = judge(rule, row, j, off[j], size[j], row.threshold); });
  row.judged = row.reason.slice();
  const matters = (j) => (rule.name === "MaxIoU" ? row.iou[j] >= Math.min(0.4 - 1e-9, row.best - ROUNDING) : row.judged[j] === POSITIVE);
  row.claims = Int32Array.from(Array.from(row.index.keys()).filter(matters));
  return row;
}

// ATSS and centre sampling: every anchor to the box that claims it most; among equals to the first.
function resolve(rule, rows, owner, best) {
  const score = (row, c) => (rule.name === "ATSS" ? row.iou[c] : -row.area);
  for (const row of rows) {
    for (const c of row.claims) {
      const mine = score(row, c);
      if (mine > best[row.index[c]]) best[row.index[c]] = mine;
    }
  }
  rows.forEach((row, g) => {
    for (const c of row.claims) {
      const i = row.index[c];
      if (owner[i] < 0 && score(row, c) >= best[i] - ROUNDING) owner[i] = g;
      row.reason[c] = owner[i] === g ? POSITIVE : LOST;
    }
  });
}

// MaxIoU: every anchor to the box it overlaps most, the best anchors of a box to that box whatever their IoU.
function resolveMax(rows, owner, best) {
  const reserved = new Set();
  rows.forEach(({ claims, index, iou, best: top }, g) => {
    for (const c of claims) {
      const i = index[c];
      const reserve = iou[c] >= top - ROUNDING;
      if (!reserve && (!(iou[c] > Math.max(best[i], 0) + ROUNDING) || reserved.has(i))) continue;
      best[i] = iou[c];
      owner[i] = g;
      if (reserve) reserved.add(i);
    }
  });
  const judged = (i) => (reserved.has(i) || best[i] >= 0.5 - ROUNDING ? owner[i] : best[i] >= 0.4 - ROUNDING ? -2 : -1);
  for (const { claims, index } of rows) for (const c of claims) owner[index[c]] = judged(index[c]);
  rows.forEach((row, g) => {
    for (const c of row.claims) row.reason[c] = owner[row.index[c]] === g ? POSITIVE : row.judged[c];
  });
}

// Who learns what, and every number that led to it: owner (N,) and a row for each box. `before` is an earlier answer
// under the same rule and grid, which goes into this one: a box that has not moved is not measured again.
function explain(rule, grid, boxes, before = null) {
  const known = before?.rows ?? [];
  const owner = before?.owner ?? new Int32Array(grid.count).fill(-1);
  const best = before?.best ?? new Float64Array(grid.count).fill(-Infinity);
  for (const { claims, index } of known) {
    for (const c of claims) {
      owner[index[c]] = -1;
      best[index[c]] = -Infinity;
    }
  }
  const same = (a, b) => a[0] === b[0] && a[1] === b[1] && a[2] === b[2] && a[3] === b[3] && a[4] === b[4];
  const rows = boxes.map((box, g) => (known[g] && same(known[g].box, box) ? known[g] : measure(rule, grid, [...box])));
  if (rule.name === "MaxIoU") resolveMax(rows, owner, best);
  else resolve(rule, rows, owner, best);
  return { rows, owner, best };
}
