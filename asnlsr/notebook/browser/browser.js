// The band browser: pictures of a hyperspectral cube, and the spectra of its pixels.
//
// anywidget calls `render` in JupyterLab; in a page without a kernel the package calls it with
// `standIn`. What is shown comes from `content` (see __init__.py); names are only ever set as text.

const PIN_COLOURS = ["#EE7733", "#0077BB", "#EE3377", "#009988", "#33BBEE"];
const DASHES = ["", "6 3", "2 3", "8 3 2 3"]; // the last cube, the reference, is drawn solid
const PICTURE = 384; // pixels of a canvas along its longer side
const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** The part of a kernel that a page without one needs. */
function standIn(state) {
  const listeners = {};
  return {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      (listeners[`change:${name}`] ?? []).forEach((listener) => listener());
    },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    save_changes() {},
  };
}

/** Make an element; `attributes` may hold properties and event handlers. */
function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Make an element of a drawing. */
function s(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

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
  const cubes = content.cubes.map((cube) => {
    const size = cube.rows * cube.cols;
    const first = start;
    start += size;
    const plane = (b) => bytes.subarray(b * pixels + first, b * pixels + first + size);
    return { ...cube, plane };
  });
  const rows = Math.max(...cubes.map((cube) => cube.rows));
  const cols = Math.max(...cubes.map((cube) => cube.cols));
  const plane = (b) => bytes.subarray(b * pixels, (b + 1) * pixels);
  return { ...content, nm, values, cubes, rows, cols, plane, source: content };
}

/** The spectrum of a cube at a pixel that is counted on the largest cube. */
function spectrum(scene, cube, [row, col]) {
  const r = Math.floor((row * cube.rows) / scene.rows);
  const c = Math.floor((col * cube.cols) / scene.cols);
  return scene.values.map((value, b) => value[cube.plane(b)[r * cube.cols + c]]);
}

/** Values of a band, over all cubes, below and above which `clip` per cent of the pixels lie. */
function limits(scene, b, clip) {
  const counts = new Uint32Array(256);
  const plane = scene.plane(b);
  for (const q of plane) counts[q]++;
  if (scene.masked) counts[255] = 0; // what is masked counts for no scale
  const total = counts.reduce((sum, count) => sum + count, 0);
  const at = (share) => {
    let sum = 0;
    const q = counts.findIndex((count) => (sum += count) > 0 && sum >= share * total);
    return scene.values[b][Math.max(q, 0)];
  };
  return [at(clip / 100), at(1 - clip / 100)];
}

/** Brightness, 0 to 255, of every code of a band. */
function levels(scene, b, [low, high]) {
  const span = high - low || 1;
  return Uint8ClampedArray.from(scene.values[b], (value) => (255 * (value - low)) / span);
}

/** Angle in degrees of every pixel of a cube to a spectrum, or to the same place of a cube. */
function angles(scene, cube, reference) {
  const found = new Float32Array(cube.rows * cube.cols);
  const planes = scene.nm.map((_, b) => cube.plane(b));
  for (let p = 0; p < found.length; p++) {
    const row = Math.floor((Math.floor(p / cube.cols) + 0.5) * (scene.rows / cube.rows));
    const col = Math.floor(((p % cube.cols) + 0.5) * (scene.cols / cube.cols));
    const other = reference.plane ? spectrum(scene, reference, [row, col]) : reference;
    let [xy, xx, yy] = [0, 0, 0];
    for (let b = 0; b < planes.length; b++) {
      const x = scene.values[b][planes[b][p]];
      xy += x * other[b];
      xx += x * x;
      yy += other[b] * other[b];
    }
    found[p] = (Math.acos(Math.min(1, xy / Math.sqrt(xx * yy || 1))) * 180) / Math.PI;
  }
  return found;
}

