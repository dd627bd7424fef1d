// Explorable figures: each computes in the page what its chapter explains.
//
// anywidget calls `render` in JupyterLab; in a page without a kernel the package calls it with
// `standIn`. A figure builds its part of the page once and returns `work` and `draw`: `work` is a
// generator that computes what the settings ask for, in pieces of a few milliseconds, and `draw`
// shows what is known so far, after every frame.

const [BLUE, RED, ORANGE] = ["#0077BB", "#CC3311", "#EE7733"];
const [TEAL, CYAN, MAGENTA, GREY] = ["#009988", "#33BBEE", "#EE3377", "#888888"];
const FRAME = 12; // milliseconds of computing between two pictures, at least
const DEGREES = 180 / Math.PI;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
const between = (low, value, high) => Math.min(Math.max(low, value), high);
const range = (n) => [...Array(n).keys()];

// ---------------------------------------------------------------------------------------------
// Five faces of an error (chapter 3)

const FACES = {
  brighter: ORANGE,
  "tilted spectra": MAGENTA,
  shifted: CYAN,
  blurred: TEAL,
  noisy: GREY,
};
const METRICS = {
  psnr: ["PSNR (dB)", 2],
  ssim: ["SSIM", 3],
  samOfRadiance: ["SAM of radiance (deg)", 2],
  ergas: ["ERGAS", 2],
  sam: ["SAM of z (deg)", 2],
};
const DRAWN = ["psnr", "ssim", "samOfRadiance", "ergas"];

/** The five errors of a cube (bands, rows, cols), each with the root mean square `size`. */
function errorsOf({ truth, blurred, size }) {
  const [bands, rows, cols] = truth.shape;
  const pixels = rows * cols;
  const left = (k) => truth[k % cols ? k - 1 : k]; // the first column stays
  const noise = normals(1, truth.length);
  const errors = {
    brighter: truth.map(() => 1),
    "tilted spectra": truth.map((_, k) => (2 * Math.floor(k / pixels)) / (bands - 1) - 1),
    shifted: truth.map((z, k) => left(k) - z),
    blurred: truth.map((z, k) => blurred[k] - z),
    noisy: noise,
  };
  for (const error of Object.values(errors)) {
    const scale = size / Math.sqrt(mean(error.map((each) => each * each)));
    error.forEach((each, k) => (error[k] = scale * each));
  }
  return errors;
}

/** A function from an estimate to its metrics; what depends on the truth alone is done once. */
function metricsOf({ truth, peak, floor, top }) {
  const [bands, rows, cols] = truth.shape;
  const pixels = rows * cols;
  const span = Math.log(top / floor);
  const radiance = (z) => z.map((value) => floor * Math.exp(span * value));
  const light = radiance(truth);
  const band = (cube, b) => cube.subarray(b * pixels, (b + 1) * pixels);
  const window = gaussian(1.5, 5);
  const smooth = (image) => filtered(image, rows, cols, window);
  const [c1, c2] = [(0.01 * peak) ** 2, (0.03 * peak) ** 2];
  const ofTruth = range(bands).map((b) => {
    const x = band(truth, b);
    return { x, mu: smooth(x), square: smooth(x.map((value) => value * value)) };
  });

  const ssim = (estimate) =>
    mean(
      ofTruth.map(({ x, mu, square }, b) => {
        const y = band(estimate, b);
        const muY = smooth(y);
        const squareY = smooth(y.map((value) => value * value));
        const product = smooth(y.map((value, k) => value * x[k]));
        return mean(
          mu.map((m, k) => {
            const [mm, nn, mn] = [m * m, muY[k] * muY[k], m * muY[k]];
            const structure =
              (2 * (product[k] - mn) + c2) / (square[k] - mm + squareY[k] - nn + c2);
            return ((2 * mn + c1) / (mm + nn + c1)) * structure;
          }),
        );
      }),
    );

  /** Mean angle between the spectra of two cubes, of differences and sums of unit vectors. */
  const angle = (one, other) => {
    const norm = (cube, p) => Math.sqrt(sum(range(bands).map((b) => cube[b * pixels + p] ** 2)));
    const each = range(pixels).map((p) => {
      const [u, v] = [norm(one, p), norm(other, p)];
      let [apart, together] = [0, 0];
      for (let k = p; k < one.length; k += pixels) {
        apart += (one[k] / u - other[k] / v) ** 2;
        together += (one[k] / u + other[k] / v) ** 2;
      }
      return 2 * Math.atan2(Math.sqrt(apart), Math.sqrt(together));
    });
    return mean(each) * DEGREES;
  };

  const ergas = (estimated) =>
    (100 / 4) *
    Math.sqrt(
      mean(
        range(bands).map((b) => {
          const [x, y] = [band(light, b), band(estimated, b)];
          return mean(x.map((value, k) => (y[k] - value) ** 2)) / mean(x) ** 2;
        }),
      ),
    );

  return (estimate) => {
    const estimated = radiance(estimate);
    return {
      psnr: 10 * Math.log10(peak ** 2 / mean(truth.map((z, k) => (estimate[k] - z) ** 2))),
      ssim: ssim(estimate),
      sam: angle(estimate, truth),
      samOfRadiance: angle(estimated, light),
      ergas: ergas(estimated),
    };
  };
}

