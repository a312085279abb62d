// Opening a layer by its anchor, the layers' filter and order, and copying. The page can be read without it.
"use strict";
const byId = id => document.getElementById(id);

function show(id) {
  const target = byId(id);
  if (!target) return;
  document.querySelectorAll(".layer.shown").forEach(other => other.classList.remove("shown"));
  if (target.matches(".layer")) {
    target.hidden = false;
    target.open = true;
    target.classList.add("shown");
  }
  target.scrollIntoView({ block: target.matches(".layer") ? "center" : "start" });
}

// A page inside a frame without an address of its own (a notebook) cannot change its hash.
function go(id) {
  if (location.protocol === "about:" || location.hash === "#" + id) show(id);
  else location.hash = id;
}
document.addEventListener("click", event => {
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  event.preventDefault();
  go(link.getAttribute("href").slice(1));
});
addEventListener("hashchange", () => show(location.hash.slice(1)));
if (location.hash) show(location.hash.slice(1));

const table = byId("layers");
if (table) {
  // Cells as they are shown; unmeasured last, not finite first: what is broken is what one looks for.
  const rank = text => text === "" ? -Infinity : isNaN(text) ? Infinity : Number(text);
  const rows = [...table.querySelectorAll(".layer")].map((row, order) => {
    const [size, output, gradient, update] =
      [...row.querySelectorAll("summary > .measure")].map(cell => rank(cell.textContent.replaceAll(",", "").trim()));
    return { row, order, size, output, gradient, update, text: row.querySelector(".name").textContent.toLowerCase() };
  });
  const filter = () => {
    const wanted = byId("layer-filter").value.trim().toLowerCase();
    const flagged = byId("layer-flagged").checked;
    for (const { row, text } of rows)
      row.hidden = !text.includes(wanted) || (flagged && !("flagged" in row.dataset));
    const left = rows.filter(({ row }) => !row.hidden).length;
    byId("layer-count").textContent = left === rows.length ? `${left} layers` : `${left} of ${rows.length} layers`;
  };
  byId("layer-filter").addEventListener("input", filter);
  byId("layer-flagged").addEventListener("change", filter);
  filter();

  const heads = [...table.querySelectorAll("[data-sort]")];
  for (const head of heads) head.addEventListener("click", () => {
    const key = head.dataset.sort;
    const rising = head.ariaSort ? head.ariaSort !== "ascending" : key === "order";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    rows.sort((a, b) => a[key] === b[key] ? a.order - b.order : (a[key] < b[key]) === rising ? -1 : 1);
    table.append(...rows.map(({ row }) => row));
  });
}

for (const block of document.querySelectorAll("pre.code")) {
  const frame = document.createElement("div");
  frame.className = "copyable";
  block.replaceWith(frame);
  const button = document.createElement("button");
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(block);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  frame.append(block, button);
}
