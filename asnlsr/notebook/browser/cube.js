// What is stored of the cubes, and what is computed from it.
//
// A *layer* is one value per pixel of a grid: { rows, cols, values }. What is masked is NaN.

const between = (low, value, high) => Math.min(Math.max(low, value), high);

/** Unpack the codes: the value of every code in every band, and where each cube's pixels are. */
async function decode(content) {
  const { codes, knee, low, step, wavelength_nm: nm } = content;
  const static_ = typeof codes === "string"; // base64 in a page, a view of bytes from a kernel
  const packed = static_ ? Uint8Array.from(atob(codes), (c) => c.charCodeAt(0)) : codes;
  const inflated = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(inflated).arrayBuffer());
  const values = nm.map((_, b) =>
    Float32Array.from({ length: 256 }, (_, q) => knee[b] * Math.sinh(low[b] + q * step[b])),
  );
  if (content.masked) for (const value of values) value[255] = NaN;
  const pixels = bytes.length / nm.length;
  for (let k = pixels; k < bytes.length; k++) bytes[k] += bytes[k - pixels]; // modulo 256
  let start = 0;
  const cubes = content.cubes.map((cube, k) => {
    const size = cube.rows * cube.cols;
    const first = start;
    start += size;
    const plane = (b) => bytes.subarray(b * pixels + first, b * pixels + first + size);
    return { ...cube, k, plane };
  });
  const rows = Math.max(...cubes.map((cube) => cube.rows));
  const cols = Math.max(...cubes.map((cube) => cube.cols));
  const plane = (b) => bytes.subarray(b * pixels, (b + 1) * pixels);
  const bands = nm.map((_, b) => b);
  const live = bands.filter((b) => !content.masked || plane(b).some((q) => q < 255));
  const per = content.wavelength_unit === "µm" ? 1000 : 1;
  const steps = nm.slice(1).map((each, b) => each - nm[b]);
  const apart = Math.min(...steps.filter((step) => step > 0), 1e3) / per;
  const digits = between(0, Math.ceil(-Math.log10(apart)), 4);
  const label = (b) => `${(nm[b] / per).toFixed(digits)} ${content.wavelength_unit}`;
  const presets = presetsOf(content.presets, nm, live);
  const diverging = Object.keys(content.maps).at(-1);
  const found = { nm, values, cubes, rows, cols, plane, live, per, label, presets, diverging };
  const scene = { ...content, ...found, kept: new Map(), source: content };
  return { ...scene, middle: middleOf(scene) };
}

/** The false colours for which there are bands near their wavelengths; only bands with values. */
function presetsOf(wanted, nm, live) {
  const nearest = (each) =>
    live.reduce((a, b) => (Math.abs(nm[b] - each) < Math.abs(nm[a] - each) ? b : a));
  const found = Object.entries(wanted)
    .map(([name, three]) => ({ name, three, bands: three.map(nearest) }))
    .filter(({ three, bands }) => bands.every((b, k) => Math.abs(nm[b] - three[k]) < 60));
  const spread = [live.at(-1), live[live.length >> 1], live[0]];
  return found.length ? found : [{ name: "first, middle, last", bands: spread }];
}

/** The pixel of the largest cube that is nearest to the middle and has a value. */
function middleOf(scene) {
  const cube = scene.cubes.reduce((a, b) => (b.rows * b.cols > a.rows * a.cols ? b : a));
  const planes = scene.live.map(cube.plane);
  const middle = [cube.rows / 2, cube.cols / 2];
  let [best, nearest] = [[0, 0], Infinity];
  for (let p = 0; p < cube.rows * cube.cols; p++) {
    const [row, col] = [Math.floor(p / cube.cols), p % cube.cols];
    const away = Math.abs(row - middle[0]) + Math.abs(col - middle[1]);
    if (away >= nearest || (scene.masked && planes.every((plane) => plane[p] === 255))) continue;
    [best, nearest] = [[row, col], away];
  }
  return best;
}

/** Compute something that does not change while a cube is shown, once. */
function once(scene, key, compute) {
  if (!scene.kept.has(key)) scene.kept.set(key, compute());
  return scene.kept.get(key);
}