function FiveFaces(ui, data) {
  const { truth, rgb } = data;
  const [, rows, cols] = truth.shape;
  const errors = errorsOf(data);
  const metrics = metricsOf(data);
  const at = (name, strength) => truth.map((z, k) => z + strength * errors[name][k]);
  const strengths = [0.1, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2];
  const known = Object.fromEntries(Object.keys(FACES).map((name) => [name, []]));
  let shown = {};
  ui.radio("error", "error", Object.entries(FACES));
  ui.slider("strength", "strength (1: as bicubic)", 0.1, 1);
  const pictures = ui.pictures(["truth", "estimate", "error"]);
  const charts = ui.charts(DRAWN);
  const plane = (cube, b) => cube.subarray(b * rows * cols, (b + 1) * rows * cols);
  const ends = rgb.map((b) => limits(plane(truth, b), 0.01));
  const coloured = (cube) => rgb.map((b, part) => stretched(plane(cube, b), ends[part]));
  pictures[0](coloured(truth), rows, cols);

  return {
    *work() {
      const [name, strength] = [ui.get("error"), ui.get("strength")];
      const estimate = at(name, strength);
      shown = { name, strength, ...metrics(estimate) };
      pictures[1](coloured(estimate), rows, cols);
      const error = estimate.map((z, k) => z - truth[k]);
      pictures[2](
        rgb.map((b) => stretched(plane(error, b), [-3 * data.size, 3 * data.size])),
        rows,
        cols,
      );
      for (const each of strengths)
        for (const face of Object.keys(FACES)) {
          if (known[face].some((found) => found.strength === each)) continue;
          yield;
          known[face].push({ strength: each, ...metrics(at(face, each)) });
        }
    },
    draw() {
      DRAWN.forEach((key, n) => {
        const [title, digits] = METRICS[key];
        const lines = Object.entries(FACES).map(([name, colour]) => ({
          colour,
          bold: name === shown.name,
          points: known[name].map((found) => [found.strength, found[key]]),
        }));
        const all = [...lines.flatMap(({ points }) => points.map(([, y]) => y)), shown[key]];
        charts[n]({
          title: `${title} ${shown[key].toFixed(digits)}`,
          x: [0, 2, "strength"],
          y: [Math.min(...all), Math.max(...all)],
          lines,
          dots: [{ at: [shown.strength, shown[key]], colour: FACES[shown.name] }],
        });
      });
      const said = Object.entries(METRICS).map(
        ([key, [title, digits]]) => `${title} ${shown[key].toFixed(digits)}`,
      );
      ui.say(`${shown.name}, strength ${shown.strength}: ${said.join(", ")}`);
    },
  };
}

// ---------------------------------------------------------------------------------------------
// Deblurring (chapter 4)

/** Blur and decimation of a line, without its halo: rows of a matrix, each with its first column. */
function camera(size, sigma, { taps, scale, halo }) {
  const kernel = gaussian(sigma, taps / 2).slice(0, taps); // its middle is at taps / 2
  const total = sum(kernel);
  const count = (size - sum(halo)) / scale;
  return { size, count, scale, kernel: kernel.map((each) => each / total) };
}

/** A X B', for matrices of `camera`: (rows, cols) to (rows.count, cols.count). */
function seen(x, rows, cols) {
  const across = new Float64Array(rows.size * cols.count);
  for (let r = 0; r < rows.size; r++)
    for (let c = 0; c < cols.count; c++) {
      let total = 0;
      const start = r * cols.size + c * cols.scale;
      for (let k = 0; k < cols.kernel.length; k++) total += cols.kernel[k] * x[start + k];
      across[r * cols.count + c] = total;
    }
  const y = new Float64Array(rows.count * cols.count);
  for (let r = 0; r < rows.count; r++)
    for (let k = 0; k < rows.kernel.length; k++) {
      const start = (r * rows.scale + k) * cols.count;
      for (let c = 0; c < cols.count; c++)
        y[r * cols.count + c] += rows.kernel[k] * across[start + c];
    }
  return y;
}

/** The transpose of `seen`. */
function sentBack(y, rows, cols) {
  const down = new Float64Array(rows.size * cols.count);
  for (let r = 0; r < rows.count; r++)
    for (let k = 0; k < rows.kernel.length; k++) {
      const start = (r * rows.scale + k) * cols.count;
      for (let c = 0; c < cols.count; c++)
        down[start + c] += rows.kernel[k] * y[r * cols.count + c];
    }
  const x = new Float64Array(rows.size * cols.size);
  for (let r = 0; r < rows.size; r++)
    for (let c = 0; c < cols.count; c++) {
      const start = r * cols.size + c * cols.scale;
      const value = down[r * cols.count + c];
      for (let k = 0; k < cols.kernel.length; k++) x[start + k] += cols.kernel[k] * value;
    }
  return x;
}

/** What a camera of some width sees of a band, with noise (per cent of the mean). */
function observed({ radiance, sigmas, ...how }, width, noise) {
  const [rows, cols] = radiance.shape.map((size, k) => camera(size, width * sigmas[k], how));
  const y = seen(radiance, rows, cols);
  const level = (noise / 100) * mean(y);
  const grain = normals(1, y.length);
  return y.map((value, k) => Math.max(value + level * grain[k], how.floor));
}

