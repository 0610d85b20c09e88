"use strict";
// Shows the images that report/look/neighbours.py found. Every text is set as text, never as HTML.
(() => {
  const found = JSON.parse(document.getElementById("found").textContent), list = document.querySelector(".found");
  const address = (name) => {
    const bytes = Uint8Array.from(atob(document.getElementById(name).textContent), (letter) => letter.charCodeAt(0));
    return `url(${URL.createObjectURL(new Blob([bytes], { type: "image/webp" }))})`;
  };
  const sheets = new Map(), per = found.across ** 2;
  function tile(sheet, place, total) {
    const element = document.createElement("div"), rows = Math.ceil(total / found.across);
    if (!sheets.has(sheet)) sheets.set(sheet, address(sheet));
    element.className = found.side <= 32 ? "tile crisp" : "tile";
    element.style.backgroundImage = sheets.get(sheet);
    element.style.backgroundSize = `${100 * found.across}% ${100 * rows}%`;
    element.style.backgroundPosition = `${(100 * (place % found.across)) / (found.across - 1)}% ${rows > 1 ? (100 * Math.floor(place / found.across)) / (rows - 1) : 0}%`;
    return element;
  }
  function line(tag, text) { const element = document.createElement(tag), inner = document.createElement("bdi"); inner.textContent = text; element.append(inner); return element; }
  list.firstElementChild.append(tile("query", 0, 1), line("b", "the image itself"));
  found.images.forEach((lines, i) => {
    const item = document.createElement("li"), sheet = Math.floor(i / per);
    item.append(tile(`sheet-${sheet}`, i % per, Math.min(per, found.images.length - sheet * per)), ...lines.map((text, n) => line(n ? "div" : "b", text)));
    list.append(item);
  });
})();