/** The spectrum of a cube at a pixel that is counted on the largest cube. */
function spectrum(scene, cube, pixel) {
  const place = placeIn(scene, cube, pixel);
  return scene.values.map((value, b) => value[cube.plane(b)[place]]);
}

/** Where a pixel of the largest cube lies in a cube or a layer. */
function placeIn(scene, { rows, cols }, [row, col]) {
  const r = Math.floor((between(0, row, scene.rows - 1) * rows) / scene.rows);
  const c = Math.floor((between(0, col, scene.cols - 1) * cols) / scene.cols);
  return r * cols + c;
}

// Layers

/** A layer in the pixels of a cube. */
function layerOf({ rows, cols }, valueAt) {
  const values = new Float32Array(rows * cols);
  for (let p = 0; p < values.length; p++) values[p] = valueAt(p);
  return { rows, cols, values };
}

function bandLayer(scene, cube, b) {
  const [value, plane] = [scene.values[b], cube.plane(b)];
  return layerOf(cube, (p) => value[plane[p]]);
}

/** Ratio of two bands, or their difference over their sum. Division by zero has no value. */
function ratioLayer(scene, cube, [a, b], normalised) {
  const [x, y] = [bandLayer(scene, cube, a).values, bandLayer(scene, cube, b).values];
  return layerOf(cube, (p) => {
    const found = normalised ? (x[p] - y[p]) / (x[p] + y[p]) : x[p] / y[p];
    return isFinite(found) ? found : NaN;
  });
}

/** Two cubes on the finer of their grids: its size, and the place of its pixels in either cube. */
function together(scene, a, b) {
  return once(scene, `together ${a.k} ${b.k}`, () => {
    const [rows, cols] = [Math.max(a.rows, b.rows), Math.max(a.cols, b.cols)];
    const places = [a, b].map((cube) => {
      const found = new Uint32Array(rows * cols);
      for (let p = 0; p < found.length; p++) {
        const row = Math.floor((Math.floor(p / cols) * cube.rows) / rows);
        found[p] = row * cube.cols + Math.floor(((p % cols) * cube.cols) / cols);
      }
      return found;
    });
    return { rows, cols, places };
  });
}

/** What one cube has more than another in a band. */
function differenceLayer(scene, a, b, band) {
  const { places: [of, to], ...grid } = together(scene, a, b); // prettier-ignore
  const [value, x, y] = [scene.values[band], a.plane(band), b.plane(band)];
  return layerOf(grid, (p) => value[x[of[p]]] - value[y[to[p]]]);
}

/** Root of the mean over the bands of the squared difference; bands that are masked do not count. */
function rmseLayer(scene, a, b) {
  const { places: [of, to], ...grid } = together(scene, a, b); // prettier-ignore
  const [sum, count] = [new Float64Array(of.length), new Uint16Array(of.length)];
  for (const band of scene.live) {
    const [value, x, y] = [scene.values[band], a.plane(band), b.plane(band)];
    for (let p = 0; p < sum.length; p++) {
      const away = value[x[of[p]]] - value[y[to[p]]];
      if (isNaN(away)) continue;
      sum[p] += away * away;
      count[p] += 1;
    }
  }
  return layerOf(grid, (p) => Math.sqrt(sum[p] / count[p]));
}

/** Angle in degrees between the spectra of two cubes, or of a cube and one spectrum. */
function angleLayer(scene, a, other) {
  const { places: [of, to], ...grid } = together(scene, a, other.plane ? other : a); // prettier-ignore
  const [xy, xx, yy] = [0, 0, 0].map(() => new Float64Array(of.length));
  for (const band of scene.live) {
    const [value, plane] = [scene.values[band], a.plane(band)];
    const second = other.plane?.(band);
    for (let p = 0; p < xy.length; p++) {
      const x = value[plane[of[p]]];
      const y = second ? value[second[to[p]]] : other[band];
      if (isNaN(x + y)) continue;
      xy[p] += x * y;
      xx[p] += x * x;
      yy[p] += y * y;
    }
  }
  const cosine = (p) => between(-1, xy[p] / Math.sqrt(xx[p] * yy[p]), 1);
  return layerOf(grid, (p) => (Math.acos(cosine(p)) * 180) / Math.PI);
}