/** The estimates of Richardson-Lucy, one after the other; the first is A'y / A'1. */
function* richardsonLucy(y, { radiance, sigmas, ...how }, assumed) {
  const [rows, cols] = radiance.shape.map((size, k) => camera(size, assumed * sigmas[k], how));
  const share = sentBack(
    y.map(() => 1),
    rows,
    cols,
  );
  const update = (ratio) => sentBack(ratio, rows, cols).map((value, k) => value / share[k]);
  let x = update(y);
  for (;;) {
    yield x;
    const again = seen(x, rows, cols);
    const factor = update(y.map((value, k) => value / again[k]));
    x = x.map((value, k) => value * factor[k]);
  }
}

function Deblurring(ui, data) {
  const { radiance, halo, floor, top, peak, scale } = data;
  const [rows, cols] = radiance.shape.map((size) => size - sum(halo));
  const most = ui.limits.iterations[1];
  const inner = (x) =>
    Float64Array.from({ length: rows * cols }, (_, k) => {
      const value = x[(Math.floor(k / cols) + halo[0]) * radiance.shape[1] + (k % cols) + halo[0]];
      return Math.log(Math.max(value, floor) / floor) / Math.log(top / floor);
    });
  const truth = inner(radiance);
  const ends = limits(truth, 0.01);
  const percent = (value) => `${value.toFixed(1)} %`;
  ui.slider("width", "width of the PSF", 0.1, 1);
  ui.slider("assumed", "assumed width", 0.1, 1);
  ui.slider("noise", "noise", 0.5, percent);
  ui.slider("iterations", "iterations", 1, 0);
  const pictures = ui.pictures(["truth", "seen", "estimate"]);
  const [chart] = ui.charts(["PSNR of the estimate"], "wide");
  pictures[0]([stretched(truth, ends)], rows, cols);
  let made, estimates, quality;

  return {
    *work() {
      const wanted = ["width", "assumed", "noise"].map(ui.get);
      if (made?.join() !== wanted.join()) {
        [made, estimates, quality] = [wanted, [], []];
        made.rest = richardsonLucy(observed(data, made[0], made[2]), data, made[1]);
        const z = observed(data, made[0], made[2]);
        const low = z.map((value) => Math.log(value / floor) / Math.log(top / floor));
        pictures[1]([stretched(low, ends)], rows / scale, cols / scale);
      }
      while (estimates.length <= most) {
        const z = inner(made.rest.next().value);
        estimates.push(z);
        quality.push(10 * Math.log10(peak ** 2 / mean(z.map((v, k) => (v - truth[k]) ** 2))));
        yield;
      }
    },
    draw() {
      const now = Math.min(ui.get("iterations"), estimates.length - 1);
      pictures[2]([stretched(estimates[now], ends)], rows, cols);
      const best = quality.indexOf(Math.max(...quality));
      const high = quality[best];
      chart({
        title: `PSNR after ${now} iterations: ${quality[now].toFixed(2)} dB`,
        x: [0, most, "iterations"],
        y: [Math.min(...quality), high, "PSNR (dB)"],
        lines: [{ points: [...quality.entries()], colour: TEAL, bold: true, label: "PSNR (dB)" }],
        dots: [
          { at: [best, high], colour: ORANGE, label: `best: ${best}` },
          { at: [now, quality[now]], colour: TEAL },
        ],
      });
      const wrong = Math.round(100 * (made[1] / made[0] - 1));
      const taken = wrong ? `assumed ${Math.abs(wrong)} % too ${wrong > 0 ? "wide" : "narrow"}` : "known";
      ui.say(
        `PSNR after ${now} iterations ${quality[now].toFixed(2)} dB; best after ${best}: ${high.toFixed(2)} dB; the PSF is ${taken}`,
      );
    },
  };
}

// ---------------------------------------------------------------------------------------------
// Unmixing (chapter 6)

const CORNERS = [TEAL, ORANGE, GREY];

/** Shares of three corners that come nearest to a point: at least 0, with the sum 1. */
function unmixed([x, y], corners) {
  const [[ax, ay], [bx, by], [cx, cy]] = corners;
  const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
  const b = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area;
  const c = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area;
  if (area && b >= 0 && c >= 0 && b + c <= 1) return [1 - b - c, b, c];
  const onEdges = range(3).map((from) => {
    const to = (from + 1) % 3;
    const [dx, dy] = [0, 1].map((axis) => corners[to][axis] - corners[from][axis]);
    const along = (x - corners[from][0]) * dx + (y - corners[from][1]) * dy;
    const share = between(0, along / (dx * dx + dy * dy || 1), 1);
    const shares = [0, 0, 0];
    [shares[from], shares[to]] = [1 - share, share];
    return [distance([x, y], mixed(shares, corners)), shares];
  });
  return onEdges.sort((one, other) => one[0] - other[0])[0][1];
}

const mixed = (shares, corners) =>
  [0, 1].map((axis) => sum(shares.map((s, n) => s * corners[n][axis])));
const distance = (one, other) => Math.hypot(one[0] - other[0], one[1] - other[1]);

/** Shares of all points, their residual (per cent of the spread), error, and how many lie outside. */
function unmixing({ points, shares, corners }) {
  const found = points.map((point) => unmixed(point, corners));
  const nearest = found.map((each) => mixed(each, corners));
  const away = points.map((point, n) => distance(point, nearest[n]));
  const middle = [0, 1].map((axis) => mean(points.map((point) => point[axis])));
  const power = (values) => mean(values.map((value) => value * value));
  const spread = power(points.map((point) => distance(point, middle)));
  return {
    found,
    nearest,
    residual: 100 * Math.sqrt(power(away) / spread),
    error: mean(found.flatMap((each, n) => each.map((share, m) => Math.abs(share - shares[n][m])))),
    outside: away.filter((each) => each > 1e-9).length,
  };
}

