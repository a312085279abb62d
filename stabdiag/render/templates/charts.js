// Charts: drawn by plotly when they come near the view, in the colours of the page's theme.
"use strict";
const data = JSON.parse(byId("data").textContent);
const style = getComputedStyle(document.documentElement);
const colour = name => style.getPropertyValue(name).trim();
const escaped = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
// Base85, with a comma for "<": five letters are four bytes, the last ones padded.
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";
function bytesOf85(text) {
  const value = new Uint8Array(128), length = Math.floor(text.length * 4 / 5);
  for (let i = 0; i < 85; i++) value[DIGITS.charCodeAt(i)] = i;
  const padded = text + "~".repeat(-text.length % 5 + 5), view = new DataView(new ArrayBuffer(length + 8));
  for (let at = 0, to = 0; at < text.length; at += 5, to += 4) {
    let number = 0;
    for (let i = at; i < at + 5; i++) number = number * 85 + value[padded.charCodeAt(i)];
    view.setUint32(to, number);
  }
  return new Uint8Array(view.buffer, 0, length);
}
const inflated = text =>
  new Response(new Blob([bytesOf85(text)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
const unpacked = array => {
  const buffer = bytesOf(array.bdata).buffer;
  return array.dtype === "i4" ? new Int32Array(buffer) : new Float32Array(buffer);
};

let loading;
function plotly() {
  loading ??= (async () => {
    const packed = byId("plotly");
    if (packed) {
      const script = document.createElement("script");
      script.textContent = new TextDecoder().decode(await inflated(packed.textContent));
      document.head.append(script);
    } else if (document.readyState === "loading") {
      await new Promise(done => addEventListener("DOMContentLoaded", done));
    }
    return window.Plotly;
  })();
  return loading;
}

// A specification names its colours by the page's variables, `--series-0`.
function themed(part) {
  if (typeof part === "string") return part.startsWith("--") ? colour(part) : part;
  if (Array.isArray(part)) return part.map(themed);
  if (part === null || typeof part !== "object" || ArrayBuffer.isView(part)) return part;
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, themed(value)]));
}

function laidOut(layout) {
  const axis = { gridcolor: "--rule", linecolor: "--rule", zeroline: false, automargin: true, tickformat: "~g" };
  const own = Object.fromEntries(Object.entries(layout).filter(([key]) => /^[xy]axis/.test(key)));
  for (const key in own) own[key] = { ...axis, ...own[key] };
  own.xaxis.tickformat = ",";
  return {
    font: { family: "system-ui, sans-serif", size: 12, color: "--muted" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, hovermode: "x unified",
    hoverlabel: { bgcolor: "--card", bordercolor: "--rule", font: { color: "--ink", size: 12 } },
    margin: { l: 56, r: 12, t: 10, b: 40 }, legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    ...layout, ...own,
  };
}

const drawn = new Map();  // figure -> what makes its specification
async function draw(figure, specify) {
  const library = await plotly();
  let inner = figure.querySelector(".inner");
  if (!inner) {
    inner = document.createElement("div");
    inner.className = "inner";
    figure.append(inner);
  }
  drawn.set(figure, specify);
  const spec = specify();
  figure.classList.add("drawn");
  await library.react(inner, themed(spec.data), themed(laidOut(spec.layout)), { displayModeBar: false, responsive: true });
  return inner;
}

const near = new IntersectionObserver(entries => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    const series = target.dataset.map;
    if (target.id === "heat") drawHeat();
    else if (series) drawMap(target, mapOf(series));
    else draw(target, () => data.charts[target.dataset.chart]);
  }
}, { rootMargin: "500px" });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((specify, figure) => draw(figure, specify)));
document.querySelectorAll(".plot[data-chart], .plot[data-map]").forEach(figure => near.observe(figure));

const short = value => value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toPrecision(4);
const shorter = (name, most) => name.length > most ? "…" + name.slice(1 - most) : name;
// [name, slug of its layer] of each site; kinds with the same sites share them.
const rowsOf = map => data.heat.rows[data.heat.kinds[map.series.split(".")[0]]];
let cells, unpacking;

