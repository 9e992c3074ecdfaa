"use strict";
// Texts are made by textContent and attributes by setAttribute, never by markup: names, units and classes come from data.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const HISTORY = 8, MANY_CLASSES = 16;
  const RED_BLUE = [[5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [247, 247, 247],
    [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31]];
  const variables = new Map(data.variables.map((each) => [each.name, each]));
  const images = data.variables.filter((each) => each.kind === "image");
  const scalars = data.variables.filter((each) => each.kind !== "image");
  const reached = data.causes.map((cause) => new Set(cause.affected));
  const measures = data.observations.some((each) => each.measured);
  const state = { observation: 0, cause: null, setting: null, over: 0, history: [] };
  const at = (id) => document.getElementById(id);

  function make(name, attributes = {}, ...children) {
    return fill(document.createElement(name), attributes, children);
  }
  function draw(name, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, name), attributes, children);
  }
  function fill(element, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // Numbers and texts

  function number(value, decimals) {
    const size = Math.abs(value);
    if (size >= 1e12 || decimals > 6) return size === 0 ? "0" : value.toPrecision(3).replace("-", "−");
    const options = { minimumFractionDigits: decimals, maximumFractionDigits: decimals, useGrouping: size >= 1e4 };
    const text = value.toLocaleString("en-US", options).replace("-", "−");
    return /[1-9]/.test(text) ? text : text.replace("−", "");
  }
  function plain(variable, value) {
    if (value === null || value === undefined) return "missing";
    if (variable.kind === "class") return variable.classes[Math.round(value)] ?? number(value, 0);
    return number(value, variable.decimals);
  }
  const withUnit = (variable, text) => variable.unit && text !== "missing" ? `${text} ${variable.unit}` : text;
  const full = (variable, value) => withUnit(variable, plain(variable, value));
  function difference(variable, before, after) {
    if (before === null || after === null) return "";
    if (variable.kind === "class") return before === after ? "same" : "changed";
    const text = number(after - before, variable.decimals);
    return /[1-9]/.test(text) ? (text.startsWith("−") ? text : `+${text}`) : "0";
  }

  // The state

  const observed = () => data.observations[state.observation];
  const answered = () => state.cause === null ? null : observed().answers[state.cause][state.setting];
  const setting = () => state.cause === null ? null : data.causes[state.cause].settings[state.setting];
  const value = (name) => answered()?.values[name] ?? observed().values[name];
  const picture = (name) => answered()?.images?.[name] ?? observed().images[name];
  const role = (name) => {
    if (state.cause === null) return "";
    if (data.causes[state.cause].variable === name) return "set";
    return reached[state.cause].has(name) ? "moved" : "still";
  };

  function choose(observation, cause, index) {
    state.observation = observation;
    state.cause = cause;
    state.setting = cause === null ? null : index;
    if (cause !== null) state.over = cause;
    render();
  }
  function remember() {
    const last = { observation: state.observation, cause: state.cause, setting: state.setting };
    const same = (each) => Object.keys(last).every((key) => each[key] === last[key]);
    if (last.cause !== null) state.history = [last, ...state.history.filter((each) => !same(each))].slice(0, HISTORY);
    try { history.replaceState(null, "", link()); } catch { /* some browsers refuse this for files */ }
    renderHistory();
  }
  function link() {
    const parts = new URLSearchParams({ index: observed().row });
    if (state.cause !== null) parts.set("do", setting().text);
    return `#${parts}`;
  }
  function follow() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const notice = at("notice");
    notice.hidden = true;
    if (!parts.has("index")) return;
    const observation = data.observations.findIndex((each) => String(each.row) === parts.get("index"));
    let found = parts.has("do") ? null : [null, null];
    data.causes.forEach((cause, k) => {
      const index = cause.settings.findIndex((each) => each.text === parts.get("do"));
      if (index >= 0) found = [k, index];
    });
    if (observation < 0 || !found) {
      notice.textContent = `The link asks for row ${parts.get("index")}${parts.has("do") ? ` under ${parts.get("do")}` : ""}, ` +
        "which this page does not have; choose another question below.";
      notice.hidden = false;
      return;
    }
    choose(observation, ...found);
    remember();
  }

  // The choice of an observation

  function thumbnails() {
    const name = images[0].name;
    const box = make("div", { class: "thumbs", role: "radiogroup", "aria-labelledby": "observations-title" });
    data.observations.forEach((each, k) => {
      const input = make("input", { type: "radio", name: "observation", class: "visually-hidden", value: k });
      const image = make("img", { alt: "", src: source(each.images[name]) });
      image.style.imageRendering = "pixelated";
      const described = scalars.map((v) => `${v.label} ${full(v, each.values[v.name])}`).join(", ");
      box.append(make("label", { class: "thumb", title: `${each.title}: ${described}` }, input, image, make("span", {}, each.title)));
    });
    return box;
  }
  function rows() {
    const head = make("tr", {}, make("th", { scope: "col" }, "row"), ...scalars.map((v) =>
      make("th", { scope: "col", class: v.kind === "class" ? "text" : null }, v.label, " ", make("small", {}, v.unit))));
    const body = make("tbody");
    data.observations.forEach((each, k) => {
      const input = make("input", { type: "radio", name: "observation", value: k });
      body.append(make("tr", {}, make("td", {}, make("label", {}, input, each.title)), ...scalars.map((v) =>
        make("td", { class: v.kind === "class" ? "text" : null }, plain(v, each.values[v.name])))));
    });
    return make("div", { class: "rows" }, make("table", {}, make("thead", {}, head), body));
  }
  const source = (base64) => `data:image/png;base64,${base64}`;

  // Controls. A slider stops at the values of the grid, and at the observed one, where nothing is set.

  function stops(k) {
    const cause = data.causes[k], own = observed().values[cause.variable];
    const found = cause.settings.map((each, index) => ({ value: each.value, index }));
    if (own === null) return [{ value: null, index: null }, ...found];
    const same = found.find((each) => each.value === own);
    if (same) same.index = null;
    else found.push({ value: own, index: null });
    return found.sort((a, b) => a.value - b.value);
  }
  const verdict = (k, index) => data.verdicts[observed().answers[k][index].verdict];

  const fields = [];
  function buildControls() {
    data.causes.forEach((cause, k) => {
      const variable = variables.get(cause.variable);
      const isClass = variable.kind === "class";
      const output = make("output", { for: `control-${k}` });
      const name = [make("span", {}, make("b", {}, variable.label), " ", make("small", {}, variable.unit)), output];
      const body = make("div");
      const field = isClass && variable.classes.length <= MANY_CLASSES
        ? make("fieldset", {}, make("legend", { class: "name" }, ...name), body)
        : make("fieldset", {}, make("label", { class: "name", for: `control-${k}` }, ...name), body);
      fields.push({ field, body, output, variable, isClass });
      at("fields").append(field);
    });
  }
  function set(k, index) {
    if (index === null) choose(state.observation, null, null);
    else choose(state.observation, k, index);
  }
  function fillControls() {
    fields.forEach(({ body, variable, isClass }, k) => {
      if (!isClass) body.replaceChildren(...slider(k, variable));
      else if (variable.classes.length <= MANY_CLASSES) body.replaceChildren(options(k, variable));
      else body.replaceChildren(menu(k, variable));
    });
  }
  function slider(k, variable) {
    const all = stops(k), last = Math.max(all.length - 1, 1);
    const input = make("input", { type: "range", id: `control-${k}`, min: 0, max: last, step: 1 });
    input.addEventListener("input", () => set(k, all[Math.min(input.valueAsNumber, all.length - 1)].index));
    input.addEventListener("change", remember);
    const ticks = make("div", { class: "ticks", "aria-hidden": "true" });
    all.forEach((each, place) => {
      const mark = make("i", { class: `mark ${each.index === null ? "observed" : verdict(k, each.index)}` });
      mark.style.left = `${100 * place / last}%`;
      ticks.append(mark);
    });
    const known = all.filter((each) => each.value !== null);
    const ends = make("div", { class: "ends", "aria-hidden": "true" },
      ...[known[0], known[known.length - 1]].map((each) => make("span", {}, plain(variable, each.value))));
    return [input, ticks, ends];
  }
  function options(k, variable) {
    const box = make("div", { class: "options" });
    stops(k).forEach((each) => {
      if (each.value === null) return;
      const input = make("input", { type: "radio", name: `control-${k}`, value: each.value });
      input.addEventListener("change", () => { set(k, each.index); remember(); });
      const about = each.index === null ? "observed" : verdict(k, each.index);
      box.append(make("label", { class: `option${each.index === null ? " observed" : ""}`, title: about }, input,
        make("span", {}, each.index === null ? "" : make("i", { class: `mark ${about}` }), plain(variable, each.value))));
    });
    return box;
  }
  function menu(k, variable) {
    const input = make("select", { id: `control-${k}` });
    const all = stops(k);
    all.forEach((each, place) => {
      const about = each.index === null ? "observed" : verdict(k, each.index);
      input.append(make("option", { value: place }, `${plain(variable, each.value)} (${about})`));
    });
    input.addEventListener("change", () => { set(k, all[Number(input.value)].index); remember(); });
    return input;
  }
  function updateControls() {
    fields.forEach(({ field, body, output, variable }, k) => {
      const now = role(variable.name);
      field.className = now === "set" ? "is-set" : now === "moved" ? "is-moved" : "";
      const own = full(variable, observed().values[variable.name]), current = full(variable, value(variable.name));
      const before = plain(variable, observed().values[variable.name]);
      output.textContent = now === "set" || now === "moved" ? `${before} → ${plain(variable, value(variable.name))}` : before;
      output.title = output.textContent;
      const all = stops(k);
      const index = state.cause === k ? state.setting : null;
      const place = all.findIndex((each) => each.index === index);
      const control = body.querySelector("input[type=range], select");
      if (control) {
        control.value = place;
        control.setAttribute("aria-valuetext", index === null ? `${own}, as observed` : `${current}, ${verdict(k, index)}`);
      } else {
        body.querySelectorAll("input").forEach((each) => { each.checked = Number(each.value) === all[place]?.value; });
      }
    });
    at("reset").disabled = state.cause === null;
  }

  // The question and its verdict

  function renderQuestion() {
    at("title").textContent = state.cause === null ? "As observed" : setting().title;
    at("question").classList.toggle("is-answered", state.cause !== null);
    const box = at("verdict");
    if (state.cause === null) { box.replaceChildren("Set a variable to ask what if."); return; }
    const name = data.verdicts[answered().verdict], near = answered().rows;
    const isCaused = data.causes[state.cause].affected.length > 0;
    const about = isCaused ? support(name, near) : "affects no other variable";
    box.replaceChildren(make("i", { class: `mark ${name}` }), make("b", {}, name), make("span", {}, about));
  }

  // With many parents, even training rows have few others near them, so that few can be supported.
  function support(name, near) {
    if (name === "supported" && near < 10) return "as near to training rows as these are to each other";
    const count = near < 1 ? "fewer than 1" : `about ${number(Math.round(near), 0)}`;
    return `${count} of ${number(data.training, 0)} training rows ${near < 1 ? "is" : "are"} near`;
  }

  // Images

  const trios = [];
  function buildPictures() {
    images.forEach((variable) => {
      const [factual, counterfactual] = [0, 1].map(() => make("img", { alt: "" }));
      const change = make("canvas", { role: "img" });
      const captions = ["Factual", "Counterfactual", "Difference"].map((text) => make("figcaption", {}, make("b", {}, text), " ", make("span")));
      const [top, bottom] = [make("span"), make("span")];
      const isColour = variable.channels === 3;
      const ramp = isColour ? ["#000", "#808080", "#fff"] : RED_BLUE.map((rgb) => `rgb(${rgb})`);
      const strip = make("i");
      strip.style.background = `linear-gradient(to top, ${ramp})`;
      const bar = make("div", { class: "bar" }, strip, make("div", {}, top, make("span", {}, "0"), bottom),
        make("small", {}, isColour ? "grey levels, each colour" : "grey levels"));
      const heading = images.length > 1 || variable.volume
        ? [make("h3", {}, variable.label + (variable.volume ? ": axial, coronal and sagittal plane through the middle" : ""))] : [];
      const box = make("div", { class: variable.volume ? "trio wide" : "trio" }, ...heading,
        ...[factual, counterfactual, change].map((each, k) => make("figure", {}, each, captions[k])), bar);
      at("pictures").append(box);
      trios.push({ variable, factual, counterfactual, change, captions, top, bottom });
    });
  }
  const decoded = new Map();
  function pixels(base64) {
    if (!decoded.has(base64)) {
      if (decoded.size > 200) decoded.clear();
      const image = new Image();
      image.src = source(base64);
      decoded.set(base64, image.decode().then(() => {
        const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height);
      }));
    }
    return decoded.get(base64);
  }
  function colour(share) {
    const place = (Math.min(Math.max(share, -1), 1) + 1) / 2 * (RED_BLUE.length - 1);
    const below = Math.min(Math.floor(place), RED_BLUE.length - 2);
    return RED_BLUE[below].map((level, c) => level + (place - below) * (RED_BLUE[below + 1][c] - level));
  }
  async function renderDifference({ variable, change, captions, top, bottom }, before, after) {
    const limit = observed().limits[state.cause ?? state.over][variable.name];
    [top.textContent, bottom.textContent] = [`+${limit}`, `−${limit}`];
    const [first, second] = await Promise.all([pixels(before), pixels(after)]);
    if (picture(variable.name) !== after || observed().images[variable.name] !== before) return;
    change.width = first.width;
    change.height = first.height;
    const context = change.getContext("2d"), result = context.createImageData(first.width, first.height);
    let sum = 0;
    for (let k = 0; k < first.data.length; k += 4) {
      const [r, g, b] = [0, 1, 2].map((c) => second.data[k + c] - first.data[k + c]);
      const shown = variable.channels === 3 ? [r, g, b].map((each) => 127.5 + 127.5 * each / limit) : colour(r / limit);
      result.data.set([...shown, 255], k);
      sum += variable.channels === 3 ? (Math.abs(r) + Math.abs(g) + Math.abs(b)) / 3 : Math.abs(r);
    }
    context.putImageData(result, 0, 0);
    const mean = 4 * sum / first.data.length;
    const about = mean === 0 ? "none" : `${number(mean, mean < 10 ? 1 : 0)} grey levels on average`;
    captions[2].lastChild.textContent = about;
    change.setAttribute("aria-label", `Difference of ${variable.label}: ${about}`);
  }
  function renderPictures() {
    trios.forEach((trio) => {
      const name = trio.variable.name, before = observed().images[name], after = picture(name);
      trio.factual.src = source(before);
      trio.counterfactual.src = source(after);
      trio.factual.alt = `${trio.variable.label} of ${observed().title}, as observed`;
      trio.counterfactual.alt = `${trio.variable.label} under ${state.cause === null ? "no intervention" : setting().title}`;
      trio.captions[0].lastChild.textContent = observed().title;
      trio.captions[1].lastChild.textContent = state.cause === null ? "nothing is set" : "";
      renderDifference(trio, before, after);
    });
  }

  // The graph

  const boxes = new Map(), edges = [];
  function buildGraph() {
    const { width, height, boxes: places, curves } = data.graph;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
    svg.append(draw("title"));
    curves.forEach(([cause, effect, path]) => {
      const line = draw("path", { class: "arrow", d: path });
      const [x, y] = path.match(/-?[\d.]+/g).slice(-2).map(Number);
      const tip = draw("path", { class: "tip", d: `M${x - 4.5} ${y - 9}L${x} ${y}L${x + 4.5} ${y - 9}Z` });
      const cut = draw("path", { class: "scissors", d: `M${x - 5} ${y - 18}l10 10m-10 0l10 -10` });
      svg.append(line, tip, cut);
      edges.push({ cause, effect, line, tip, cut });
    });
    for (const [name, [x, y, w, h]] of Object.entries(places)) {
      const variable = variables.get(name), middle = x + w / 2;
      const label = draw("text", { class: "label", x: middle, y: y + 20, "text-anchor": "middle" });
      const box = draw("g", { class: "box" }, draw("title"), draw("rect", { x, y, width: w, height: h, rx: 8 }), label);
      const parts = { box, label, variable };
      if (variable.kind === "image") {
        const size = 40, top = y + h - size - 8;
        parts.before = draw("image", { x: middle - size - 12, y: top, width: size, height: size });
        parts.after = draw("image", { x: middle + 12, y: top, width: size, height: size });
        box.append(parts.before, parts.after, draw("text", { class: "value", x: middle, y: top + size / 2 + 4, "text-anchor": "middle" }, "→"));
      } else {
        parts.old = draw("tspan");
        parts.fresh = draw("tspan", { class: "new" });
        box.append(draw("text", { class: "value", x: middle, y: y + 38, "text-anchor": "middle" }, parts.old, parts.fresh));
      }
      const k = data.causes.findIndex((cause) => cause.variable === name);
      if (k >= 0) {
        box.classList.add("settable");
        box.addEventListener("click", () => {
          const controls = [...fields[k].body.querySelectorAll("input, select")];
          (controls.find((each) => each.checked) ?? controls[0])?.focus();
        });
      }
      boxes.set(name, parts);
      svg.append(box);
    }
    at("graph").append(svg);
    boxes.forEach(({ label, variable }) => { label.textContent = fitted(variable.label, 600); });
  }
  // Widths are measured on a canvas, because measuring elements between changes makes the browser lay out the page again.
  const ruler = make("canvas").getContext("2d");
  const FAMILY = getComputedStyle(document.documentElement).fontFamily, ROOM = 134;
  function widthOf(text, weight) {
    ruler.font = `${weight} 12.5px ${FAMILY}`;
    return ruler.measureText(text).width;
  }
  function fitted(text, weight, room = ROOM) {
    let length = text.length;
    while (length > 1 && widthOf(length < text.length ? `${text.slice(0, length)}…` : text, weight) > room) length -= 1;
    return length < text.length ? `${text.slice(0, length)}…` : text;
  }
  function renderGraph() {
    const told = [];
    boxes.forEach(({ box, variable, before, after, old, fresh }, name) => {
      const now = role(name);
      box.classList.toggle("set", now === "set");
      box.classList.toggle("moved", now === "moved");
      const isChanged = now === "set" || now === "moved";
      if (variable.kind === "image") {
        before.setAttribute("href", source(observed().images[name]));
        after.setAttribute("href", source(picture(name)));
        box.querySelector("title").textContent = variable.label;
        return;
      }
      const was = observed().values[name], is = value(name);
      const text = isChanged ? `${plain(variable, was)} → ${full(variable, is)}` : full(variable, was);
      box.querySelector("title").textContent = `${variable.label}: ${text}`;
      told.push(`${variable.label} ${text}`);
      old.textContent = isChanged ? `${plain(variable, was)} → ` : "";
      const room = ROOM - widthOf(old.textContent, 400), weight = isChanged ? 650 : 400;
      const isShort = widthOf(full(variable, is), weight) <= room;
      fresh.textContent = fitted(isShort || !isChanged ? full(variable, is) : plain(variable, is), weight, room);
    });
    edges.forEach(({ cause, effect, line, tip, cut }) => {
      const isCut = role(effect) === "set";
      const isActive = !isCut && (role(cause) === "set" || role(cause) === "moved");
      for (const each of [line, tip]) {
        each.classList.toggle("cut", isCut);
        each.classList.toggle("moved", isActive);
      }
      cut.style.display = isCut ? "" : "none";
    });
    const arrows = data.graph.curves.map(([cause, effect]) => `${cause} to ${effect}`).join(", ");
    at("graph").querySelector("svg > title").textContent = `Edges: ${arrows || "none"}. ${told.join("; ")}.`;
  }

  // The table of values

  function renderValues() {
    const isMeasured = measures && observed().measured;
    const heads = ["factual", "counter\u00adfactual", "change"];  // may break into two lines
    const head = make("tr", {}, make("th", { scope: "col" }, "variable"), ...heads.map((text) => make("th", { scope: "col" }, text)),
      ...(isMeasured ? heads.slice(0, 2).map((text) => make("th", { scope: "col" }, text)) : []));
    const over = isMeasured ? [make("tr", {}, make("td", { colspan: 4 }), make("th", { colspan: 2, scope: "colgroup" }, "measured in the image"))] : [];
    const body = make("tbody");
    scalars.forEach((variable) => {
      const name = variable.name, was = observed().values[name], is = value(name), now = role(name);
      const isChanged = now === "set" || now === "moved";
      const row = make("tr", { class: now || "still" },
        make("th", { scope: "row" }, variable.label, " ", make("small", {}, variable.unit)),
        make("td", {}, plain(variable, was)), make("td", { class: "now" }, plain(variable, is)),
        make("td", { class: "change" }, isChanged ? difference(variable, was, is) : "–"));
      if (isMeasured) {
        const seen = observed().measured, after = answered()?.measured ?? seen;
        for (const each of [seen, after]) row.append(make("td", {}, name in each ? plain(variable, each[name]) : ""));
      }
      body.append(row);
    });
    at("values").replaceChildren(make("table", {}, make("thead", {}, ...over, head), body));
  }

  // Curves of effects

  function line(observation, k, name) {
    const cause = data.causes[k];
    const points = cause.settings.map((each, index) => [each.value, observation.answers[k][index].values[name]]);
    const own = [observation.values[cause.variable], observation.values[name]];
    if (own[0] !== null && own[1] !== null && !points.some(([x]) => x === own[0])) points.push(own);
    return points.filter(([, y]) => y !== null).sort((a, b) => a[0] - b[0]);
  }
  function ticks(low, high, count, isWhole) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.8);
    if (isWhole) step = Math.max(1, Math.round(step));
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(k * step);
    return found.length ? found : [low];
  }
  function range(values, variable) {
    const isClass = variable.kind === "class";
    let [low, high] = isClass ? [0, variable.classes.length - 1] : [Math.min(...values), Math.max(...values)];
    const room = isClass ? 0.4 : (high - low || Math.abs(high) || 1) * 0.06;
    return [low - room, high + room];
  }
  const short = (text) => text.length > 11 ? `${text.slice(0, 10)}…` : text;
  function tickText(variable, value, step) {
    if (variable.kind === "class") return short(plain(variable, value));
    return number(value, Math.min(Math.max(0, -Math.floor(Math.log10(step || 1) + 1e-9)), 9));
  }
  function curve(k, name) {
    const x = variables.get(data.causes[k].variable), y = variables.get(name);
    const all = data.observations.map((each) => line(each, k, name));
    const own = all[state.observation];
    const xs = range(all.flat().map(([each]) => each), x), ys = range(all.flat().map(([, each]) => each), y);
    const [width, height, left, right, top, bottom] = [310, 210, 56, 8, 8, 38];
    const toX = (v) => left + (v - xs[0]) / (xs[1] - xs[0]) * (width - left - right);
    const toY = (v) => height - bottom - (v - ys[0]) / (ys[1] - ys[0]) * (height - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, draw("title", {},
      `${y.label} of ${observed().title} over ${x.label}: ${own.map(([a, b]) => `${plain(x, a)}: ${plain(y, b)}`).join("; ")}`));
    const [xTicks, yTicks] = [ticks(...xs, 5, x.kind === "class"), ticks(...ys, 4, y.kind === "class")];
    yTicks.forEach((each) => svg.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: toY(each), y2: toY(each) }),
      draw("text", { x: left - 6, y: toY(each) + 4, "text-anchor": "end" }, tickText(y, each, yTicks[1] - yTicks[0]))));
    xTicks.forEach((each) => svg.append(draw("text", { x: toX(each), y: height - bottom + 15, "text-anchor": "middle" },
      tickText(x, each, xTicks[1] - xTicks[0]))));
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, x.unit ? `${x.label} (${x.unit})` : x.label));
    const path = (points) => `M${points.map(([a, b]) => `${toX(a).toFixed(1)} ${toY(b).toFixed(1)}`).join("L")}`;
    all.forEach((points, each) => {
      if (each !== state.observation && points.length) svg.append(draw("path", { class: "other", d: path(points) }));
    });
    if (state.cause === k) {
      const asked = toX(setting().value);
      svg.append(draw("line", { class: "line", x1: asked, x2: asked, y1: top, y2: height - bottom }));
    }
    if (own.length) svg.append(draw("path", { class: "own", d: path(own) }));
    own.forEach(([a, b]) => svg.append(draw("circle", { class: "dot", cx: toX(a), cy: toY(b), r: 2.6 })));
    const [a, b] = [observed().values[x.name], observed().values[name]];
    if (a !== null && b !== null) svg.append(draw("circle", { class: "factual", cx: toX(a), cy: toY(b), r: 4.5 }));
    if (state.cause === k) svg.append(draw("circle", { class: "asked", cx: toX(setting().value), cy: toY(answered().values[name]), r: 5 }));
    return make("div", {}, make("h3", {}, y.label, y.unit ? ` (${y.unit})` : ""), svg);
  }
  function renderCurves() {
    const cause = data.causes[state.over];
    const names = cause.affected.filter((name) => variables.get(name).kind !== "image");
    at("over").value = state.over;
    at("curves").replaceChildren(...names.map((name) => curve(state.over, name)));
    const title = variables.get(cause.variable).label;
    at("curves-legend").textContent = names.length
      ? `Blue: ${observed().title}; open circle: as observed; faint: the other observations of this page.`
      : `${title} affects ${cause.affected.length ? "only images" : "no other variable"}, so there are no curves over it.`;
  }

  // Programs and history

  function renderPrograms() {
    const row = observed().row, { command, python } = data;
    const first = setting() ?? data.causes[0].settings[0];
    at("programs").hidden = state.cause === null;
    at("command").textContent = `${command.before} ${first.shell} ${command.between} ${row} ${command.after}`;
    at("python").textContent = `${python.before}${row}${python.between}${first.python}${python.after}`;
  }
  function renderHistory() {
    at("nothing").hidden = state.history.length > 0;
    at("asked").replaceChildren(...state.history.map((each) => {
      const { title } = data.causes[each.cause].settings[each.setting], from = data.observations[each.observation];
      const mark = data.verdicts[from.answers[each.cause][each.setting].verdict];
      const button = make("button", { type: "button" }, make("i", { class: `mark ${mark}` }), `${from.title}: ${title}`);
      button.addEventListener("click", () => {
        choose(each.observation, each.cause, each.setting);
        remember();
        at("asked").querySelector("button").focus();
      });
      return make("li", {}, button);
    }));
  }

  // All together

  let filled = -1;
  function render() {
    if (filled !== state.observation) {
      filled = state.observation;
      fillControls();
      document.querySelectorAll("input[name=observation]").forEach((each) => { each.checked = Number(each.value) === filled; });
    }
    updateControls();
    renderQuestion();
    renderPictures();
    renderGraph();
    renderValues();
    renderCurves();
    renderPrograms();
  }
  function build() {
    const count = data.observations.length;
    at("about").textContent = `${data.model.join(", ")} · ${count} observation${count === 1 ? "" : "s"} of the test split`;
    at("chooser").append(images.length ? thumbnails() : rows());
    at("chooser").addEventListener("change", (event) => { choose(Number(event.target.value), state.cause, state.setting); moved(); });
    buildControls();
    buildPictures();
    buildGraph();
    const marks = { supported: "supported by training rows", edge: "edge of the training rows", extrapolated: "extrapolated beyond them" };
    at("legend").append(...data.verdicts.map((name) => make("span", {}, make("i", { class: `mark ${name}` }), ` ${marks[name] ?? name}`)),
      make("span", {}, make("i", { class: "mark observed" }), " as observed"));
    data.causes.forEach((cause, k) => at("over").append(make("option", { value: k }, variables.get(cause.variable).label)));
    at("over").addEventListener("change", () => { state.over = Number(at("over").value); renderCurves(); });
    const most = data.causes.map((cause) => cause.affected.length);
    state.over = most.indexOf(Math.max(...most));
    at("reset").addEventListener("click", () => { choose(state.observation, null, null); remember(); });
    document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
    if (!scalars.some((v) => data.causes.some((c) => c.affected.includes(v.name)))) at("effects").hidden = true;
  }
  async function copy(button) {
    const isLink = button.dataset.copy === "link", before = button.textContent;
    const text = isLink ? location.href.split("#")[0] + link() : at(button.dataset.copy).textContent;
    const area = make("textarea", { class: "visually-hidden" });
    try { await navigator.clipboard.writeText(text); } catch {  // not from a file in some browsers
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1500);
  }
  // Another observation has other stops: a value that it has itself is no intervention.
  function moved() {
    if (state.cause !== null) {
      const own = observed().values[data.causes[state.cause].variable];
      if (own === setting().value) choose(state.observation, null, null);
    }
    remember();
  }
  build();
  render();
  renderHistory();
  follow();
  addEventListener("hashchange", follow);
})();