function Triangle(ui, data) {
  const [points, shares] = [rowsOf(data.points), rowsOf(data.shares)];
  const { names, true: start } = data;
  const ends = [0, 1].map((axis) => {
    const [low, high] = limits(
      start.map((corner) => corner[axis]),
      0,
    );
    return [low - 0.4 * (high - low), high + 0.4 * (high - low)];
  });
  const resized = (factor) => () => {
    const corners = ui.get("corners");
    const middle = mixed([1 / 3, 1 / 3, 1 / 3], corners);
    move(
      corners.map((corner) =>
        corner.map((value, axis) => middle[axis] + factor * (value - middle[axis])),
      ),
    );
  };
  const move = (corners) => ui.put("corners", corners.map(inside));
  const inside = (corner) =>
    corner.map((value, axis) => between(ends[axis][0], value, ends[axis][1]));
  ui.button("true endmembers", () => move(start));
  ui.button("enlarge triangle", resized(1.1));
  ui.button("shrink triangle", resized(1 / 1.1));
  const [plane, recovered] = ui.charts(["the points and the triangle", "recovered shares"], "half");
  const handles = names.map((name, n) => {
    const handle = s(
      "g",
      {
        class: "handle",
        tabindex: 0,
        role: "application",
        "data-corner": n,
        "aria-label": `endmember ${name}, arrow keys move it`,
      },
      s("circle", { r: 20, fill: "transparent" }),
      s("path", { d: "M0 -9L9 7H-9Z", style: `fill: ${CORNERS[n]}` }),
    );
    const go = (corner) => move(ui.get("corners").with(n, corner));
    let held = false;
    handle.addEventListener("pointerdown", (event) => {
      held = true;
      handle.setPointerCapture(event.pointerId);
      event.preventDefault();
      handle.focus();
    });
    handle.addEventListener("pointermove", (event) => held && go(plane.valueAt(event)));
    for (const end of ["pointerup", "pointercancel"])
      handle.addEventListener(end, () => (held = false));
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[
        event.key
      ];
      if (!step) return;
      event.preventDefault();
      go(
        ui
          .get("corners")
          [n].map((value, axis) => value + (step[axis] * (ends[axis][1] - ends[axis][0])) / 100),
      );
    });
    return handle;
  });
  let now;

  return {
    *work() {
      now = unmixing({ points, shares, corners: ui.get("corners") });
    },
    draw() {
      const corners = ui.get("corners");
      plane({
        title: `residual ${now.residual.toFixed(1)} % of the spread`,
        x: [...ends[0], "1st component"],
        y: [...ends[1], "2nd component"],
        lines: [
          {
            points: [...start, start[0]],
            colour: "currentColor",
            dash: "2 3",
            label: "true triangle",
          },
          {
            points: [...corners, corners[0]],
            colour: "currentColor",
            bold: true,
            label: "your triangle",
          },
          ...points.map((point, n) => ({ points: [point, now.nearest[n]], colour: MAGENTA })),
        ],
        dots: points.map((point, n) => ({ at: point, size: 2.2, colour: blend(now.found[n]) })),
        handles: handles.map((node, n) => ({ node, at: corners[n], label: names[n] })),
      });
      recovered({
        title: `mean error of the shares ${now.error.toFixed(3)}`,
        x: [0, 1, "true share"],
        y: [0, 1, "recovered share"],
        lines: [
          {
            points: [
              [0, 0],
              [1, 1],
            ],
            colour: "currentColor",
            label: "right shares",
          },
        ],
        dots: now.found.flatMap((each, n) =>
          each.map((share, m) => ({ at: [shares[n][m], share], size: 1.8, colour: CORNERS[m] })),
        ),
      });
      ui.say(
        `residual ${now.residual.toFixed(1)} % of the spread, mean error of the shares ` +
          `${now.error.toFixed(3)}; ${now.outside} of ${points.length} points outside`,
      );
    },
  };
}

/** The colour of a mixture. */
function blend(shares) {
  const part = (n) => (m) => parseInt(CORNERS[m].slice(1 + 2 * n, 3 + 2 * n), 16);
  return `rgb(${range(3).map((n) => Math.round(sum(shares.map((share, m) => share * part(n)(m)))))})`;
}

// ---------------------------------------------------------------------------------------------
// Adaptation in the plane (chapter 7)

const HIDDEN = 16;
const STEPS = 400;
const [RATE, BETA1, BETA2] = [0.02, 0.9, 0.999]; // Adam

/** Weights of direction (2), classifier (2) and discriminator (16 + 16 + 16 + 1), in this order. */
function firstWeights() {
  const drawn = normals(1, 4 + 3 * HIDDEN + 1);
  const scale = (k) =>
    k < 2 ? Math.SQRT1_2 : k < 4 + 2 * HIDDEN || k === 4 + 3 * HIDDEN ? 1 : 0.25;
  return drawn.map((value, k) => value * scale(k));
}

/** The feature of a point, and its gradient's way back to the direction. */
const unit = (w) => [w[0] / Math.hypot(w[0], w[1]), w[1] / Math.hypot(w[0], w[1])];
const logistic = (logit) => 1 / (1 + Math.exp(-logit));

