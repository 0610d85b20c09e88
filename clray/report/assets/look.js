"use strict";
// Shows the clusters that report/look/page.py describes. Every text from the data is set as text, never as HTML.
(() => {
  const look = JSON.parse(document.getElementById("look").textContent);
  const { tiles, clusters, about, versus } = look;
  const byNumber = new Map(clusters.map((cluster) => [cluster.number, cluster]));
  const hasLabels = look.labels.length > 0 && tiles.labels.some((code) => code >= 0);
  const count = (value) => value.toLocaleString("en");
  const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
  const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

  function el(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
      if (key === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
      else if (key === "class") element.className = value;
      else if (key in element && key !== "list") element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  const named = (text) => el("bdi", {}, text);
  const painted = (element, colour) => { element.style.background = colour; return element; };
  const hue = (number) => `hsl(${(number * 137.508) % 360} 62% 52%)`;
  const ofMany = (number, many) => (many <= Chart.COLOURS.length ? Chart.COLOURS[number % Chart.COLOURS.length] : hue(number));
  const classColour = (code) => (code < 0 ? "#9aa3af" : ofMany(code, look.labels.length));
  const classCode = new Map(look.labels.map((name, code) => [name, code]));

  // Sheets are decoded when the first of their tiles is about to be seen.
  const perSheet = look.sprites.across ** 2, sheets = new Map();
  function sheet(number) {
    if (!sheets.has(number)) {
      const holder = document.getElementById(`sheet-${number}`);
      const bytes = Uint8Array.from(atob(holder.textContent), (letter) => letter.charCodeAt(0));
      holder.remove();
      sheets.set(number, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
    }
    return sheets.get(number);
  }
  const numSheets = document.querySelectorAll('script[id^="sheet-"]').length;
  function dress(element, tile) {
    const number = Math.floor(tile / perSheet), place = tile % perSheet, across = look.sprites.across;
    if (number >= numSheets) { element.classList.add("blank"); element.textContent = tiles.names[tile]; return element; }
    const rows = Math.min(across, Math.ceil((tiles.names.length - number * perSheet) / across));
    element.style.backgroundImage = `url(${sheet(number)})`;
    element.style.backgroundSize = `${100 * across}% ${100 * rows}%`;
    element.style.backgroundPosition = `${(100 * (place % across)) / (across - 1)}% ${rows > 1 ? (100 * Math.floor(place / across)) / (rows - 1) : 0}%`;
    if (look.sprites.side <= 32) element.classList.add("crisp");
    return element;
  }
  const labelOf = (tile) => (tiles.labels[tile] >= 0 ? look.labels[tiles.labels[tile]] : null);
  function told(tile) {
    const lines = [tiles.names[tile]];
    if (labelOf(tile) !== null) lines.push(labelOf(tile));
    lines.push(`cluster ${tiles.clusters[tile]}`);
    if (tiles.doubt[tile] !== null) lines.push(`doubt ${percent(tiles.doubt[tile])}`);
    return lines;
  }

  function head() {
    const root = document.documentElement;
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
    const theme = el("button", { type: "button", on: { click: () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); drawMap(); } } });
    const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `${theme.textContent} colours`); };
    name();
    const few = about.shown < about.clusters ? ` The ${count(about.shown)} largest are shown.` : "";
    const part = about.embedded < about.images ? ` ${count(about.embedded)} of them were embedded for this page.` : "";
    const lead = `${plural(about.clusters, "cluster")} (${about.source}) of ${plural(about.images, "training image")} after ${plural(about.epoch, "epoch")}.${few}${part}`;
    const figures = [["clusters", count(about.clusters)], ["images", count(about.images)]];
    if (about.statistics) {
      const bits = (value) => `${value.toFixed(2)} bits`;
      figures.push(["purity", percent(about.statistics.purity, 1)], ["I(Z;T)", bits(about.statistics.mutual_information_bits)],
        ["H(Z|T)", bits(about.statistics.conditional_entropy_bits)], ["AMI", about.statistics.ami.toFixed(2)]);
    } else figures.push(["largest", plural(about.largest, "image")], ["labels", "none"]);
    return [
      el("div", { class: "top" }, el("div", {}, el("h1", {}, "Clusters of ", named(about.name)), el("p", { class: "lead" }, lead)), theme),
      el("dl", { class: "figures" }, ...figures.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)))),
    ];
  }

  // The map
  const view = { scale: 1, x: 0, y: 0, mode: hasLabels ? "class" : "cluster", chosen: null, current: -1 };
  let canvas = null;
  const modes = () => [
    ...(hasLabels ? [["class", "class"]] : []), ["cluster", "cluster"], ...(versus ? [["other", `cluster of ${versus.name}`]] : []),
    ["doubt", "doubt"], ...tiles.attributes.map((attribute, number) => [`attribute ${number}`, attribute.name]),
  ];
  function colourOf(tile) {
    if (view.mode === "class") return classColour(tiles.labels[tile]);
    if (view.mode === "cluster") return ofMany(tiles.clusters[tile], about.clusters);
    if (view.mode === "other") return ofMany(tiles.others[tile], versus.clusters);
    if (view.mode === "doubt") return tiles.doubt[tile] === null ? "#9aa3af" : Chart.viridis(tiles.doubt[tile] / 0.6);
    const attribute = tiles.attributes[Number(view.mode.split(" ")[1])];
    return ofMany(attribute.codes[tile], attribute.values.length);
  }
  function keys(list) {
    const dot = (colour, text) => el("li", {}, painted(el("i"), colour), named(text));
    const many = (names, colour) => (names.length <= 20 ? names.map((name, code) => dot(colour(code), name)) : [el("li", {}, `${count(names.length)} values; point at an image to read its own`)]);
    let entries;
    if (view.mode === "class") entries = many(look.labels, classColour);
    else if (view.mode === "doubt") {
      const ramp = el("i", { class: "ramp" });
      ramp.style.background = `linear-gradient(90deg, ${[0, 1, 2, 3, 4, 5, 6].map((i) => Chart.viridis(i / 6)).join(",")})`;
      entries = [el("li", {}, "sure ", ramp, " nearer to another cluster")];
    } else if (view.mode === "cluster") entries = about.clusters <= 20 ? clusters.map((each) => dot(ofMany(each.number, about.clusters), String(each.number))) : [el("li", {}, `${count(about.clusters)} clusters; point at an image to read its own`)];
    else if (view.mode === "other") entries = [el("li", {}, `${count(versus.clusters)} clusters of ${versus.name}`)];
    else { const { values } = tiles.attributes[Number(view.mode.split(" ")[1])]; entries = many(values, (code) => ofMany(code, values.length)); }
    list.replaceChildren(...entries);
  }
  function place(i) {
    const box = canvas.getBoundingClientRect(), room = 16, width = box.width - 2 * room, height = box.height - 2 * room;
    return [room + width * (0.5 + view.scale * (look.map.x[i] - 0.5 - view.x)), room + height * (0.5 - view.scale * (look.map.y[i] - 0.5 - view.y))];
  }
  function drawMap() {
    if (!canvas || !canvas.clientWidth) return;
    const ratio = devicePixelRatio || 1, brush = canvas.getContext("2d");
    canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    const radius = (look.map.tiles.length > 1500 ? 2.6 : 3.6) * Math.min(2, Math.sqrt(view.scale));
    const isOn = (tile) => view.chosen === null || tiles.clusters[tile] === view.chosen;
    for (const isTop of view.chosen === null ? [true] : [false, true]) look.map.tiles.forEach((tile, i) => {
      if (isOn(tile) !== isTop) return;
      const [x, y] = place(i);
      brush.globalAlpha = isTop ? 0.85 : 0.1;
      brush.fillStyle = colourOf(tile);
      brush.beginPath(); brush.arc(x, y, isTop && view.chosen !== null ? radius * 1.4 : radius, 0, 7); brush.fill();
    });
    brush.globalAlpha = 1;
    if (view.current >= 0) {
      const [x, y] = place(view.current);
      brush.lineWidth = 2; brush.strokeStyle = getComputedStyle(document.body).color;
      brush.beginPath(); brush.arc(x, y, radius + 4, 0, 7); brush.stroke();
    }
  }
  function pointAt(i, isSpoken = false) {
    view.current = i;
    view.isByKey = isSpoken;
    drawMap();
    if (i < 0) { Chart.hideTip(); return; }
    const box = canvas.getBoundingClientRect(), [x, y] = place(i), tile = look.map.tiles[i];
    Chart.showTip(told(tile), box.left + x, box.top + y, dress(el("div", { class: "tile still" }), tile));
    if (isSpoken) spoken.textContent = told(tile).join(", ");
  }
  function nearestTo(x, y, reach) {
    let best = -1, least = reach ** 2;
    look.map.tiles.forEach((_, i) => { const [px, py] = place(i), away = (px - x) ** 2 + (py - y) ** 2; if (away < least) { least = away; best = i; } });
    return best;
  }
  function towards(key) {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (view.current < 0) return nearestTo(canvas.clientWidth / 2, canvas.clientHeight / 2, 1e6);
    const [x, y] = place(view.current);
    let best = view.current, least = Infinity;
    look.map.tiles.forEach((_, i) => {
      const [px, py] = place(i), along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 1 && along + 2 * aside < least) { least = along + 2 * aside; best = i; }
    });
    return best;
  }
  function zoom(factor) {
    view.scale = Math.min(40, Math.max(1, view.scale * factor));
    if (view.scale === 1) { view.x = 0; view.y = 0; }
    pointAt(-1);
  }
  const spoken = el("div", { class: "unseen", role: "status" });
  function mapPanel() {
    canvas = el("canvas", { tabIndex: 0, role: "application", "aria-label": `Map of ${plural(look.map.tiles.length, "image")} by ${look.map.method}. Arrow keys go from image to image, Enter opens one, plus and minus zoom.` });
    const legend = el("ul", { class: "keys" });
    const choose = el("select", { id: "colour-by", on: { change: () => { view.mode = choose.value; keys(legend); drawMap(); } } }, ...modes().map(([value, text]) => el("option", { value }, text)));
    const button = (text, title, act) => el("button", { type: "button", "aria-label": title, title, on: { click: act } }, text);
    let drag = null;
    const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("pointerdown", (event) => { drag = { at: at(event), x: view.x, y: view.y, moved: false }; });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (drag && view.scale > 1 && Math.hypot(x - drag.at[0], y - drag.at[1]) > 4) {
        drag.moved = true;
        view.x = drag.x - (x - drag.at[0]) / (view.scale * canvas.clientWidth); view.y = drag.y + (y - drag.at[1]) / (view.scale * canvas.clientHeight);
        pointAt(-1);
      } else if (!drag && (event.movementX || event.movementY)) pointAt(nearestTo(x, y, 14)); // not where the page moves below it
    });
    canvas.addEventListener("pointerup", (event) => {
      const wasMoved = drag && drag.moved;
      drag = null;
      const i = nearestTo(...at(event), 14);
      if (!wasMoved && i >= 0) { pointAt(-1); open(look.map.tiles[i], look.map.tiles, canvas); }
    });
    canvas.addEventListener("pointerleave", () => { drag = null; if (!view.isByKey) pointAt(-1); });
    canvas.addEventListener("blur", () => pointAt(-1));
    canvas.addEventListener("wheel", (event) => { if (event.ctrlKey || event.metaKey) { event.preventDefault(); zoom(event.deltaY < 0 ? 1.25 : 0.8); } }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.key.startsWith("Arrow")) { event.preventDefault(); pointAt(towards(event.key), true); }
      else if (event.key === "Enter" && view.current >= 0) { event.preventDefault(); const tile = look.map.tiles[view.current]; Chart.hideTip(); open(tile, look.map.tiles, canvas); }
      else if (event.key === "+" || event.key === "=") zoom(1.5);
      else if (event.key === "-") zoom(1 / 1.5);
      else if (event.key === "Escape") { choosePart(null); pointAt(-1); }
    });
    new ResizeObserver(drawMap).observe(canvas);
    keys(legend);
    return el("section", { class: "panel", "aria-labelledby": "map-title" },
      el("h2", { id: "map-title" }, "Map of the embedding"),
      el("div", { class: "bar-of-tools" }, el("label", { htmlFor: "colour-by" }, "colour by", choose), el("output", { id: "part" })),
      el("div", { class: "map" }, canvas, el("div", { class: "zoom" }, button("+", "Zoom in", () => zoom(1.5)), button("−", "Zoom out", () => zoom(1 / 1.5)), button("⤢", "Show all", () => { choosePart(null); zoom(0); }))),
      legend, el("p", { class: "note" }, `${plural(look.map.tiles.length, "image")} by ${look.map.method}. Point at one to see it.`), spoken);
  }
  function choosePart(number) {
    view.chosen = number;
    document.getElementById("part").textContent = number === null ? "" : `cluster ${number} stands out`;
    for (const card of document.querySelectorAll(".card")) card.classList.toggle("chosen", card.id === `cluster-${number}`);
    drawMap();
  }

  // Over training
  function historyPanel() {
    const panel = el("section", { class: "panel", "aria-labelledby": "history-title" }, el("h2", { id: "history-title" }, "Over training"));
    const grid = el("div", { class: "charts" });
    panel.append(grid);
    const put = (charts, title) => {
      for (const chart of charts) {
        const holder = el("div");
        grid.append(el("div", {}, el("h3", {}, title ? `${chart.title} (${title})` : chart.title), holder));
        Chart.put(holder, chart);
      }
    };
    put(look.history, versus ? about.name : "");
    if (versus) put(versus.history, versus.name);
    if (look.changes) {
      const { earlier, later, moved, counts } = look.changes;
      const meanings = { kept: "kept their number", renamed: "kept together under another", split: "split", merged: "merged into a larger one", dissolved: "dissolved" };
      panel.append(el("h3", {}, `From ${earlier} to ${later}`), el("p", { class: "note" }, `${percent(moved, 1)} of the images changed cluster.`),
        el("ul", { class: "kinds" }, ...Object.entries(meanings).map(([kind, text]) => el("li", {}, el("b", {}, count(counts[kind])), ` ${text}`))));
      const changed = look.changes.clusters.filter((each) => each.kind !== "kept").slice(0, 60);
      if (changed.length) {
        const rows = changed.map((each) => el("tr", {}, el("td", {}, String(each.number)), el("td", {}, count(each.size)), el("td", {}, each.kind), el("td", {}, each.parts.map(([to, share]) => `${to}: ${percent(share)}`).join(", ") || "many small parts")));
        panel.append(el("details", {}, el("summary", {}, "Which, and where their images went"), el("div", { class: "wide" },
          el("table", {}, el("thead", {}, el("tr", {}, ...["cluster", "images", "became", "now in"].map((text) => el("th", {}, text)))), el("tbody", {}, ...rows)))));
      }
    }
    return look.history.length || look.changes ? panel : null;
  }

  // One image
  let dialog = null, series = [], origin = null;
  function open(tile, among, from) {
    if (!dialog) {
      dialog = el("dialog", { "aria-label": "Image" });
      dialog.addEventListener("keydown", (event) => { const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]; if (step && series.length > 1) { event.preventDefault(); turn(step); } });
      dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
      dialog.addEventListener("close", () => { if (origin) origin.focus({ preventScroll: true }); });
      document.body.append(dialog);
    }
    series = among; origin = from;
    fill(tile);
    if (!dialog.open) dialog.showModal();
  }
  function turn(step) { fill(series[(series.indexOf(shownTile) + step + series.length) % series.length]); }
  let shownTile = -1;
  function fill(tile) {
    shownTile = tile;
    const number = tiles.clusters[tile], rows = [["cluster", String(number)]];
    if (labelOf(tile) !== null) rows.unshift(["class", labelOf(tile)]);
    if (versus) rows.push([`cluster of ${versus.name}`, String(tiles.others[tile])]);
    if (tiles.doubt[tile] !== null) rows.push(["doubt", `${percent(tiles.doubt[tile])}${tiles.doubt[tile] > 0.5 ? ", nearer to another cluster" : ""}`]);
    for (const attribute of tiles.attributes) if (attribute.codes[tile] >= 0) rows.push([attribute.name, attribute.values[attribute.codes[tile]]]);
    const button = (text, act) => el("button", { type: "button", on: { click: act } }, text);
    const find = button("Show its cluster", () => { origin = null; dialog.close(); goTo(number); });
    find.hidden = !byNumber.has(number);
    dialog.replaceChildren(
      el("div", { class: "shown" }, dress(el("div", { class: "tile still", role: "img", "aria-label": told(tile).join(", ") }), tile),
        el("div", {}, el("h2", {}, named(tiles.names[tile])), el("dl", {}, ...rows.flatMap(([term, value]) => [el("dt", {}, named(term)), el("dd", {}, named(value))])))),
      el("div", { class: "does" }, find, el("span", { class: "grow" }), ...(series.length > 1 ? [button("Previous", () => turn(-1)), button("Next", () => turn(1))] : []), button("Close", () => dialog.close())));
  }

  // The clusters
  function strip(title, among) {
    const images = among.map((tile, i) => {
      const image = dress(el("button", { type: "button", class: "tile", tabIndex: i ? -1 : 0, title: told(tile).join("\n"), "aria-label": told(tile).join(", ") }), tile);
      image.addEventListener("click", () => open(tile, among, image));
      return image;
    });
    const row = el("div", { class: "strip", role: "group", "aria-label": title.textContent || title }, typeof title === "string" ? el("span", {}, title) : title, ...images);
    row.addEventListener("keydown", (event) => {
      const to = images[images.indexOf(document.activeElement) + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] || NaN)];
      if (to) { event.preventDefault(); for (const image of images) image.tabIndex = -1; to.tabIndex = 0; to.focus(); }
    });
    return row;
  }
  function build(card, cluster) {
    const shares = el("div", { class: "shares", "aria-hidden": "true" }), said = el("div", { class: "said" });
    for (const [name, share] of cluster.main) {
      const part = painted(el("i"), classColour(classCode.get(name) ?? -1));
      part.style.width = `${100 * share}%`;
      shares.append(part);
      said.append(el("span", {}, painted(el("i"), classColour(classCode.get(name) ?? -1)), named(name), " ", el("b", {}, percent(share))));
    }
    if (cluster.doubt !== null) said.append(el("span", { title: "mean of: distance to the own centroid over that and the distance to the nearest other; 50 % is the border" }, "doubt ", el("b", {}, percent(cluster.doubt))));
    card.append(...(cluster.main.length ? [shares] : []), said);
    if (cluster.enriched.length) card.append(el("ul", { class: "chips", "aria-label": "attributes that are typical of the cluster" }, ...cluster.enriched.map(([name, support, share, lift]) => el("li", { title: `${plural(support, "image")}, ${percent(share)} of the cluster, ${lift.toFixed(1)} times as frequent as in all images` }, named(name), ` ×${lift.toFixed(1)} (${count(support)})`))));
    card.append(strip("nearest to the centroid", cluster.central), strip("at random", cluster.random), strip("farthest", cluster.far));
    if (cluster.nearest.length) card.append(el("div", { class: "near" }, "next to ", ...cluster.nearest.map(([number]) => {
      const main = byNumber.get(number)?.main[0];
      return el("a", { href: `#cluster-${number}`, on: { click: (event) => { event.preventDefault(); goTo(number); } } }, `${number}`, ...(main ? [" (", named(main[0]), ")"] : []));
    })));
    if (versus) card.append(el("div", { class: "versus" }, el("h4", {}, "where these images are in ", named(versus.name)), ...(versus.parts[cluster.number] || []).map(([to, share]) => {
      const title = el("span", {}, el("b", {}, percent(share)), ` in ${to}`);
      return strip(title, versus.tiles[to] || []);
    })));
  }
  const orders = {
    "largest first": (a, b) => b.size - a.size, "smallest first": (a, b) => a.size - b.size,
    ...(hasLabels ? { "purest first": (a, b) => b.purity - a.purity, "least pure first": (a, b) => a.purity - b.purity } : {}),
    "most doubtful first": (a, b) => (b.doubt ?? -1) - (a.doubt ?? -1), "surest first": (a, b) => (a.doubt ?? 2) - (b.doubt ?? 2),
    "by number": (a, b) => a.number - b.number,
  };
  function clustersPanel() {
    const cards = el("div", { class: "cards" }), found = el("output", { "aria-live": "polite" });
    const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
      if (!entry.isIntersecting) return;
      watcher.unobserve(entry.target);
      build(entry.target, byNumber.get(Number(entry.target.dataset.number)));
    }), { rootMargin: "800px" });
    const made = new Map(clusters.map((cluster) => {
      const main = cluster.main[0];
      const card = el("article", { class: "card", id: `cluster-${cluster.number}`, "aria-labelledby": `name-${cluster.number}` },
        el("header", {}, el("h3", { id: `name-${cluster.number}`, tabIndex: -1 }, `Cluster ${cluster.number} `, el("small", {}, plural(cluster.size, "image"), ...(main ? [", mostly ", named(main[0])] : []))),
          el("button", { type: "button", "aria-label": `Show cluster ${cluster.number} on the map`, on: { click: () => { choosePart(view.chosen === cluster.number ? null : cluster.number); canvas.scrollIntoView({ block: "center" }); } } }, "on the map")));
      card.dataset.number = cluster.number;
      watcher.observe(card);
      return [cluster.number, card];
    }));
    const search = el("input", { type: "search", id: "search", placeholder: hasLabels ? "a class, an attribute or a number" : "an attribute or a number", autocomplete: "off" });
    const order = el("select", { id: "order" }, ...Object.keys(orders).map((name) => el("option", {}, name)));
    function arrange() {
      const wanted = search.value.trim().toLowerCase();
      const share = (cluster) => {
        if (!wanted) return 1;
        if (/^#?\d+$/.test(wanted) && cluster.number === Number(wanted.replace("#", ""))) return 2;
        const parts = [...cluster.main.map(([name, part]) => [name, part]), ...cluster.enriched.map(([name, , part]) => [name, part])];
        return Math.max(0, ...parts.filter(([name]) => name.toLowerCase().includes(wanted)).map(([, part]) => part));
      };
      const rated = clusters.map((cluster) => [cluster, share(cluster)]).filter(([, part]) => part > 0);
      rated.sort(([a, x], [b, y]) => (wanted && order.selectedIndex === 0 ? y - x : 0) || orders[order.value](a, b));
      cards.replaceChildren(...rated.map(([cluster]) => made.get(cluster.number)));
      found.textContent = wanted ? `${count(rated.length)} of ${count(clusters.length)} clusters` : plural(clusters.length, "cluster");
    }
    search.addEventListener("input", arrange);
    order.addEventListener("change", arrange);
    goTo = (number) => {
      if (!made.has(number)) return;
      if (!made.get(number).isConnected) { search.value = ""; arrange(); }
      const card = made.get(number);
      history.replaceState(null, "", `#cluster-${number}`);
      choosePart(number);
      card.scrollIntoView({ block: "start" });
      card.querySelector("h3").focus({ preventScroll: true });
    };
    arrange();
    return el("section", { "aria-labelledby": "clusters-title" },
      el("div", { class: "sticky" }, el("h2", { id: "clusters-title" }, "Clusters"),
        el("div", { class: "bar-of-tools" }, el("label", { class: "grow", htmlFor: "search" }, el("span", {}, "find"), search), el("label", { htmlFor: "order" }, "sort", order), found)),
      cards);
  }
  let goTo = () => {};

  function versusPanel() {
    if (!versus) return null;
    return el("section", { class: "panel" }, el("h2", {}, "Side by side with ", named(versus.name)),
      el("p", { class: "note" }, `The same images in ${plural(about.clusters, "cluster")} (${about.source}) and in ${plural(versus.clusters, "cluster")} (${versus.source}) of the other run: ARI ${versus.ari.toFixed(2)}, AMI ${versus.ami.toFixed(2)} (1 for the same clusters, 0 for chance). Each cluster below says where its images are there.`));
  }

  const overview = [mapPanel(), historyPanel()].filter(Boolean);
  const main = el("main", {}, ...head(), versusPanel(), ...(versus ? overview : [el("div", { class: "duo" }, ...overview)]), clustersPanel());
  document.getElementById("page").replaceChildren(main);
  const named_in_address = /^#cluster-(\d+)$/.exec(location.hash);
  if (named_in_address) requestAnimationFrame(() => goTo(Number(named_in_address[1])));
})();