/** Paint every cube in its own pixels: canvases, and the range of the colours if there is one. */
function paint(scene, { view, map, clip, band, rgb, pin }) {
  const last = scene.cubes.at(-1);
  const colours = scene.maps[map]; // red, green and blue of 256 levels
  let range, unit, colourOf; // colourOf: cube -> place -> red, green, blue
  if (view === "three") {
    const levelOf = rgb.map((b) => levels(scene, b, limits(scene, b, clip)));
    colourOf = (cube) => {
      const planes = rgb.map(cube.plane);
      const seen = (p) => !scene.masked || planes.every((plane) => plane[p] < 255);
      return (p) => seen(p) && planes.map((plane, part) => levelOf[part][plane[p]]);
    };
  } else if (view === "band") {
    [range, unit] = [limits(scene, band, clip), scene.unit];
    const levelOf = levels(scene, band, range);
    colourOf = (cube) => {
      const plane = cube.plane(band);
      return (p) => !(scene.masked && plane[p] === 255) && colours[levelOf[plane[p]]];
    };
  } else {
    const reference = view === "reference" ? last : spectrum(scene, last, pin);
    const found = new Map(scene.cubes.map((cube) => [cube, angles(scene, cube, reference)]));
    const all = [...found.values()].flatMap((each) => [...each]);
    const sorted = Float32Array.from(all.filter((angle) => !isNaN(angle))).sort();
    const top = sorted[Math.floor((1 - clip / 100) * (sorted.length - 1))] || 1;
    [range, unit] = [[0, top], "spectral angle (degrees)"];
    colourOf = (cube) => (p) => colours[Math.min(255, Math.floor((255 * found.get(cube)[p]) / top))];
  }
  const pictures = scene.cubes.map((cube) => {
    const canvas = h("canvas", { width: cube.cols, height: cube.rows });
    const image = new ImageData(cube.cols, cube.rows);
    const colour = colourOf(cube);
    for (let p = 0; p < cube.rows * cube.cols; p++) {
      const seen = colour(p); // what is masked stays transparent
      if (seen) image.data.set([...seen, 255], 4 * p);
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  });
  return { pictures, range, unit, gradient: colours.map((colour) => `rgb(${colour})`) };
}

const short = (value) => (isNaN(value) ? "masked" : String(Number(value.toPrecision(3))));
const between = (low, value, high) => Math.min(Math.max(low, value), high);

/** Round numbers, at most six, that divide an axis. */
function ticks(low, high) {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, k) => (first + k) * step);
}

/** Draw spectra: axes, the ranges that are cut out, the band that is shown, and the lines. */
function plot(scene, lines, band, width, choose) {
  const [height, left, right, top, bottom] = [260, 66, 18, 10, 220];
  const { nm } = scene;
  const all = lines.flatMap((line) => line.values.filter((value) => !isNaN(value)));
  const low = Math.min(0, ...all);
  const high = Math.max(...all, low + 1e-9);
  const x = (value) => left + ((value - nm[0]) / (nm.at(-1) - nm[0] || 1)) * (width - right - left);
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
  const text = (content, attributes) => s("text", attributes, content);
  const rule = (kind, x1, y1, x2, y2) => s("line", { class: kind, x1, y1, x2, y2 });
  const svg = s("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Spectra of the pinned pixels",
  });
  for (const cut of scene.cuts) {
    const [start, end] = cut.map((each) => x(between(nm[0], each, nm.at(-1))));
    const size = { x: start, y: top, width: end - start, height: bottom - top };
    const why = s("title", {}, "cut out: water vapour absorbs the light");
    svg.append(s("rect", { class: "cut", ...size }, why));
  }
  for (const tick of ticks(nm[0], nm.at(-1)))
    svg.append(text(short(tick), { x: x(tick), y: bottom + 16, "text-anchor": "middle" }));
  for (const tick of ticks(low, high)) {
    svg.append(rule("grid", left, y(tick), width - right, y(tick)));
    svg.append(text(short(tick), { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }));
  }
  const turned = `translate(14 ${(bottom + top) / 2}) rotate(-90)`;
  svg.append(
    rule("marker", x(nm[band]), top, x(nm[band]), bottom),
    text("wavelength (nm)", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }),
    text(scene.unit, { transform: turned, "text-anchor": "middle" }),
  );
  const steps = nm.slice(1).map((each, b) => each - nm[b]);
  const usual = [...steps].sort((a, b) => a - b)[steps.length >> 1];
  const joint = (b) => (b && steps[b - 1] < 2.5 * usual ? "L" : "M"); // no line across a gap
  for (const { values, colour, dash, label } of lines) {
    const step = (b) => (isNaN(values[b - 1]) ? "M" : joint(b)); // none across what is masked
    const d = values
      .map((v, b) => (isNaN(v) ? "" : `${step(b)}${x(nm[b]).toFixed(1)} ${y(v).toFixed(1)}`))
      .join("");
    svg.append(s("path", { d, stroke: colour, "stroke-dasharray": dash }, s("title", {}, label)));
  }
  svg.addEventListener("click", ({ clientX }) => {
    const box = svg.getBoundingClientRect();
    const away = nm.map((each) => Math.abs(x(each) - ((clientX - box.left) * width) / box.width));
    choose(away.indexOf(Math.min(...away)));
  });
  return svg;
}