/** The pixel (of the largest cube) where a layer is furthest from zero, and its value. */
function largest(scene, { rows, cols, values }) {
  let place = -1;
  for (let p = 0; p < values.length; p++)
    if (Math.abs(values[p]) > Math.abs(values[place] ?? 0)) place = p;
  place = Math.max(place, 0);
  const row = Math.floor(((Math.floor(place / cols) + 0.5) * scene.rows) / rows);
  const col = Math.floor((((place % cols) + 0.5) * scene.cols) / cols);
  return { pixel: [row, col], value: values[place] };
}

// Scales

/** Values of a band, over all cubes, below and above which `clip` per cent of the pixels lie. */
function bandLimits(scene, b, clip) {
  const counts = new Uint32Array(256);
  for (const q of scene.plane(b)) counts[q]++;
  if (scene.masked) counts[255] = 0; // what is masked counts for no scale
  const total = counts.reduce((sum, count) => sum + count, 0);
  const at = (share) => {
    let sum = 0;
    const q = counts.findIndex((count) => (sum += count) > 0 && sum >= share * total);
    return scene.values[b][Math.max(q, 0)];
  };
  return [at(clip / 100), at(1 - clip / 100)];
}

/** The same for layers; `even`: from -top to top, and `size`: from zero. */
function layerLimits(layers, clip, { even, size } = {}) {
  const all = new Float32Array(layers.reduce((sum, { values }) => sum + values.length, 0));
  let n = 0;
  for (const { values } of layers)
    for (const value of values) if (!isNaN(value)) all[n++] = even ? Math.abs(value) : value;
  const sorted = all.subarray(0, n).sort();
  const at = (share) => sorted[Math.round(share * (n - 1))] ?? 0;
  const top = at(1 - clip / 100);
  return [even ? -top : size ? 0 : at(clip / 100), top];
}

// Principal components

const SAMPLE = 8192; // pixels, at most, that the covariance is taken from

/** Eigenvalues and eigenvectors (as rows) of a symmetric matrix, by Jacobi's rotations. */
function eigen(matrix) {
  const n = matrix.length;
  const a = matrix.map((row) => Float64Array.from(row));
  const vectors = a.map((_, k) => Float64Array.from({ length: n }, (_, j) => Number(j === k)));
  const turn = (x, y, cos, sin) => {
    for (let k = 0; k < n; k++) {
      const [was, and] = [x[k], y[k]];
      x[k] = cos * was - sin * and;
      y[k] = sin * was + cos * and;
    }
  };
  const trace = a.reduce((sum, row, k) => sum + row[k], 0);
  for (let sweep = 0; sweep < 30; sweep++) {
    let rest = 0;
    for (let p = 0; p < n; p++)
      for (let q = p + 1; q < n; q++) {
        rest += Math.abs(a[p][q]);
        if (Math.abs(a[p][q]) < 1e-14 * trace) continue;
        const slope = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const tan = (slope < 0 ? -1 : 1) / (Math.abs(slope) + Math.hypot(slope, 1));
        const cos = 1 / Math.hypot(tan, 1);
        const sin = tan * cos;
        turn(a[p], a[q], cos, sin);
        for (const row of a) {
          const [was, and] = [row[p], row[q]];
          row[p] = cos * was - sin * and;
          row[q] = sin * was + cos * and;
        }
        turn(vectors[p], vectors[q], cos, sin);
      }
    if (rest < 1e-12 * trace) break;
  }
  const order = a.map((_, k) => k).sort((p, q) => a[q][q] - a[p][p]);
  return { values: order.map((k) => a[k][k]), vectors: order.map((k) => vectors[k]) };
}

