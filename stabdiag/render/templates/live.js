"use strict";
const EVERY = 2000, SETTLE = 1500; // ms between two looks; ms that the charts of a new page have to be drawn
const state = document.getElementById("state");
let shown = document.querySelector("iframe"), version = Number(document.body.dataset.version), coming = null;

// What the reader did to a page: where it is scrolled to, what is open, chosen and typed.
function kept(page) {
  const all = [...page.document.querySelectorAll("details[id], select[id], input[id]")];
  return { x: page.scrollX, y: page.scrollY,
    parts: all.map(e => [e.id, e.open, e.type === "checkbox" ? e.checked : e.value]) };
}

function restore(page, before) {
  for (const [id, open, value] of before.parts) {
    const e = page.document.getElementById(id);
    if (!e) continue;
    if (e.localName === "details") { e.open = open; continue; }
    const property = e.type === "checkbox" ? "checked" : "value";
    if (e[property] === value) continue;
    e[property] = value;
    e.dispatchEvent(new Event(e.localName === "select" ? "change" : "input", { bubbles: true }));
  }
  page.scrollTo({ left: before.x, top: before.y, behavior: "instant" });
}

// The new page is drawn behind the old one, and takes its place when it is whole: nothing flickers.
function renew(next) {
  coming = document.createElement("iframe");
  coming.className = "coming";
  coming.title = shown.title;
  coming.src = `page?${next}`;
  coming.addEventListener("load", () => {
    restore(coming.contentWindow, kept(shown.contentWindow));
    setTimeout(() => {
      restore(coming.contentWindow, kept(shown.contentWindow));
      coming.classList.remove("coming");
      shown.remove();
      [shown, coming, version] = [coming, null, next];
    }, SETTLE);
  });
  document.body.append(coming);
}

async function look() {
  try {
    const answer = await fetch("version", { cache: "no-store" });
    const now = await answer.json();
    state.textContent = now.state;
    if (now.version !== version && !coming) renew(now.version);
  } catch {
    state.textContent = "stabdiag live has ended: this is how the run was then";
  }
  setTimeout(look, EVERY);
}
look();