// Cells are one byte each: 0 not measured, 255 not finite, else the index of a value.
function heatSpec(map, small) {
  const rows = rowsOf(map);
  const values = unpacked(map.values), steps = unpacked(map.steps), width = map.columns;
  const levels = rows.map((_, i) => Array.from(cells.subarray(map.start + i * width, map.start + (i + 1) * width)));
  const names = rows.map(([name]) => escaped(name));
  const told = (level, row, column) =>
    level === 0 ? "" : `${names[row]}<br>step ${steps[column]}: ${level === 255 ? "not finite" : short(values[level]) + " " + escaped(map.unit)}`;
  const text = levels.map((line, row) => line.map((level, column) => told(level, row, column)));
  const measured = [...values.keys()].filter(level => !isNaN(values[level]));
  const nearest = level => measured.reduce((a, b) => Math.abs(b - level) < Math.abs(a - level) ? b : a, measured[0]);
  const ticks = [1, 64, 127, 191, 254].filter(level => Math.abs(nearest(level) - level) < 20).map(nearest);
  const narrow = innerWidth < 700;
  const height = Math.min(Math.max(rows.length * (small ? 9 : 13), small ? 120 : 160), small ? 320 : 900);
  const every = Math.ceil(rows.length * 12 / height);
  const labelled = rows.map((_, i) => i).filter(i => i % every === 0);
  const trace = { type: "heatmap", x: [...steps, data.heat.end], text, hovertemplate: "%{text}<extra></extra>", hoverongaps: false };
  return {
    data: [
      { ...trace, z: levels.map(line => line.map(level => level % 255 || null)), zmin: 1, zmax: 254,
        colorscale: [0, 1, 2, 3, 4, 5].map(i => [i / 5, `--heat-${i}`]), showscale: !narrow,
        colorbar: { tickvals: ticks, ticktext: ticks.map(level => short(values[level])), thickness: 10, outlinewidth: 0,
          title: { text: small ? "" : escaped(map.unit), side: "right" } } },
      { ...trace, z: levels.map(line => line.map(level => level === 255 ? 1 : null)), showscale: false,
        colorscale: [[0, "--broken"], [1, "--broken"]] },
    ],
    layout: {
      height: height + 70, hovermode: "closest", margin: { l: 40, r: 8, t: 10, b: 40 },
      xaxis: { title: { text: "step" }, showgrid: false },
      yaxis: { autorange: "reversed", showgrid: false, ticks: "", tickvals: labelled, tickfont: { size: 10 },
        ticktext: labelled.map(i => escaped(shorter(rows[i][0], narrow ? 12 : 32))) },
      shapes: data.heat.onsets.map(step => ({ type: "line", x0: step, x1: step, y0: 0, y1: 1, yref: "y domain",
        line: { color: "--ink", width: 1, dash: "dot" } })),
    },
  };
}

// One promise, so that figures that come near together wait for the same cells.
function unpackCells() {
  unpacking ??= (async () => {
    cells = new Uint8Array(await inflated(byId("cells").textContent));
    let start = 0;
    for (const map of data.heat.maps) {
      map.start = start;
      start += map.columns * rowsOf(map).length;
    }
  })();
  return unpacking;
}

const mapOf = series => data.heat.maps.find(map => map.series === series);
const drawHeat = () => drawMap(byId("heat"), mapOf(byId("heat-series").value));

async function drawMap(figure, map) {
  await unpackCells();
  const inner = await draw(figure, () => heatSpec(map, figure.id !== "heat"));
  inner.dataset.series = map.series;
  inner.removeAllListeners("plotly_click");
  inner.on("plotly_click", ({ points }) => {
    const slug = rowsOf(map)[points[0].y][1];
    if (slug) go("layer-" + slug);
  });
}

const chooser = byId("heat-series");
if (chooser) {
  for (const series of data.heat.selectable) {
    const kind = series.split(".")[0];
    let group = chooser.querySelector(`optgroup[label="${kind}"]`);
    if (!group) {
      group = document.createElement("optgroup");
      group.label = kind;
      chooser.append(group);
    }
    group.append(new Option(series, series, false, series === data.heat.first));
  }
  chooser.addEventListener("change", drawHeat);
  near.observe(byId("heat"));
}

// What an opened layer measured: a course of each of its series, from the cells of the heat maps.
function spark(levels) {
  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const finite = levels.filter(level => level % 255), low = Math.min(...finite), high = Math.max(...finite);
  const x = i => levels.length > 1 ? Math.round(i * 200 / (levels.length - 1)) : 100;
  const y = level => high > low ? Math.round(38 - (level - low) * 36 / (high - low)) : 20;
  let line = "", broken = "", lifted = true;
  levels.forEach((level, i) => {
    if (level % 255) line += `${lifted ? "M" : "L"}${x(i)} ${y(level)}${lifted ? "h1" : ""}`;
    if (level === 255) broken += `M${x(i)} 40v-16`;
    lifted = !(level % 255);
  });
  const drawn = svg("svg", { class: "spark", viewBox: "0 0 200 40", preserveAspectRatio: "none" });
  drawn.append(svg("path", { d: line }), svg("path", { class: "broken", d: broken }));
  return drawn;
}

function span(text, name) {
  const element = document.createElement("span");
  element.textContent = text;
  element.className = name;
  return element;
}

async function showCourses(target) {
  if (target.querySelector(".courses")) return;
  const slug = target.id.slice("layer-".length), courses = document.createElement("div");
  courses.className = "courses small";
  target.querySelector(".drawer").append(courses);
  await unpackCells();
  for (const map of data.heat.maps) rowsOf(map).forEach(([name, owner], i) => {
    if (owner !== slug) return;
    const row = Array.from(cells.subarray(map.start + i * map.columns, map.start + (i + 1) * map.columns));
    const measured = row.filter(Boolean), values = unpacked(map.values);
    if (!measured.length) return;
    const last = measured.at(-1), own = target.querySelector(".name .site").textContent;
    courses.append(
      span(name === own ? map.series : `${map.series} ${name.startsWith(own) ? name.slice(own.length) : name}`, "site"),
      spark(row),
      span(last === 255 ? "not finite" : short(values[last]), last === 255 ? "bad" : ""));
  });
}
document.querySelectorAll(".layer[open]").forEach(showCourses);
document.addEventListener("toggle", ({ target }) => { if (target.matches(".layer[open]")) showCourses(target); }, true);