/** Principal components of the spectra of all cubes: mean, three vectors, shares of the variance. */
function components(scene) {
  const { live, values } = scene;
  const planes = live.map(scene.plane);
  const stride = Math.ceil(planes[0].length / SAMPLE);
  const sample = [];
  for (let p = 0; p < planes[0].length; p += stride)
    if (!scene.masked || planes.every((plane) => plane[p] < 255)) sample.push(p);
  const mean = [];
  const centred = live.map((b, k) => {
    const band = Float64Array.from(sample, (p) => values[b][planes[k][p]]);
    mean.push(band.reduce((sum, each) => sum + each, 0) / band.length);
    return band.map((each) => each - mean[k]);
  });
  const covariance = live.map(() => new Float64Array(live.length));
  centred.forEach((x, k) => {
    for (let j = 0; j <= k; j++) {
      const y = centred[j];
      let sum = 0;
      for (let n = 0; n < x.length; n++) sum += x[n] * y[n];
      covariance[k][j] = covariance[j][k] = sum / x.length;
    }
  });
  const found = eigen(covariance);
  const total = found.values.reduce((sum, value) => sum + value, 0) || 1;
  const three = [0, 1, 2].map((k) => found.vectors[k] ?? found.vectors.at(-1));
  const furthest = (v) => v.reduce((most, each) => (Math.abs(each) > Math.abs(most) ? each : most));
  const vectors = three.map((v) => v.map((each) => each * Math.sign(furthest(v)))); // one of two signs
  return { mean, vectors, shares: found.values.slice(0, 3).map((value) => value / total) };
}

/** A cube along one principal component. */
function componentLayer(scene, cube, { mean, vectors }, which) {
  const sum = new Float64Array(cube.rows * cube.cols);
  scene.live.forEach((b, k) => {
    const weight = scene.values[b].map((value) => (value - mean[k]) * vectors[which][k]);
    const plane = cube.plane(b);
    for (let p = 0; p < sum.length; p++) sum[p] += weight[plane[p]];
  });
  return layerOf(cube, (p) => sum[p]);
}

// Regions and lines

/** Per band: number, mean, standard deviation and extremes of the pixels in a rectangle. */
function statistics(scene, cube, [r0, c0, r1, c1]) {
  const [down, across] = [cube.rows / scene.rows, cube.cols / scene.cols];
  const [top, bottom] = [Math.floor(r0 * down), Math.ceil(r1 * down)];
  const [left, right] = [Math.floor(c0 * across), Math.ceil(c1 * across)];
  return scene.values.map((value, b) => {
    const counts = new Uint32Array(256);
    const plane = cube.plane(b);
    for (let row = top; row < bottom; row++)
      for (let col = left; col < right; col++) counts[plane[row * cube.cols + col]]++;
    const codes = [...counts.keys()].filter((q) => counts[q] && !isNaN(value[q]));
    const number = codes.reduce((sum, q) => sum + counts[q], 0);
    const average = (of) => codes.reduce((sum, q) => sum + counts[q] * of(value[q]), 0) / number;
    const mean = average((each) => each);
    const deviation = Math.sqrt(average((each) => (each - mean) ** 2));
    const [low, high] = [value[codes[0]] ?? NaN, value[codes.at(-1)] ?? NaN];
    return { number, mean, deviation, low, high };
  });
}

/** The pixels (of the largest cube) nearest to a line, and how far along it they are. */
function along([r0, c0, r1, c1]) {
  const steps = Math.max(Math.abs(r1 - r0), Math.abs(c1 - c0)) || 1;
  const at = (k) => [r0 + ((r1 - r0) * k) / steps, c0 + ((c1 - c0) * k) / steps].map(Math.round);
  const pixels = Array.from({ length: steps + 1 }, (_, k) => at(k));
  return { pixels, distance: pixels.map((_, k) => (k / steps) * Math.hypot(r1 - r0, c1 - c0)) };
}

/** A table as text: a remark, the names of the columns, and a line for each of their values. */
function csv(remark, columns) {
  const cell = (value) => {
    if (typeof value === "number") return isNaN(value) ? "" : String(Number(value.toPrecision(7)));
    return /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  };
  const lines = columns[0].values.map((_, k) => columns.map(({ values }) => cell(values[k])));
  const head = columns.map(({ name }) => cell(name));
  return [`# ${remark.replace(/\s+/g, " ")}`, head.join(), ...lines.map((line) => line.join())]
    .join("\n")
    .concat("\n");
}
