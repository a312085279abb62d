// The map of one series at a time, what a cell of it says, and its layer. The page can be read without it.
"use strict";
const maps = JSON.parse(document.getElementById("maps").textContent);
const told = document.getElementById("told");
const figures = [...document.querySelectorAll(".apart")];
const chooser = document.getElementById("map-series");

const show = () => figures.forEach(figure => figure.classList.toggle("shown", figure.dataset.series === chooser.value));
if (chooser) {
  chooser.addEventListener("change", show);
  show();
}

// The cells are the scanlines of the picture itself: a byte each, after one of filter a row.
async function cellsOf(image) {
  const bytes = Uint8Array.from(atob(image.src.split(",")[1]), c => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  let at = 8;
  while (String.fromCharCode(...bytes.subarray(at + 4, at + 8)) !== "IDAT") at += 12 + view.getUint32(at);
  const body = bytes.subarray(at + 8, at + 8 + view.getUint32(at));
  const stream = new Blob([body]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const apart = cell => cell === 0 ? "not measured in both" : cell === 255 ? "one of them is not finite"
  : cell === 128 ? "together"
  : `B ${cell > 128 ? "higher" : "lower"}, ${(Math.abs(cell - 128) / 126 * 4).toFixed(1)} times their noise${[2, 254].includes(cell) ? " or more" : ""}`;

for (const figure of figures) {
  const image = figure.querySelector("img"), map = maps[figure.dataset.series];
  let cells;
  const at = event => {
    const box = image.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / box.height * map.rows.length);
    const column = Math.floor((event.clientX - box.left) / box.width * map.columns);
    return [Math.min(Math.max(row, 0), map.rows.length - 1), Math.min(Math.max(column, 0), map.columns - 1)];
  };
  image.addEventListener("mousemove", async event => {
    const [row, column] = at(event);
    cells ??= cellsOf(image);
    const cell = (await cells)[row * (map.columns + 1) + 1 + column];
    const until = map.steps[column + 1] - 1;
    const steps = until > map.steps[column] ? `steps ${map.steps[column]} to ${until}` : `step ${map.steps[column]}`;
    told.textContent = `${map.rows[row][0] || "the model"}, ${steps}: ${apart(cell)}`;
    image.title = told.textContent;
  });
  image.addEventListener("click", event => {
    const slug = map.rows[at(event)[0]][1];
    if (slug) location.hash = "layer-" + slug;
  });
}

// A layer that somebody wants to see is not left folded away.
function unfold() {
  const layer = document.getElementById(location.hash.slice(1)), fold = layer?.closest("details");
  if (!fold) return;
  fold.open = true;
  layer.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
