// Pictures of layers, and charts.

const written = (value) => String(value).replaceAll("-", "−");
const short = (value) => (isNaN(value) ? "masked" : written(Number(value.toPrecision(3))));

// Pictures: what has no value stays transparent, and the page shows its hatching there.

function pictureOf({ rows, cols }, colourAt) {
  const canvas = h("canvas", { width: cols, height: rows });
  const image = new ImageData(cols, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let p = 0; p < pixels.length; p++) pixels[p] = colourAt(p);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const opaque = (red, green, blue) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;

/** Colour a layer; `colours` are red, green and blue of 256 levels. */
function tinted(layer, [low, high], colours) {
  const table = Uint32Array.from(colours, (colour) => opaque(...colour));
  const scale = 255 / (high - low || 1);
  return pictureOf(layer, (p) => {
    const value = layer.values[p];
    return isNaN(value) ? 0 : table[between(0, Math.round((value - low) * scale), 255)];
  });
}

/** Three layers as red, green and blue. */
function mixed(layers, limits) {
  const scales = limits.map(([low, high]) => 255 / (high - low || 1));
  const level = (p, k) =>
    between(0, Math.round((layers[k].values[p] - limits[k][0]) * scales[k]), 255);
  return pictureOf(layers[0], (p) => {
    const seen = !layers.some(({ values }) => isNaN(values[p]));
    return seen ? opaque(level(p, 0), level(p, 1), level(p, 2)) : 0;
  });
}

/** Pictures side by side on white, with their captions and the scale of their colours. */
function poster(pictures, { range, unit, colours, holes }) {
  const [gap, line, bar] = [16, 22, 192];
  const widths = pictures.map(({ canvas }) => Math.max(canvas.width, bar));
  const tallest = Math.max(...pictures.map(({ canvas }) => canvas.height));
  const [width, height] = [widths.reduce((sum, each) => sum + each + gap, gap), tallest + 76];
  const canvas = h("canvas", { width: Math.max(width, 640), height });
  const pen = canvas.getContext("2d");
  pen.font = "14px sans-serif";
  const hatch = pen.createPattern(hatching(), "repeat");
  const fill = (style, ...box) => {
    pen.fillStyle = style;
    pen.fillRect(...box);
  };
  const write = (text, x, y, most) => {
    pen.fillStyle = "black";
    pen.fillText(text, x, y, most);
    return x + pen.measureText(text).width + gap / 2;
  };
  fill("white", 0, 0, canvas.width, canvas.height);
  let x = gap;
  pictures.forEach(({ canvas: picture, caption }, k) => {
    fill(hatch, x, gap, picture.width, picture.height);
    pen.drawImage(picture, x, gap);
    write(caption, x, gap + picture.height + line - 4, widths[k]);
    x += widths[k] + gap;
  });
  const y = height - gap;
  x = gap;
  if (range) {
    x = write(short(range[0]), x, y);
    colours.forEach((colour, k) => fill(`rgb(${colour})`, x + (k * bar) / 256, y - 12, 2, 14));
    x = write(short(range[1]), x + bar + gap / 2, y);
  }
  x = write(unit, x, y);
  if (holes) {
    fill(hatch, x + gap, y - 12, 28, 14);
    write("masked", x + gap + 36, y);
  }
  return canvas;
}

/** A piece of the pattern that stands for masked pixels. */
function hatching() {
  const canvas = h("canvas", { width: 8, height: 8 });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#d8d8d8";
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = "#8a8a8a";
  for (const x of [-8, 0, 8]) {
    pen.moveTo(x, 8);
    pen.lineTo(x + 8, 0);
  }
  pen.stroke();
  return canvas;
}

// Charts

/** Round numbers, at most six, that divide an axis. */
function ticks(low, high) {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-6);
  const count = Math.floor(high / step + 1e-6) - first + 1;
  return Array.from({ length: count }, (_, k) => Number(((first + k) * step).toPrecision(9)));
}

/**
 * Draw curves over one axis: { values, colour, dash, label, spread }, with `spread` as a shade.
 * `cuts` are ranges of the axis that are greyed, `gap` a distance that no line crosses, `at` the
 * place of a marker, and `choose` is called with the number of the place that is clicked.
 */
function chart({ xs, lines, width, name, xLabel, yLabel, cuts = [], gap = Infinity, at, choose }) {
  const [height, left, right, top, bottom] = [260, 66, 18, 10, 220];
  const ends = ({ values, spread }) =>
    values.flatMap((v, k) => (isNaN(v) ? [] : spread ? [v - spread[k], v + spread[k]] : [v]));
  const all = lines.flatMap(ends);
  const low = Math.min(0, ...all);
  const high = Math.max(...all, low + 1e-9);
  const [start, end] = [xs[0], xs.at(-1)];
  const x = (value) => left + ((value - start) / (end - start || 1)) * (width - right - left);
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
  const text = (content, attributes) => s("text", attributes, content);
  const rule = (kind, x1, y1, x2, y2) => s("line", { class: kind, x1, y1, x2, y2 });
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  for (const cut of cuts) {
    const [from, to] = cut.map((each) => x(between(start, each, end)));
    const size = { x: from, y: top, width: to - from, height: bottom - top };
    const why = s("title", {}, "cut out: water vapour absorbs the light");
    svg.append(s("rect", { class: "cut", ...size }, why));
  }
  for (const tick of ticks(start, end))
    svg.append(text(written(tick), { x: x(tick), y: bottom + 16, "text-anchor": "middle" }));
  for (const tick of ticks(low, high)) {
    svg.append(rule("grid", left, y(tick), width - right, y(tick)));
    svg.append(text(written(tick), { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }));
  }
  const turned = { transform: `translate(14 ${(bottom + top) / 2}) rotate(-90)` };
  if (yLabel.length > 36) Object.assign(turned, { textLength: 215, lengthAdjust: "spacingAndGlyphs" });
  if (at !== undefined) svg.append(rule("marker", x(at), top, x(at), bottom));
  svg.append(
    text(xLabel, { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }),
    text(yLabel, { ...turned, "text-anchor": "middle" }),
  );
  const point = (value, k) => `${x(xs[k]).toFixed(1)} ${y(value).toFixed(1)}`;
  for (const { values, colour, dash, label, spread } of lines) {
    const runs = []; // no line across what is masked, nor across a gap
    values.forEach((value, k) => {
      if (isNaN(value)) return;
      const on = k && !isNaN(values[k - 1]) && xs[k] - xs[k - 1] < gap;
      if (on) runs.at(-1).push(k);
      else runs.push([k]);
    });
    if (spread) {
      const edge = (run, sign) => run.map((k) => point(values[k] + sign * spread[k], k));
      const around = (run) => `M${[...edge(run, 1), ...edge(run, -1).reverse()].join("L")}Z`;
      svg.append(s("path", { class: "spread", d: runs.map(around).join(""), style: `fill: ${colour}` }));
    }
    const d = runs.map((run) => `M${run.map((k) => point(values[k], k)).join("L")}`).join("");
    svg.append(s("path", { d, stroke: colour, "stroke-dasharray": dash }, s("title", {}, label)));
  }
  if (choose) svg.classList.add("choosable");
  svg.addEventListener("click", ({ clientX }) => {
    const box = svg.getBoundingClientRect();
    const away = xs.map((each) => Math.abs(x(each) - ((clientX - box.left) * width) / box.width));
    choose?.(away.indexOf(Math.min(...away)));
  });
  return svg;
}

/** Hand a file to the reader. */
function save(name, blob) {
  const href = URL.createObjectURL(blob);
  h("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}