/** The discriminator's logit of a feature, and its hidden units. */
function judged(w, feature, hidden) {
  let logit = w[4 + 3 * HIDDEN];
  for (let j = 0; j < HIDDEN; j++) {
    hidden[j] = Math.tanh(w[4 + j] * feature + w[4 + HIDDEN + j]);
    logit += w[4 + 2 * HIDDEN + j] * hidden[j];
  }
  return logit;
}

/** Gradient of all weights: the discriminator's reaches the direction times minus gamma. */
function gradient(w, source, target, gamma) {
  const found = new Float64Array(w.length);
  const [u, back, hidden] = [unit(w), [0, 0], new Float64Array(HIDDEN)];
  const all = source.points.length + target.points.length;
  [source, target].forEach(({ points, labels }, place) =>
    points.forEach((point, n) => {
      const feature = u[0] * point[0] + u[1] * point[1];
      let ofFeature = 0;
      if (place === 0) {
        const wrong = (logistic(w[2] * feature + w[3]) - labels[n]) / points.length;
        found[2] += wrong * feature;
        found[3] += wrong;
        ofFeature += wrong * w[2];
      }
      const wrong = (logistic(judged(w, feature, hidden)) - place) / all;
      for (let j = 0; j < HIDDEN; j++) {
        const inside = wrong * w[4 + 2 * HIDDEN + j] * (1 - hidden[j] ** 2);
        found[4 + j] += inside * feature;
        found[4 + HIDDEN + j] += inside;
        found[4 + 2 * HIDDEN + j] += wrong * hidden[j];
        ofFeature -= gamma * inside * w[4 + j];
      }
      found[4 + 3 * HIDDEN] += wrong;
      back[0] += ofFeature * point[0];
      back[1] += ofFeature * point[1];
    }),
  );
  const along = back[0] * u[0] + back[1] * u[1]; // the length of the direction counts for nothing
  [0, 1].forEach((k) => (found[k] = (back[k] - u[k] * along) / Math.hypot(w[0], w[1])));
  return found;
}

/** Train by Adam; yields after every step, and the weights are changed in place. */
function* trained(w, source, target, gamma) {
  const [first, second] = [new Float64Array(w.length), new Float64Array(w.length)];
  for (let step = 1; step <= STEPS; step++) {
    gradient(w, source, target, gamma).forEach((g, k) => {
      first[k] = BETA1 * first[k] + (1 - BETA1) * g;
      second[k] = BETA2 * second[k] + (1 - BETA2) * g * g;
      const [m, v] = [first[k] / (1 - BETA1 ** step), second[k] / (1 - BETA2 ** step)];
      w[k] -= (RATE * m) / (Math.sqrt(v) + 1e-8);
    });
    yield;
  }
}

/** Accuracies (per cent) of the classifier on both domains, and of the discriminator. */
function accuracies(w, source, target) {
  const [u, hidden] = [unit(w), new Float64Array(HIDDEN)];
  const [ofSource, ofTarget] = [source, target].map(({ points, labels }, place) => {
    const features = points.map((point) => u[0] * point[0] + u[1] * point[1]);
    return {
      right: 100 * mean(features.map((f, n) => Number(w[2] * f + w[3] > 0) === labels[n])),
      told: 100 * mean(features.map((f) => Number(judged(w, f, hidden) > 0) === place)),
    };
  });
  return {
    source: ofSource.right,
    target: ofTarget.right,
    domain: (ofSource.told + ofTarget.told) / 2,
  };
}

function Adaptation(ui, data) {
  const clouds = (pair) =>
    pair.map(([points, labels]) => ({
      points: rowsOf(points),
      labels: [...labels].map(Math.round),
    }));
  const [source, sourceTest] = clouds(data.source);
  const targets = Object.fromEntries(
    Object.entries(data.targets).map(([name, pair]) => [name, clouds(pair)]),
  );
  const finished = {}; // weights and accuracies by target and gamma
  ui.choice("target", "target", Object.keys(targets));
  ui.slider("gamma", "γ", 0.02, 2);
  const [left, right] = ui.charts(["source", "target"], "pair");
  const [curve] = ui.charts(["accuracy on test points"], "wide");
  let [w, step, shown] = [];

  return {
    *work() {
      const [name, gamma] = [ui.get("target"), ui.get("gamma")];
      const done = ((finished[name] ??= {})[gamma.toFixed(2)] ??= { gamma });
      step = STEPS;
      if (done.w) [w, shown] = [done.w, done.shown];
      else {
        [w, step] = [firstWeights(), 0];
        for (const _ of trained(w, source, targets[name][0], gamma)) {
          step++;
          yield;
        }
        shown = accuracies(w, sourceTest, targets[name][1]);
        Object.assign(done, { w, shown });
      }
    },
    draw() {
      const [name, gamma] = [ui.get("target"), ui.get("gamma")];
      const test = [sourceTest, targets[name][1]];
      if (step < STEPS) shown = accuracies(w, ...test);
      const u = unit(w);
      const middle = -w[3] / w[2];
      const line = [-9, 9].map((t) => [middle * u[0] - t * u[1], middle * u[1] + t * u[0]]);
      [left, right].forEach((chart, k) =>
        chart({
          title: `${k ? "target" : "source"} ${shown[k ? "target" : "source"].toFixed(0)} %`,
          x: [-3, 3, "x₁"],
          y: [-5, 3, "x₂"],
          lines: [
            { points: line, colour: "currentColor", bold: true, label: "the classifier's line" },
          ],
          dots: test[k].points.map((at, n) => ({
            at,
            size: 2.4,
            colour: k ? RED : BLUE,
            ring: !test[k].labels[n],
          })),
        }),
      );
      const visited = Object.values(finished[name] ?? {})
        .filter((each) => each.shown)
        .sort((one, other) => one.gamma - other.gamma);
      const looks = { source: BLUE, domain: ORANGE, target: RED };
      curve({
        title: `accuracy: source ${shown.source.toFixed(0)} %, domain ${shown.domain.toFixed(0)} %, target ${shown.target.toFixed(0)} %`,
        x: [0, 1, "γ"],
        y: [40, 100, "accuracy (%)"],
        lines: Object.entries(looks).map(([key, colour]) => ({
          points: visited.map((each) => [each.gamma, each.shown[key]]),
          colour,
          label: key,
          bold: true,
        })),
        dots: Object.entries(looks).flatMap(([key, colour]) => [
          ...visited.map((each) => ({ at: [each.gamma, each.shown[key]], size: 2, colour })),
          { at: [gamma, shown[key]], colour },
        ]),
      });
      const angle = Math.atan2(Math.sign(w[2]) * u[1], Math.sign(w[2]) * u[0]) * DEGREES;
      ui.say(
        `γ ${gamma.toFixed(2)}, step ${step} of ${STEPS}: source ${shown.source.toFixed(0)} %, ` +
          `target ${shown.target.toFixed(0)} %, domain ${shown.domain.toFixed(0)} %; ` +
          `direction ${angle.toFixed(0)}°`,
      );
    },
  };
}

