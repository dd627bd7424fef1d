// The band browser: pictures of hyperspectral cubes, and what their pixels, regions and lines hold.
//
// anywidget calls `render` in JupyterLab; in a page without a kernel the package calls it with
// `standIn`. What is shown comes from `content` (see __init__.py); names are only ever set as text.
// `cube.js` (numbers) and `drawing.js` (pictures, charts) stand above this file in one module.

const PIN_COLOURS = ["#EE7733", "#0077BB", "#EE3377", "#009988", "#33BBEE"];
const REGION_COLOUR = "#8855DD";
const DASHES = ["", "6 3", "2 3", "8 3 2 3"]; // the last cube is drawn solid
const PICTURE = 384; // pixels of a canvas along its longer side
const BLINK = 700; // milliseconds for which a cube is shown
const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const TOOLS = {
  pin: "click a pixel for its spectrum, or drag for the mean of a region",
  region: "drag a rectangle, or click two corners, for its mean and spread",
  profile: "drag a line, or click its two ends, for the values along it",
  zoom: "drag a rectangle, or click, to enlarge",
};
const VIEWS = {
  three: "false colour",
  band: "one band",
  ratio: "ratio of two bands",
  normalised: "normalised difference of two bands",
  components: "principal components",
  pin: "spectral angle to the last pin",
};
const COMPARISONS = {
  difference: "difference in one band",
  rmse: "RMSE over all bands",
  angle: "spectral angle",
};
const HELP =
  "On a picture, arrow keys move, with Shift by ten pixels; Enter does what a click does; " +
  "Delete unpins the last pixel; plus and minus zoom, Escape shows the whole; B blinks.";

function button(text, title, onclick) {
  return h("button", { type: "button", title, onclick }, text);
}

function cross(what, onclick) {
  return h("button", { type: "button", title: what, "aria-label": what, class: "cross", onclick }, "×");
}

/** A labelled choice; `options` are [value, text] pairs, or groups of them by their name. */
function choice(label, options, value, onchange) {
  const list = (pairs) => pairs.map(([key, text]) => h("option", { value: key }, text));
  const groups = Array.isArray(options)
    ? list(options)
    : Object.entries(options).map(([name, pairs]) => h("optgroup", { label: name }, ...list(pairs)));
  const select = h("select", { onchange: () => onchange(select.value) }, ...groups);
  select.value = value;
  return h("label", {}, `${label} `, select);
}

function slide(label, max, step, value, oninput) {
  const heard = ({ target }) => oninput(Number(target.value));
  const input = h("input", { type: "range", min: 0, max, step, "aria-label": label, oninput: heard });
  input.value = value;
  return input;
}

/** Act once after all that is being changed has changed. */
function soon(act) {
  let due = false;
  return () => {
    if (!due)
      queueMicrotask(() => {
        due = false;
        act();
      });
    due = true;
  };
}

const rectangle = ([r0, c0], [r1, c1]) =>
  [Math.min(r0, r1), Math.min(c0, c1), Math.max(r0, r1) + 1, Math.max(c0, c1) + 1]; // prettier-ignore