function button(text, label, onclick) {
  return h("button", { type: "button", "aria-label": label, onclick }, text);
}

/** A labelled choice among [value, text] pairs. */
function choice(label, options, value, onchange) {
  const list = options.map(([key, text]) => h("option", { value: key }, text));
  const select = h("select", { onchange: () => onchange(select.value) }, ...list);
  select.value = value;
  return h("label", {}, `${label} `, select);
}

async function render({ model, el }) {
  let scene, parts, painted, timer;
  const local = { view: "three", map: "cividis", clip: 1, cursor: null };
  const get = (name) => model.get(name);
  const put = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const whole = () => put("region", [0, 0, scene.rows, scene.cols]);
  const unpin = () => put("pins", get("pins").slice(0, -1));
  const pin = (pixel) => {
    put("pins", [...get("pins").slice(1 - PIN_COLOURS.length), pixel]);
    put("pixel", pixel);
  };
  const point = (pixel) => {
    local.cursor = pixel;
    update();
  };
  const set = (name) => (value) => {
    local[name] = value;
    draw();
  };
  const go = (band) => {
    if (local.view === "three") local.view = "band";
    put("band", band);
  };
  const here = () => local.cursor ?? get("pins").at(-1) ?? [scene.rows >> 1, scene.cols >> 1];
  const inside = ([row, col]) => {
    const [r0, c0, r1, c1] = get("region");
    return [between(r0, Math.floor(row), r1 - 1), between(c0, Math.floor(col), c1 - 1)];
  };

  /** Show `size` times as many rows and columns, around the pixel in hand. */
  function zoom(size) {
    const region = get("region");
    const ends = here().map((middle, k) => {
      const most = k ? scene.cols : scene.rows;
      const length = between(4, Math.round((region[k + 2] - region[k]) * size), most);
      const start = between(0, Math.round(middle - length / 2), most - length);
      return [start, start + length];
    });
    put("region", [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]);
  }

  function play() {
    if (timer) timer = clearInterval(timer);
    else timer = setInterval(() => go((get("band") + 1) % scene.nm.length), 250);
    update();
  }

  /** A picture to point at, to click, to drag a rectangle on, and to steer with keys. */
  function canvasOf({ name }) {
    let from = null;
    const under = (event) => {
      const box = canvas.getBoundingClientRect();
      const [r0, c0, r1, c1] = get("region");
      const down = (event.clientY - box.top) / box.height;
      const across = (event.clientX - box.left) / box.width;
      return inside([r0 + down * (r1 - r0), c0 + across * (c1 - c0)]);
    };
    const canvas = h("canvas", {
      tabIndex: 0,
      role: "application",
      "aria-label": `${name} arrow keys move, Enter pins, Delete unpins, plus and minus zoom`,
      onpointerdown: (event) => (from = under(event)),
      onpointermove: (event) => point(under(event)),
      onpointerleave: () => point(null),
      onpointercancel: () => (from = null),
      onpointerup(event) {
        const ends = [from, under(event)];
        const [rows, cols] = [0, 1].map((k) => ends.map((end) => end?.[k]).sort((a, b) => a - b));
        const drawn = rows[1] - rows[0] > 3 && cols[1] - cols[0] > 3;
        if (from && drawn) put("region", [rows[0], cols[0], rows[1] + 1, cols[1] + 1]);
        else if (from) pin(ends[1]);
        from = null;
      },
      onkeydown(event) {
        const move = KEYS[event.key];
        const act = { Enter: () => pin(inside(here())), Delete: unpin, Escape: whole,
          "+": () => zoom(1 / 2), "-": () => zoom(2) }[event.key]; // prettier-ignore
        if (move) point(inside(here().map((place, k) => Math.floor(place) + move[k])));
        else if (act) act();
        if (move || act) event.preventDefault();
      },
    });
    return canvas;
  }

  /** Make all parts anew, for a cube that was not shown before. */
  async function build() {
    timer = clearInterval(timer);
    scene = await decode(get("content"));
    const bands = scene.nm.map((nm, b) => [b, `${nm.toFixed(0)} nm`]);
    const views = [["three", "three bands"], ["band", "one band"], ["pin", "angle to the last pin"]];
    if (scene.cubes.length > 1) views.push(["reference", `angle to ${scene.cubes.at(-1).name}`]);
    const maps = Object.keys(scene.maps).map((name) => [name, name]);
    const slide = (label, max, step, value, oninput) =>
      h("input", { type: "range", min: 0, max, step, value, "aria-label": label,
        oninput: ({ target }) => oninput(Number(target.value)) }); // prettier-ignore
    const composer = ["red", "green", "blue"].map((name, part) =>
      choice(name, bands, get("rgb")[part], (b) => put("rgb", get("rgb").with(part, Number(b)))),
    );
    const presets = scene.presets.map(({ name, bands }) =>
      button(name, `preset ${name}`, () => put("rgb", bands)),
    );
    const view = choice("show", views, local.view, set("view"));
    parts = {
      view: view.lastChild,
      play: button("", "", play),
      slider: slide("wavelength", scene.nm.length - 1, 1, get("band"), go),
      output: h("output"),
      legend: h("p", { class: "legend" }),
      spectra: h("div", { class: "spectra" }),
      key: h("ul", { class: "key" }),
      status: h("p", { role: "status" }),
      selects: composer.map((label) => label.lastChild),
      canvases: scene.cubes.map(canvasOf),
    };
    const figures = scene.cubes.map(({ name }, k) =>
      h("figure", {}, parts.canvases[k], h("figcaption", {}, name)),
    );
    const root = h("div", { class: "band-browser", role: "group", "aria-label": "band browser",
      // JupyterLab looks at keys before they come here, and lets be what is marked so.
      "data-lm-suppress-shortcuts": "true",
      onkeydown: (event) => event.ctrlKey || event.metaKey || event.stopPropagation() }); // prettier-ignore
    root.append(
      h("div", { class: "controls" }, parts.play, parts.slider, parts.output),
      h("div", { class: "controls" },
        view,
        h("span", { class: "controls for-three" }, ...composer, ...presets),
        h("span", { class: "controls for-map" }, choice("colours", maps, local.map, set("map")))),
      h("div", { class: "controls" },
        h("label", {}, "clip (%) ", slide("clip (%)", 10, 0.5, local.clip, set("clip"))),
        button("zoom in", "zoom in", () => zoom(1 / 2)),
        button("zoom out", "zoom out", () => zoom(2)),
        button("whole", "show the whole picture", whole),
        button("unpin", "unpin the last pixel", unpin)),
      h("div", { class: "pictures" }, ...figures),
      parts.legend, parts.spectra, parts.key, parts.status); // prettier-ignore
    el.replaceChildren(root);
    draw();
  }

  /** Paint the pictures anew, for another choice of what they show. */
  function draw() {
    const chosen = { ...local, band: get("band"), rgb: get("rgb"), pin: get("pins").at(-1) ?? here() };
    painted = paint(scene, chosen);
    el.firstChild.dataset.view = parts.view.value = local.view;
    const { range, unit, gradient } = painted;
    const bar = h("span", { class: "bar", style: `background: linear-gradient(90deg, ${gradient})` });
    if (range) parts.legend.replaceChildren(short(range[0]), bar, `${short(range[1])} ${unit}`);
    parts.legend.hidden = !range;
    update();
  }

  /** Bring everything else up to date: marks, spectra, and what the controls say. */
  function update() {
    const { play, slider, output, selects, canvases, spectra, key, status } = parts;
    const [band, pins, cursor] = [get("band"), get("pins"), local.cursor];
    const nm = `${scene.nm[band].toFixed(0)} nm`;
    play.textContent = timer ? "pause" : "play";
    play.setAttribute("aria-label", timer ? "pause" : "play through the bands");
    slider.value = band;
    slider.setAttribute("aria-valuetext", nm);
    output.textContent = `${nm}, band ${band + 1} of ${scene.nm.length}`;
    selects.forEach((select, part) => (select.value = get("rgb")[part]));
    const marks = pins.map((pixel, n) => [pixel, PIN_COLOURS[n % PIN_COLOURS.length], `pin ${n + 1}`]);
    if (cursor) marks.push([cursor, "currentColor", "pointer"]);
    canvases.forEach((canvas, k) => show(canvas, painted.pictures[k], scene.cubes[k], marks));
    const dashOf = (k) => DASHES[(scene.cubes.length - 1 - k) % DASHES.length];
    const lines = marks.flatMap(([pixel, colour, label]) =>
      scene.cubes.map((cube, k) => ({
        values: spectrum(scene, cube, pixel),
        dash: dashOf(k),
        label: `${label} ${cube.name}`,
        colour,
      })),
    );
    const width = between(300, spectra.clientWidth || 640, 640); // letters stay legible
    spectra.replaceChildren(plot(scene, lines, band, width, go));
    const entry = (text, stroke, dash) =>
      h("li", {}, s("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" },
        s("path", { d: "M0 4H24", stroke, "stroke-dasharray": dash })), ` ${text}`); // prettier-ignore
    key.replaceChildren(
      ...marks.map(([[row, col], colour, label]) => entry(`${label} (${row}, ${col})`, colour, "")),
      ...(scene.cubes.length > 1
        ? scene.cubes.map(({ name }, k) => entry(name, "currentColor", dashOf(k)))
        : []),
    );
    const [row, col] = here();
    const values = scene.cubes.map((cube) => `${cube.name} ${short(spectrum(scene, cube, [row, col])[band])}`);
    status.textContent = `row ${row}, column ${col}, ${nm}: ${values.join(", ")}`;
  }

  /** Draw the part of a picture that is shown, and the marks on it. */
  function show(canvas, picture, cube, marks) {
    const [r0, c0, r1, c1] = get("region");
    const size = PICTURE / Math.max(r1 - r0, c1 - c0);
    const [down, across] = [cube.rows / scene.rows, cube.cols / scene.cols];
    canvas.width = (c1 - c0) * size;
    canvas.height = (r1 - r0) * size;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    const part = [c0 * across, r0 * down, (c1 - c0) * across, (r1 - r0) * down];
    pen.drawImage(picture, ...part, 0, 0, canvas.width, canvas.height);
    for (const [[row, col], colour] of marks)
      for (const [style, width] of [["white", 5], [colour, 2.5]]) {
        pen.strokeStyle = style === "currentColor" ? "black" : style;
        pen.lineWidth = width;
        pen.beginPath();
        pen.arc((col + 0.5 - c0) * size, (row + 0.5 - r0) * size, 9, 0, 2 * Math.PI);
        pen.stroke();
      }
  }

  await build();
  model.on("change:content", build);
  // While another cube is unpacked, what is known of it does not fit the one that is shown.
  const fresh = (act) => () => scene.source === get("content") && act();
  for (const name of ["band", "rgb", "pins"]) model.on(`change:${name}`, fresh(draw));
  model.on("change:region", fresh(update));
  return () => clearInterval(timer);
}

export default { render };