// ---------------------------------------------------------------------------------------------
// t-SNE (chapter 9)

/** Distance of the means of two clouds, in units of the spread within a cloud. */
function separation(clouds) {
  const middles = clouds.map((points) =>
    [0, 1].map((axis) => mean(points.map((point) => point[axis]))),
  );
  const within = clouds.flatMap((points, k) =>
    points.map((point) => distance(point, middles[k]) ** 2),
  );
  return distance(...middles) / Math.sqrt(mean(within));
}

function Embeddings(ui, data) {
  const valuesOf = (k) => [...new Set(data.placed.map((each) => each[k]))];
  const options = [valuesOf(0), valuesOf(1).sort((one, other) => one - other), valuesOf(2)];
  ui.choice("features", "features", options[0]);
  ui.choice("perplexity", "perplexity", options[1]);
  ui.choice("start", "start", options[2]);
  const [chart] = ui.charts(["t-SNE"], "wide tall");
  let clouds;

  return {
    *work() {
      const wanted = ["features", "perplexity", "start"].map(ui.get).join();
      const placed = data.placed.find((each) => each.slice(0, 3).join() === wanted);
      clouds = placed.slice(3).map(rowsOf);
    },
    draw() {
      const all = clouds[0].flatMap((point, n) => [point, clouds[1][n]]); // none on top of the other
      const ends = [0, 1].map((axis) =>
        limits(
          all.map((point) => point[axis]),
          0,
        ),
      );
      const features = ui.get("features");
      const numbers = { "gap in the picture": separation(clouds), ...data.distances[features] };
      chart({
        title: `${features}, perplexity ${ui.get("perplexity")}, start: ${ui.get("start")}`,
        x: ends[0],
        y: ends[1],
        bare: true,
        lines: [
          { points: [], colour: BLUE, label: "SWIR1" },
          { points: [], colour: RED, label: "SWIR2" },
        ],
        dots: all.map((at, n) => ({ at, size: 2.4, colour: n % 2 ? RED : BLUE })),
      });
      ui.say(
        Object.entries(numbers)
          .map(([name, value]) => `${name} ${value.toFixed(2)}`)
          .join(", "),
      );
    },
  };
}

// ---------------------------------------------------------------------------------------------
// Arithmetic that figures share

/** Standard normal numbers, the same for the same seed (mulberry32, Box-Muller). */
function normals(seed, count) {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float64Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

/** A Gaussian at the integers from -reach to reach, with the sum 1. */
function gaussian(sigma, reach) {
  const taps = range(2 * reach + 1).map((k) => Math.exp(-0.5 * ((k - reach) / sigma) ** 2));
  return taps.map((tap) => tap / sum(taps));
}

/** A separable filter, where it lies inside of the image. */
function filtered(image, rows, cols, taps) {
  const [outRows, outCols] = [rows - taps.length + 1, cols - taps.length + 1];
  const across = new Float64Array(rows * outCols);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < outCols; c++) {
      let total = 0;
      for (let k = 0; k < taps.length; k++) total += taps[k] * image[r * cols + c + k];
      across[r * outCols + c] = total;
    }
  const result = new Float64Array(outRows * outCols);
  for (let r = 0; r < outRows; r++)
    for (let k = 0; k < taps.length; k++)
      for (let c = 0; c < outCols; c++)
        result[r * outCols + c] += taps[k] * across[(r + k) * outCols + c];
  return result;
}

/** Values below and above which a share of all lies. */
function limits(values, share) {
  const sorted = Float64Array.from(values).sort();
  return [share, 1 - share].map((part) => sorted[Math.round(part * (sorted.length - 1))]);
}

/** Grey levels of values between two ends. */
const stretched = (values, [low, high]) =>
  Uint8ClampedArray.from(values, (value) => (255 * (value - low)) / (high - low || 1));