async function render({ model, el }) {
  let scene, parts, painted, timer;
  const local = { map: "cividis", clip: 1, tool: "pin", from: null, cursor: null };
  // What nobody has chosen yet; it is not written to the model, where it might undo a choice.
  const defaults = {
    rgb: (given) => (given.length ? given : scene.presets.at(-1).bands),
    band: (given) => (given < 0 ? get("rgb")[0] : given),
    pins: (given) => (given.length || local.unpinned ? given : [scene.middle]),
    extent: (given) => (given.length ? given : [0, 0, scene.rows, scene.cols]),
  };
  const get = (name) => (defaults[name] ?? ((given) => given))(model.get(name));
  const put = (changes) => {
    local.said = ""; // it speaks of what was shown
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const set = (name) => (value) => {
    local[name] = value;
    draw();
  };

  // What the reader does

  const stop = () => {
    timer = clearInterval(timer);
    local.playing = false;
  };
  const whole = () => put({ extent: [] });
  const unpin = (n = get("pins").length - 1) => {
    const pins = get("pins").toSpliced(n, 1);
    local.unpinned = true;
    put({ pins });
    draw();
  };
  const pin = (pixel) => {
    const others = get("pins").filter((other) => String(other) !== String(pixel));
    put({ pins: [...others.slice(1 - PIN_COLOURS.length), pixel], pixel });
  };
  const point = (pixel) => {
    [local.cursor, local.said] = [pixel, ""];
    update();
  };
  const go = (band) => {
    const compared = get("view") in COMPARISONS;
    put({ view: compared ? "difference" : "band", band });
  };
  const here = () => local.cursor ?? get("pins").at(-1) ?? [scene.rows >> 1, scene.cols >> 1];

  /** Show a rectangle, moved inside the picture. */
  function look([r0, c0, r1, c1]) {
    const part = (from, to, most) => {
      const length = between(Math.min(4, most), to - from, most);
      const start = between(0, from, most - length);
      return [start, start + length];
    };
    const [rows, cols] = [part(r0, r1, scene.rows), part(c0, c1, scene.cols)];
    put({ extent: [rows[0], cols[0], rows[1], cols[1]] });
  }

  /** Show `size` times as many rows and columns, around the pixel in hand. */
  function zoom(size) {
    const [r0, c0, r1, c1] = get("extent");
    const ends = [r1 - r0, c1 - c0].map((length, k) => {
      const wanted = Math.round(length * size);
      const start = Math.round(here()[k] - wanted / 2);
      return [start, start + wanted];
    });
    look([ends[0][0], ends[1][0], ends[0][1], ends[1][1]]);
  }

  /** Move the pixel in hand, and what is shown with it. */
  function move(down, across) {
    const at = here();
    const row = between(0, at[0] + down, scene.rows - 1);
    const col = between(0, at[1] + across, scene.cols - 1);
    const [r0, c0, r1, c1] = get("extent");
    const by = (place, from, to) => Math.min(0, place - from) + Math.max(0, place - to + 1);
    const [y, x] = [by(row, r0, r1), by(col, c0, c1)];
    if (x || y) look([r0 + y, c0 + x, r1 + y, c1 + x]);
    point([row, col]);
  }

  /** End a region, a line or a rectangle to enlarge. */
  function finish(tool, from, to) {
    local.from = null;
    if (tool === "profile") put({ line: [...from, ...to] });
    else if (tool === "zoom") look(rectangle(from, to));
    else put({ region: rectangle(from, to) });
  }

  /** What a click or Enter does at a pixel. */
  function act(pixel) {
    const { tool, from } = local;
    if (tool === "pin") pin(pixel);
    else if (tool === "zoom") zoom(1 / 2);
    else if (from) finish(tool, from, pixel);
    else local.from = pixel;
    update();
  }

  function play() {
    const playing = !local.playing;
    stop();
    if (playing) timer = setInterval(() => go((get("band") + 1) % scene.nm.length), 250);
    local.playing = playing;
    local.blink = null;
    draw();
  }

  /** Show the next of the compared cubes in the same place. */
  function flip() {
    if (get("view") in COMPARISONS) put({ view: "three" });
    local.blink = ((local.blink ?? -1) + 1) % (rivals().length + 1);
    draw();
  }

  function blink() {
    const on = local.blink != null;
    stop();
    local.blink = null;
    if (on) return draw();
    flip();
    timer = setInterval(flip, BLINK);
  }

  /** Pin the pixel where the compared cubes differ most, and show by how much. */
  function jump() {
    stop();
    local.blink = null;
    const view = get("view") in COMPARISONS ? get("view") : "rmse";
    const found = rivals().map((cube) => ({ cube, ...largest(scene, compare(view, cube)) }));
    const size = ({ value }) => (isNaN(value) ? -1 : Math.abs(value));
    const { cube, pixel, value } = found.reduce((a, b) => (size(b) > size(a) ? b : a));
    const [r0, c0, r1, c1] = get("extent");
    if (pixel[0] < r0 || pixel[0] >= r1 || pixel[1] < c0 || pixel[1] >= c1) whole();
    put({ view });
    pin(pixel);
    const amount = view === "angle" ? `${short(value)} degrees` : `${short(value)} ${scene.unit}`;
    const where = `row ${pixel[0]}, column ${pixel[1]}`;
    const what = view === "difference" ? `difference at ${scene.label(get("band"))}` : COMPARISONS[view];
    const [one, other] = [cube, rival()].map((each) => spectrum(scene, each, pixel));
    const apart = one.map((value, band) => Math.abs(value - other[band]) || 0);
    const most = view === "difference" ? "" : `, most at ${scene.label(apart.indexOf(Math.max(...apart)))}`;
    local.cursor = null;
    local.said = `Largest ${what}, ${called(cube)} against ${called(rival())}: ${amount} at ${where} (from 0)${most}; now pinned`;
  }

  // What is computed

  const called = (cube) => cube.name || "cube";
  const rival = () => scene.cubes[local.against];
  /** The cubes that are compared with `rival`. */
  function rivals() {
    const others = scene.cubes.filter((cube) => cube !== rival());
    const chosen = others.filter((cube) => String(cube.k) === local.of);
    return chosen.length ? chosen : others;
  }

  function compare(view, cube) {
    if (view === "difference") return differenceLayer(scene, cube, rival(), get("band"));
    const layer = view === "rmse" ? rmseLayer : angleLayer;
    return once(scene, `${view} ${cube.k} ${rival().k}`, () => layer(scene, cube, rival()));
  }

  /** What the view shows: a layer and a picture of every cube in it, and how to read the colours. */
  function paint() {
    const [view, band, rgb] = [get("view"), get("band"), get("rgb")];
    const { clip, ratio } = local;
    const colours = scene.maps[view === "difference" ? scene.diverging : local.map];
    const bandOf = (cube) => bandLayer(scene, cube, band);
    const plain = (of) => scene.cubes.map((cube) => ({ cube, layer: of(cube), caption: cube.name }));
    const tint = (shown, range, unit) => {
      for (const each of shown) each.picture = tinted(each.layer, range, colours);
      return { shown, range, unit, colours };
    };
    const mix = (layersOf, limits, unit) => {
      const shown = plain(layersOf[0]);
      for (const each of shown) each.picture = mixed(layersOf.map((of) => of(each.cube)), limits); // prettier-ignore
      return { shown, unit };
    };
    if (view in COMPARISONS) {
      const caption = (cube) =>
        view === "difference" ? `${called(cube)} − ${called(rival())}` : `${called(cube)} against ${called(rival())}`;
      const shown = rivals().map((cube) => ({ cube, layer: compare(view, cube), caption: caption(cube) }));
      const how = { even: view === "difference", size: view !== "difference" };
      const range = layerLimits(shown.map(({ layer }) => layer), clip, how); // prettier-ignore
      const { label, unit } = scene;
      const what = { difference: `${unit} at ${label(band)}`, rmse: unit, angle: "degrees" }[view];
      const found = tint(shown, range, `${view === "rmse" ? "RMSE, " : ""}${what}`);
      // The other side of the comparison, grey, to see where one is.
      const grey = tinted(bandOf(rival()), bandLimits(scene, band, clip), scene.maps.gray);
      const name = `${called(rival())}, ${label(band)}`;
      return { ...found, shown: [...shown, { cube: rival(), picture: grey, caption: name }] };
    }
    if (view === "band") {
      const unit = `${scene.unit} at ${scene.label(band)}`;
      return tint(plain(bandOf), bandLimits(scene, band, clip), unit);
    }
    if (view === "components") {
      const found = once(scene, "components", () => components(scene));
      const layerOf = (k) => (cube) =>
        once(scene, `component ${k} ${cube.k}`, () => componentLayer(scene, cube, found, k));
      const all = [0, 1, 2].map(layerOf);
      const limits = all.map((of) => layerLimits(scene.cubes.map(of), clip));
      const shares = ["red", "green", "blue"].map((name, k) => {
        const share = 100 * (found.shares[k] ?? 0);
        return `${name} PC ${k + 1} (${share < 10 ? share.toFixed(1) : share.toFixed(0)} %)`;
      });
      return mix(all, limits, `${shares.join(", ")} of the variance`);
    }
    if (view === "ratio" || view === "normalised") {
      const shown = plain((cube) => ratioLayer(scene, cube, ratio, view === "normalised"));
      const range = layerLimits(shown.map(({ layer }) => layer), clip); // prettier-ignore
      const [a, b] = ratio.map(scene.label);
      return tint(shown, range, `${view === "ratio" ? "ratio" : "normalised difference"}, ${a} to ${b}`);
    }
    if (view === "pin") {
      const reference = spectrum(scene, scene.cubes.at(-1), get("pins").at(-1) ?? here());
      const shown = plain((cube) => angleLayer(scene, cube, reference));
      const range = layerLimits(shown.map(({ layer }) => layer), clip, { size: true }); // prettier-ignore
      return tint(shown, range, "degrees");
    }
    const bands = rgb.map((b) => (cube) => bandLayer(scene, cube, b));
    const found = mix(bands, rgb.map((b) => bandLimits(scene, b, clip)), ""); // prettier-ignore
    for (const each of found.shown) each.layer = bandOf(each.cube); // for the profile
    return found;
  }

  /** What a value of the layers is. */
  function quantity() {
    const view = get("view");
    if (view === "three") return `${scene.unit} at ${scene.label(get("band"))}`;
    if (view === "components") return "PC 1";
    return painted.unit;
  }

  // Files for the reader

  const dashOf = ({ k }) => DASHES[(scene.cubes.length - 1 - k) % DASHES.length];
  const regionText = ([r0, c0, r1, c1]) => `rows ${r0} to ${r1 - 1}, columns ${c0} to ${c1 - 1}`;
  const measured = (cube) =>
    once(scene, `region ${get("region")} ${cube.k}`, () => statistics(scene, cube, get("region")));

  function saveSpectra(name, pins) {
    const { nm, per, cubes, unit } = scene;
    const columns = pins.flatMap(([row, col], n) =>
      cubes.map((cube) => ({
        name: `pin ${n + 1} (${row} ${col}) ${cube.name}`.trim(),
        values: spectrum(scene, cube, [row, col]),
      })),
    );
    if (get("region").length)
      for (const cube of cubes)
        for (const [name, of] of [["mean", "mean"], ["standard deviation", "deviation"], ["pixels", "number"]])
          columns.push({
            name: `region ${name} ${cube.name}`.trim(),
            values: measured(cube).map((each) => each[of]),
          }); // prettier-ignore
    const region = get("region").length ? `; region: ${regionText(get("region"))}` : "";
    const remark = `${unit}${region}; of values that this page keeps in 255 levels`;
    const first = { name: `wavelength (${scene.wavelength_unit})`, values: nm.map((each) => each / per) };
    save(name, new Blob([csv(remark, [first, ...columns])], { type: "text/csv" }));
  }

  function profiles() {
    const { pixels, distance } = along(get("line"));
    const lines = painted.shown
      .filter(({ layer }) => layer)
      .map(({ layer, caption, cube }) => ({
        values: pixels.map((pixel) => layer.values[placeIn(scene, layer, pixel)]),
        name: caption || "value",
        dash: dashOf(cube),
      }));
    return { pixels, distance, lines };
  }

  function saveProfile() {
    const { pixels, distance, lines } = profiles();
    const places = ["row", "column"].map((name, k) => ({ name, values: pixels.map((each) => each[k]) }));
    const columns = [{ name: "distance (pixels)", values: distance }, ...places, ...lines];
    save("profile.csv", new Blob([csv(quantity(), columns)], { type: "text/csv" }));
  }

  function savePicture() {
    const seen = painted.shown.filter(({ cube }) => !parts.figures[cube.k].hidden);
    const pictures = seen.map(({ cube, caption }) => ({ canvas: parts.canvases[cube.k], caption }));
    poster(pictures, painted).toBlob((blob) => save("picture.png", blob));
  }

  // The panel

  /** A picture to point at, to click, to drag on, and to steer with keys. */
  function canvasOf({ name }) {
    let start = null; // where the pointer went down: pixel, and place on the screen
    const under = ({ clientX, clientY }) => {
      const box = canvas.getBoundingClientRect();
      const [r0, c0, r1, c1] = get("extent");
      const row = Math.floor(r0 + ((clientY - box.top) / box.height) * (r1 - r0));
      const col = Math.floor(c0 + ((clientX - box.left) / box.width) * (c1 - c0));
      return [between(r0, row, r1 - 1), between(c0, col, c1 - 1)];
    };
    const far = ({ clientX, clientY }) => Math.hypot(clientX - start.x, clientY - start.y) > 6;
    const forget = () => {
      start = local.drag = null;
      update();
    };
    const canvas = h("canvas", {
      tabIndex: 0,
      role: "application",
      "aria-label": `picture ${name}`.trim(),
      "aria-describedby": parts.help.id,
      onpointerdown(event) {
        start = { pixel: under(event), x: event.clientX, y: event.clientY };
        canvas.setPointerCapture(event.pointerId);
      },
      onpointermove(event) {
        const pixel = under(event);
        if (start && far(event)) local.drag = [start.pixel, pixel];
        point(pixel);
      },
      onpointerleave: () => point(null),
      onpointercancel: forget,
      onpointerup(event) {
        if (!start) return;
        const [pixel, drawn] = [under(event), far(event)];
        const from = start.pixel;
        forget();
        local.cursor = pixel;
        if (drawn) finish(local.tool, from, pixel);
        else act(pixel);
      },
      onkeydown(event) {
        const arrow = KEYS[event.key];
        const keys = { Enter: () => act(here()), " ": () => act(here()), Delete: () => unpin(),
          Escape: whole, "+": () => zoom(1 / 2), "-": () => zoom(2), b: step, B: step }; // prettier-ignore
        if (arrow) move(...arrow.map((by) => by * (event.shiftKey ? 10 : 1)));
        else keys[event.key]?.();
        if (arrow || keys[event.key]) event.preventDefault();
      },
    });
    const step = () => {
      if (scene.cubes.length < 2) return;
      stop();
      flip();
    };
    return canvas;
  }

  /** Make all parts anew, for a cube that was not shown before. */
  async function build() {
    stop();
    const read = await decode(get("content"));
    if (read.source !== get("content")) return; // and another build is on its way
    scene = read;
    const [cubes, rgb] = [scene.cubes, get("rgb")];
    const several = cubes.length > 1;
    const id = `bands-${Math.random().toString(36).slice(2)}`;
    Object.assign(local, { unpinned: false, against: cubes.length - 1, of: "all", blink: null, drag: null, from: null });
    local.ratio = [rgb.at(-1), rgb[0]];
    const bands = scene.nm.map((_, b) => [b, scene.label(b)]);
    const names = cubes.map((cube) => [cube.k, called(cube)]);
    const views = several
      ? { "each cube": Object.entries(VIEWS), compared: Object.entries(COMPARISONS) }
      : Object.entries(VIEWS);
    const maps = Object.keys(scene.maps).filter((name) => name !== scene.diverging);
    const group = (kind, ...children) => h("span", { class: `controls ${kind}` }, ...children);
    const row = (...children) => h("div", { class: "controls" }, ...children);
    const composer = ["red", "green", "blue"].map((name, part) =>
      choice(name, bands, rgb[part], (b) => put({ rgb: get("rgb").with(part, Number(b)) })),
    );
    const presets = scene.presets.map(({ name, bands }) =>
      button(name, `preset ${name}`, () => put({ rgb: bands })),
    );
    const pair = ["of", "and"].map((name, part) =>
      choice(name, bands, local.ratio[part], (b) => set("ratio")(local.ratio.with(part, Number(b)))),
    );
    const tools = Object.entries(TOOLS).map(([tool, title]) =>
      h("label", { class: "tool", title },
        h("input", { type: "radio", name: id, value: tool, checked: tool === local.tool,
          onchange: () => pick(tool) }),
        h("span", {}, tool)), // prettier-ignore
    );
    const view = choice("show", views, get("view"), (name) => put({ view: name }));
    parts = {
      help: h("p", { id, class: "help" }, HELP),
      view: view.lastChild,
      play: button("", "", play),
      slider: slide("wavelength", scene.nm.length - 1, 1, get("band"), go),
      output: h("output"),
      legend: h("p", { class: "legend" }),
      blink: button("blink", "show the compared cubes in turn, in the same place", blink),
      whole: button("whole", "show the whole picture", whole),
      hint: h("p", { class: "hint" }),
      spectra: h("div", { class: "chart spectra" }),
      key: h("ul", { class: "key" }),
      region: h("section", { "aria-label": "region" }),
      profile: h("section", { "aria-label": "profile" }),
      status: h("p", { role: "status" }),
      selects: composer.map((label) => label.lastChild),
    };
    parts.canvases = cubes.map(canvasOf);
    parts.captions = cubes.map(() => h("figcaption"));
    parts.figures = cubes.map((_, k) => h("figure", {}, parts.canvases[k], parts.captions[k]));
    const compared = row(
      choice("compare", [["all", cubes.length > 2 ? "all others" : "the other"], ...names], "all", set("of")),
      choice("with", names, local.against, (k) => set("against")(Number(k))),
      button("largest difference", "pin the pixel where they differ most", jump),
      parts.blink,
    ); // prettier-ignore
    const root = h("div", { class: "band-browser", role: "group", "aria-label": "band browser",
      // JupyterLab looks at keys before they come here, and lets be what is marked so.
      "data-lm-suppress-shortcuts": "true",
      onkeydown: (event) => event.ctrlKey || event.metaKey || event.stopPropagation() }); // prettier-ignore
    root.style.setProperty("--hatch", `url(${hatching().toDataURL()})`);
    root.style.setProperty("--cubes", cubes.length);
    const tooled = h("div", { class: "steering" },
      row(parts.play, parts.slider, parts.output),
      row(view, group("for-three", ...composer, ...presets), group("for-ratio", ...pair)),
      ...(several ? [compared] : []),
      row(
        h("span", { class: "tools", role: "radiogroup", "aria-label": "what a click or drag does" }, ...tools),
        parts.whole,
        button("save picture", "as PNG", savePicture),
        button("save spectra", "of pins and region, as CSV", () => saveSpectra("spectra.csv", get("pins"))),
        h("details", {}, h("summary", {}, "more"),
          row(choice("colours", maps.map((name) => [name, name]), local.map, set("map")),
            h("label", {}, "clip (%) ", slide("clip (%)", 10, 0.5, local.clip, set("clip")))),
          parts.help)),
      parts.hint); // prettier-ignore
    root.append(
      h("div", { class: several ? "stage" : "stage alone" },
        h("div", {}, h("div", { class: "pictures" }, ...parts.figures), parts.legend, parts.status),
        tooled,
        h("div", { class: "curves" }, parts.spectra, parts.key)),
      parts.region, parts.profile); // prettier-ignore
    el.replaceChildren(root);
    watcher.disconnect();
    watcher.observe(parts.spectra);
    pick(local.tool);
    draw();
  }

  function pick(tool) {
    Object.assign(local, { tool, from: null });
    el.firstChild.dataset.tool = tool;
    parts.hint.textContent = `${tool}: ${TOOLS[tool]}`;
    update();
  }

  // While another cube is unpacked, what is known of it does not fit the one that is shown.
  const fresh = (act) => soon(() => scene?.source === get("content") && parts && act());

  /** Paint the pictures anew, for another choice of what they show. */
  const draw = fresh(() => {
    const view = get("view");
    painted = paint();
    el.firstChild.dataset.view = parts.view.value = view;
    const { shown, range, unit, colours } = painted;
    const holes = ({ layer }) => layer?.values.some(isNaN);
    painted.holes = scene.masked || shown.some(holes);
    const steps = colours?.map((colour) => `rgb(${colour})`);
    const bar = range && h("span", { class: "bar", style: `background: linear-gradient(90deg, ${steps})` });
    const legend = range ? [short(range[0]), bar, short(range[1]), h("span", {}, unit)] : [unit];
    if (range && local.clip) legend.push(h("span", {}, `(${local.clip} % clipped)`));
    if (painted.holes) legend.push(h("span", { class: "bar masked" }), "masked");
    parts.legend.replaceChildren(...legend);
    parts.legend.hidden = !legend.some(Boolean);
    const blinking = local.blink != null && [...rivals(), rival()][local.blink];
    scene.cubes.forEach((cube, k) => {
      const found = shown.find((each) => each.cube === cube);
      parts.figures[k].hidden = !found || (blinking && blinking !== cube);
      parts.captions[k].textContent = found?.caption ?? "";
    });
    parts.blink.setAttribute("aria-pressed", Boolean(blinking));
    measure();
    refresh();
  });

  /** Bring the numbers of the region and the profile up to date. */
  function measure() {
    const [region, line, band] = [get("region"), get("line"), get("band")];
    const removing = (name) => cross(`remove the ${name}`, () => put({ [name]: [] }));
    const cells = (kind, texts) => texts.map((text) => h(kind, {}, text));
    const nodes = [];
    if (region.length) {
      const titles = ["cube", "pixels", "mean", "standard deviation", "smallest", "largest"];
      const lines = scene.cubes.map((cube) => {
        const { number, mean, deviation, low, high } = measured(cube)[band];
        const numbers = [mean, deviation, low, high].map(short);
        return h("tr", {}, h("th", { scope: "row" }, called(cube)), ...cells("td", [number, ...numbers]));
      });
      const caption = `region, ${regionText(region)}: ${scene.unit} at ${scene.label(band)}`;
      nodes.push(
        h("p", {}, caption),
        h("div", { class: "scroll", tabIndex: 0 },
          h("table", { "aria-label": caption }, h("tr", {}, ...cells("th", titles)), ...lines)),
        h("p", { class: "controls" },
          button("save mean spectrum", "of the region, as CSV", () => saveSpectra("region.csv", [])),
          removing("region")),
      ); // prettier-ignore
    }
    parts.region.replaceChildren(...nodes);
    parts.region.hidden = !region.length;
    parts.profile.hidden = !line.length;
    if (!line.length) return parts.profile.replaceChildren();
    const { distance, lines } = profiles();
    const drawn = lines.map((each) => ({ ...each, label: each.name, colour: "currentColor" }));
    const [from, to] = [line.slice(0, 2), line.slice(2)].map((end) => end.join(", "));
    parts.profile.replaceChildren(
      h("div", { class: "chart" },
        chart({ xs: distance, lines: drawn, width: widthOf(parts.profile), name: `Profile from ${from} to ${to}`,
          xLabel: `pixels from (${from}) to (${to})`, yLabel: quantity() })),
      h("p", { class: "controls" }, button("save profile", "as CSV", saveProfile), removing("line")),
    ); // prettier-ignore
  }

  const widthOf = (node) => between(300, node.clientWidth || 640, 640); // letters stay legible

  /** Bring everything else up to date: marks, spectra, and what the controls say. */
  function refresh() {
    if (!painted) return;
    const { play, slider, output, selects, canvases, spectra, key, status } = parts;
    const [band, pins, region] = [get("band"), get("pins"), get("region")];
    const { cubes, nm, per, label } = scene;
    play.textContent = local.playing ? "pause" : "play";
    play.setAttribute("aria-label", local.playing ? "pause" : "play through the bands");
    slider.value = band;
    slider.setAttribute("aria-valuetext", label(band));
    output.textContent = `${label(band)}, band ${band + 1} of ${nm.length}`;
    selects.forEach((select, part) => (select.value = get("rgb")[part]));
    parts.whole.hidden = String(get("extent")) === `0,0,${scene.rows},${scene.cols}`;
    const marks = pins.map((pixel, n) => ({
      pixel, name: `pin ${n + 1}`, colour: PIN_COLOURS[n % PIN_COLOURS.length], remove: () => unpin(n),
    })); // prettier-ignore
    if (local.cursor) marks.push({ pixel: local.cursor, name: "pointer", colour: "currentColor" });
    for (const { cube, picture } of painted.shown) show(canvases[cube.k], picture, marks);
    const lines = marks.flatMap(({ pixel, colour, name }) =>
      cubes.map((cube) => ({
        values: spectrum(scene, cube, pixel),
        dash: dashOf(cube),
        label: `${name} ${cube.name}`.trim(),
        colour,
      })),
    );
    if (region.length)
      for (const cube of cubes) {
        const of = (what) => measured(cube).map((each) => each[what]);
        const spread = cube === cubes.at(-1) && of("deviation"); // one shade can be read
        const line = { values: of("mean"), spread, colour: REGION_COLOUR, dash: dashOf(cube) };
        lines.push({ ...line, label: `region ${cube.name}`.trim() });
      }
    const steps = nm.slice(1).map((each, b) => each - nm[b]);
    const usual = [...steps].sort((a, b) => a - b)[steps.length >> 1];
    const name = `Spectra of ${pins.length} pinned pixels${region.length ? " and of the region" : ""}`;
    spectra.replaceChildren(
      chart({ xs: nm.map((each) => each / per), lines, width: widthOf(spectra), name, at: nm[band] / per,
        xLabel: `wavelength (${scene.wavelength_unit})`, yLabel: scene.unit, choose: go,
        cuts: scene.cuts.map((cut) => cut.map((each) => each / per)), gap: (2.5 * usual) / per }),
    ); // prettier-ignore
    const regionKey = `region, mean ± standard deviation${cubes.length > 1 ? ` of ${called(cubes.at(-1))}` : ""}`;
    const entry = (text, stroke, dash, remove) =>
      h("li", {}, s("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" },
        s("path", { d: "M0 4H24", stroke, "stroke-dasharray": dash })), ` ${text}`,
        ...(remove ? [cross(`remove ${text}`, remove)] : [])); // prettier-ignore
    key.replaceChildren(
      ...marks.map(({ pixel, colour, name, remove }) =>
        entry(`${name} (${pixel.join(", ")})`, colour, "", remove)),
      ...(region.length ? [entry(regionKey, REGION_COLOUR, "")] : []),
      ...(cubes.length > 1 ? cubes.map((cube) => entry(cube.name, "currentColor", dashOf(cube))) : []),
    ); // prettier-ignore
    status.textContent = local.said || reading();
  }
  const update = fresh(refresh);
  const watcher = new ResizeObserver(draw);

  /** The values under the pointer, or at the last pin. */
  function reading() {
    const at = here();
    const values = painted.shown
      .filter(({ layer }) => layer)
      .map(({ layer, caption }) => {
        const value = short(layer.values[placeIn(scene, layer, at)]);
        return scene.cubes.length > 1 ? `${caption} ${value}` : value;
      });
    return `row ${at[0]}, column ${at[1]}, ${quantity()}: ${values.join("; ")}`;
  }

  /** Draw the part of a picture that is shown, and the marks on it. */
  function show(canvas, picture, marks) {
    const [r0, c0, r1, c1] = get("extent");
    const size = PICTURE / Math.max(r1 - r0, c1 - c0);
    const [down, across] = [picture.height / scene.rows, picture.width / scene.cols];
    canvas.width = (c1 - c0) * size;
    canvas.height = (r1 - r0) * size;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    const part = [c0 * across, r0 * down, (c1 - c0) * across, (r1 - r0) * down];
    pen.drawImage(picture, ...part, 0, 0, canvas.width, canvas.height);
    const stroke = (colour, path) => {
      for (const [style, width] of [["white", 5], [colour, 2.5]]) {
        pen.strokeStyle = style === "currentColor" ? "black" : style;
        pen.lineWidth = width;
        pen.beginPath();
        path();
        pen.stroke();
      }
    };
    const place = (row, col) => [(col - c0) * size, (row - r0) * size];
    const middle = ([row, col]) => place(row + 0.5, col + 0.5);
    const frame = (colour, [top, left, bottom, right]) =>
      stroke(colour, () =>
        pen.rect(...place(top, left), (right - left) * size, (bottom - top) * size));
    const ruler = (from, to) =>
      stroke("black", () => {
        pen.moveTo(...middle(from));
        pen.lineTo(...middle(to));
      }); // prettier-ignore
    const [region, line] = [get("region"), get("line")];
    if (region.length) frame(REGION_COLOUR, region);
    if (line.length) ruler(line.slice(0, 2), line.slice(2));
    const drag = local.drag ?? (local.from && [local.from, here()]);
    if (drag && local.tool === "profile") ruler(...drag);
    else if (drag) frame(local.tool === "zoom" ? "black" : REGION_COLOUR, rectangle(...drag));
    for (const { pixel, colour } of marks) stroke(colour, () => pen.arc(...middle(pixel), 9, 0, 2 * Math.PI)); // prettier-ignore
  }

  await build();
  model.on("change:content", build);
  for (const name of ["view", "band", "rgb", "pins", "region", "line"]) model.on(`change:${name}`, draw);
  model.on("change:extent", update);
  return () => {
    stop();
    watcher.disconnect();
  };
}

export default { render };