/** Arrays come as 16-bit codes in base64, somewhere in the content. */
function unpack(value) {
  if (Array.isArray(value)) return value.map(unpack);
  if (value?.codes === undefined) {
    if (typeof value !== "object" || !value) return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, unpack(each)]));
  }
  const bytes = Uint8Array.from(atob(value.codes), (character) => character.charCodeAt(0));
  const codes = new Uint16Array(bytes.buffer);
  const array = Float64Array.from(codes, (code) => value.low + code * value.step);
  return Object.assign(array, { shape: value.shape });
}

const rowsOf = (array) =>
  range(array.shape[0]).map((n) => [
    ...array.subarray(n * array.shape[1], (n + 1) * array.shape[1]),
  ]);

// ---------------------------------------------------------------------------------------------
// The page

/** Round numbers, about `most`, that divide an axis. */
function ticks(low, high, most) {
  const rough = (high - low || 1) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return range(count).map((k) => Number(((first + k) * step).toPrecision(6)));
}

/** A place for a chart: a function that draws it there, and says which value is at a pointer. */
function chartIn(figure) {
  const caption = h("figcaption");
  const svg = s("svg", { role: "img" });
  figure.append(caption, svg);
  const legend = h("p", { class: "legend" });
  figure.append(legend);
  let toValue;

  function draw({ title, x, y, lines = [], dots = [], handles = [], bare = false }) {
    const width = Math.max(svg.clientWidth || 300, 140);
    const height = svg.clientHeight || 200;
    const [left, right, top, bottom] = bare
      ? [6, width - 6, 6, height - 6]
      : [y[2] ? 54 : 36, width - 14, 8, height - 34];
    const [x0, x1] = x;
    const pad = bare ? 0 : 0.04 * (y[1] - y[0]) || 0.01;
    const [y0, y1] = [y[0] - pad, y[1] + pad];
    const across = (value) => left + ((value - x0) / (x1 - x0)) * (right - left);
    const up = (value) => bottom - ((value - y0) / (y1 - y0)) * (bottom - top);
    const at = (point) => `${across(point[0]).toFixed(1)} ${up(point[1]).toFixed(1)}`;
    const text = (content, attributes) => s("text", attributes, content);
    const number = (value) => String(value).replace("-", "−");
    toValue = ([px, py]) => [
      x0 + ((px - left) / (right - left)) * (x1 - x0),
      y0 + ((bottom - py) / (bottom - top)) * (y1 - y0),
    ];
    caption.textContent = title;
    svg.setAttribute("aria-label", title);
    if (handles.length) svg.setAttribute("role", "group");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [];
    if (!bare) {
      for (const tick of ticks(x0, x1, width < 250 ? 3 : 6))
        parts.push(text(number(tick), { x: across(tick), y: bottom + 15, "text-anchor": "middle" }));
      for (const tick of ticks(y0, y1, height / 40)) {
        parts.push(s("line", { class: "grid", x1: left, x2: right, y1: up(tick), y2: up(tick) }));
        parts.push(text(number(tick), { x: left - 5, y: up(tick) + 4, "text-anchor": "end" }));
      }
      parts.push(text(x[2], { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }));
      const turned = `translate(12 ${(bottom + top) / 2}) rotate(-90)`;
      if (y[2]) parts.push(text(y[2], { transform: turned, "text-anchor": "middle" }));
    }
    const paths = lines
      .filter(({ points }) => points.length)
      .map(({ points, colour, bold, dash = "" }) =>
        s("path", {
          d: `M${points.map(at).join("L")}`,
          stroke: colour,
          "stroke-width": bold ? 2.4 : 1,
          "stroke-dasharray": dash,
        }),
      );
    const circles = dots.map(({ at: [px, py], colour, size = 4.5, ring }) =>
      s("circle", {
        cx: across(px).toFixed(1),
        cy: up(py).toFixed(1),
        r: size,
        ...(ring ? { fill: "none", stroke: colour } : { fill: colour }),
      }),
    );
    // Nothing leaves the frame.
    const id = `frame-${(chartIn.count = (chartIn.count ?? 0) + 1)}`;
    const frame = { x: left - 5, y: top - 5, width: right - left + 10, height: bottom - top + 10 };
    parts.push(s("clipPath", { id }, s("rect", frame)));
    parts.push(s("g", { "clip-path": `url(#${id})` }, ...paths, ...circles));
    for (const { at: place, label } of dots.filter((dot) => dot.label))
      parts.push(
        text(label, { x: between(left, across(place[0]) - 4, right - 50), y: up(place[1]) + 18 }),
      );
    for (const { node, at: place, label } of handles) {
      node.setAttribute("transform", `translate(${at(place)})`);
      const below = place[1] < mean(handles.map((each) => each.at[1])); // outside of the triangle
      const y = up(place[1]) + (below ? 22 : -14);
      parts.push(text(label, { x: across(place[0]), y, "text-anchor": "middle" }));
    }
    // The handles stay where they are in the document, and with them the focus.
    for (const node of [...svg.childNodes])
      if (!handles.some((each) => each.node === node)) node.remove();
    svg.prepend(...parts);
    for (const { node } of handles) if (node.parentNode !== svg) svg.append(node);
    const named = lines.filter((line) => line.label);
    legend.replaceChildren(
      ...(named.length > 1 ? named : []).map(({ label, colour, dash = "" }) =>
        h(
          "span",
          {},
          s(
            "svg",
            { viewBox: "0 0 20 8", "aria-hidden": "true" },
            s("path", {
              d: "M0 4H20",
              stroke: colour,
              "stroke-width": 2.4,
              "stroke-dasharray": dash,
            }),
          ),
          ` ${label}`,
        ),
      ),
    );
  }

  draw.valueAt = ({ clientX, clientY }) => {
    const box = svg.getBoundingClientRect();
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    return toValue([
      ((clientX - box.left) * width) / box.width,
      ((clientY - box.top) * height) / box.height,
    ]);
  };
  return draw;
}

const FIGURES = { FiveFaces, Deblurring, Triangle, Adaptation, Embeddings };

function render({ model, el }) {
  const content = model.get("content");
  const data = unpack(content);
  const controls = h("div", { class: "controls" });
  const status = h("p", { role: "status" });
  const body = h("div", { class: "shown" });
  const root = h(
    "div",
    {
      class: "explorable",
      role: "group",
      "aria-label": "explorable figure",
      // JupyterLab looks at keys before they come here, and lets be what is marked so.
      "data-lm-suppress-shortcuts": "true",
      onkeydown: (event) => event.ctrlKey || event.metaKey || event.stopPropagation(),
    },
    controls,
    body,
    status,
  );
  el.replaceChildren(root);
  const shows = []; // what brings the controls up to date
  const names = [];
  let [work, frame, said, computing] = [null, 0, "", FRAME];

  const ui = {
    limits: content.limits,
    get: (name) => model.get(name),
    put(name, value) {
      model.set(name, value);
      model.save_changes();
    },
    say: (text) => (said = text),
    button: (text, onclick) => controls.append(h("button", { type: "button", onclick }, text)),

    /** A slider of a setting; `format` is a function or a number of digits. */
    slider(name, label, step, format) {
      const say = typeof format === "function" ? format : (value) => value.toFixed(format);
      const [min, max] = content.limits[name];
      const output = h("output");
      const input = h("input", {
        type: "range",
        min,
        max,
        step,
        "aria-label": label,
        oninput: () => ui.put(name, Number(input.value)),
      });
      controls.append(h("label", { class: "slider" }, h("span", {}, label), input, output));
      names.push(name);
      shows.push(() => {
        input.value = ui.get(name);
        output.textContent = say(ui.get(name));
        input.setAttribute("aria-valuetext", output.textContent);
      });
    },

    /** A list of the values that a setting may have. */
    choice(name, label, values) {
      const select = h(
        "select",
        { name, onchange: () => ui.put(name, values[select.selectedIndex]) },
        ...values.map((value) => h("option", {}, value)),
      );
      controls.append(h("label", {}, `${label} `, select));
      names.push(name);
      shows.push(() => (select.selectedIndex = values.indexOf(ui.get(name))));
    },

    /** The same as buttons, each with the colour of its value. */
    radio(name, label, values) {
      const group = `${name}-${Math.random()}`;
      const buttons = values.map(([value, colour]) => {
        const input = h("input", {
          type: "radio",
          name: group,
          value,
          onchange: () => ui.put(name, value),
        });
        input.style.accentColor = colour;
        return h(
          "label",
          {},
          input,
          h("span", { class: "swatch", style: `background: ${colour}` }),
          ` ${value}`,
        );
      });
      controls.append(h("fieldset", {}, h("legend", {}, label), ...buttons));
      names.push(name);
      shows.push(() =>
        buttons.forEach(({ firstChild: input }) => (input.checked = input.value === ui.get(name))),
      );
    },

    /** Pictures side by side: functions that paint grey levels, or those of three colours. */
    pictures(titles) {
      const row = h("div", { class: "pictures" });
      body.append(row);
      return titles.map((title) => {
        const canvas = h("canvas", { role: "img", "aria-label": title });
        row.append(h("figure", {}, canvas, h("figcaption", {}, title)));
        return (planes, rows, cols) => {
          const image = new ImageData(cols, rows);
          for (let p = 0; p < rows * cols; p++)
            image.data.set(
              [0, 1, 2].map((part) => planes[part % planes.length][p]).concat(255),
              4 * p,
            );
          [canvas.width, canvas.height] = [cols, rows];
          canvas.getContext("2d").putImageData(image, 0, 0);
        };
      });
    },

    charts(titles, kind = "") {
      const row = h("div", { class: `charts ${kind}` });
      body.append(row);
      return titles.map((title) => {
        const figure = h("figure", { "aria-label": title });
        row.append(figure);
        return chartIn(figure);
      });
    },
  };

  /** Compute for a while, show what is known, and go on in the next frame. */
  function advance() {
    const start = performance.now();
    let done = false;
    while (!done && performance.now() < start + computing) done = work.next().done;
    const computed = performance.now();
    figure.draw();
    computing = between(FRAME, 2 * (performance.now() - computed), 50); // drawing is a third
    if (done) status.textContent = said; // once, for those who listen to it
    root.setAttribute("aria-busy", !done);
    frame = done ? 0 : requestAnimationFrame(advance);
  }

  function restart() {
    shows.forEach((show) => show());
    work = figure.work();
    root.setAttribute("aria-busy", true);
    if (!frame) frame = requestAnimationFrame(advance);
  }

  const figure = FIGURES[content.figure](ui, data);
  if (content.figure === "Triangle") names.push("corners");
  for (const name of names) model.on(`change:${name}`, restart);
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth !== width) restart();
    width = root.clientWidth;
  });
  resized.observe(root);
  return () => {
    resized.disconnect();
    cancelAnimationFrame(frame);
  };
}

export default { render };
