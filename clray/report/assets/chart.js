"use strict";
// Draws the charts that report/charts.py describes, as SVG at the width that there is. Texts are set as text, never as HTML.
const Chart = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = ["#2f6fde", "#e8710a", "#1a936f", "#c2255c", "#7b4fd0", "#8a6d3b", "#0b7fab", "#b08900", "#d6336c",
    "#5c7cfa", "#37b24d", "#868e96"];
  const DASHES = { dash: "8 4", dot: "2 3", dashdot: "8 3 2 3" };
  const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121],
    [110, 206, 88], [181, 222, 43], [253, 231, 37]];
  const SYMBOLS = [
    (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
    (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (r) => `M0 ${-1.25 * r}L${1.15 * r} ${0.85 * r}H${-1.15 * r}z`,
    (r) => `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0z`,
    (r) => `M0 ${1.25 * r}L${1.15 * r} ${-0.85 * r}H${-1.15 * r}z`,
    (r) => `M${-r} ${-r / 3}h${2 * r / 3}v${-2 * r / 3}h${2 * r / 3}v${2 * r / 3}h${2 * r / 3}v${2 * r / 3}h${-2 * r / 3}` +
      `v${2 * r / 3}h${-2 * r / 3}v${-2 * r / 3}h${-2 * r / 3}z`,
  ];
  const make = (name, attributes = {}, text = null) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return element;
  };
  const colour = (number) => (number === null ? "#7d8590" : COLOURS[number % COLOURS.length]);
  const viridis = (share) => {
    const at = Math.min(0.9999, Math.max(0, share)) * (VIRIDIS.length - 1), low = Math.floor(at), rest = at - low;
    return `rgb(${VIRIDIS[low].map((value, i) => Math.round(value + rest * (VIRIDIS[low + 1][i] - value))).join(" ")})`;
  };
  const shown = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4)));
  const steps = (low, high, count) => {
    const rough = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough), found = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + 1e-9 * step; value += step) found.push(+value.toPrecision(12));
    return found;
  };

  let tip = null;
  function hideTip() { if (tip) tip.hidden = true; }
  function showTip(lines, x, y, picture = null) {
    if (!tip) { tip = document.createElement("div"); tip.className = "tip"; tip.setAttribute("role", "status"); document.body.append(tip); }
    tip.replaceChildren();
    if (picture) tip.append(picture);
    lines.forEach((line, i) => { const row = document.createElement(i ? "div" : "b"); row.textContent = line; tip.append(row); });
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 6))}px`;
    tip.style.top = `${y + box.height + 20 > innerHeight ? Math.max(4, y - box.height - 12) : y + 16}px`;
  }

  function extent(spec) {
    const x = [], y = [];
    for (const series of spec.series) for (const [px, py, error] of series.points) {
      x.push(px); y.push(py - (error || 0), py + (error || 0));
    }
    for (const level of spec.levels || []) y.push(level.y - (level.spread || 0), level.y + (level.spread || 0));
    for (const ring of spec.rings || []) { x.push(ring.x); y.push(ring.y); }
    const range = (values) => {
      let low = Infinity, high = -Infinity;
      for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
      return low <= high ? [low, high] : [0, 1];
    };
    let [left, right] = range(spec.logX ? x.map(Math.log10) : x), [bottom, top] = range(y);
    const widen = (low, high, share) => { const room = (high - low || Math.abs(high) || 1) * share; return [low - room, high + room]; };
    [left, right] = widen(left, right, 0.06); [bottom, top] = widen(bottom, top, 0.08);
    return { left, right, bottom, top };
  }

  function draw(holder, spec) {
    const width = Math.max(280, holder.clientWidth), height = Math.min(spec.height || 460, Math.max(320, width * 0.72));
    const room = { left: 58, right: spec.scale ? (width < 520 ? 58 : 92) : 16, top: 14, bottom: 46 };
    const at = extent(spec), inner = { width: width - room.left - room.right, height: height - room.top - room.bottom };
    const px = (x) => room.left + inner.width * (((spec.logX ? Math.log10(x) : x) - at.left) / (at.right - at.left));
    const py = (y) => room.top + inner.height * (1 - (y - at.bottom) / (at.top - at.bottom));
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": `${spec.title}. ${spec.about || ""} Arrow keys go from mark to mark.`, tabindex: 0 });
    axes(svg, spec, at, { width, height, room, inner, px, py });
    for (const level of spec.levels || []) {
      const y = py(level.y), line = { x1: room.left, x2: room.left + inner.width, y1: y, y2: y };
      if (level.spread) svg.append(make("rect", { x: room.left, width: inner.width, y: py(level.y + level.spread), height: Math.max(1, py(level.y - level.spread) - py(level.y + level.spread)), fill: colour(level.color), opacity: 0.1 }));
      svg.append(make("line", { ...line, stroke: colour(level.color), "stroke-width": 1.6, "stroke-dasharray": DASHES[level.dash] || "" }));
    }
    for (const ring of spec.rings || []) {
      svg.append(make("circle", { cx: px(ring.x), cy: py(ring.y), r: 13, fill: "none", stroke: "#8b93a0", "stroke-width": 1.3 }));
      const isRight = px(ring.x) > room.left + inner.width / 2;
      svg.append(make("text", { x: px(ring.x) + (isRight ? -18 : 18), y: py(ring.y) + 4, "text-anchor": isRight ? "end" : "start" }, ring.name));
    }
    const marks = [];
    const group = make("g", { class: "marks" });
    for (const series of spec.series) {
      if (series.line && series.points.length > 1) {
        const path = series.points.map(([x, y], i) => `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
        svg.append(make("path", { d: path, fill: "none", stroke: colour(series.color), "stroke-width": 2, "stroke-linejoin": "round" }));
      }
      for (const [x, y, error, value, lines] of series.points) {
        const fill = value === null || value === undefined || !spec.scale ? colour(series.color) : viridis((value - spec.scale.low) / (spec.scale.high - spec.scale.low));
        if (error) svg.append(make("path", { d: `M${px(x)} ${py(y - error)}V${py(y + error)}`, stroke: fill, "stroke-width": 1.5 }));
        const radius = spec.radius || 6;
        const mark = make("path", { d: SYMBOLS[series.symbol % SYMBOLS.length](radius), transform: `translate(${px(x)} ${py(y)})`, fill: series.open ? "transparent" : fill, stroke: series.open ? fill : series.muted ? "#8b93a0" : "var(--card)", "stroke-width": series.open || series.muted ? 2 : 1 });
        group.append(mark);
        marks.push({ mark, x: px(x), y: py(y), lines });
      }
    }
    svg.append(group);
    listen(svg, marks, width);
    holder.replaceChildren(svg, legend(spec));
  }

  function axes(svg, spec, at, { height, room, inner, px, py }) {
    const right = room.left + inner.width, bottom = room.top + inner.height;
    for (const value of steps(at.bottom, at.top, Math.max(2, inner.height / 56))) {
      svg.append(make("line", { class: "grid", x1: room.left, x2: right, y1: py(value), y2: py(value) }));
      svg.append(make("text", { x: room.left - 8, y: py(value) + 4, "text-anchor": "end" }, shown(value)));
    }
    let ticks = spec.logX ? [...new Set(spec.series.flatMap((series) => series.points.map((point) => point[0])))].sort((a, b) => a - b) : steps(at.left, at.right, Math.max(2, inner.width / 90));
    if (spec.whole) ticks = ticks.filter(Number.isInteger);
    let last = -Infinity;
    for (const value of ticks) {
      const x = px(value);
      svg.append(make("line", { class: "grid", x1: x, x2: x, y1: room.top, y2: bottom }));
      if (x - last < 34) continue;
      svg.append(make("text", { x, y: bottom + 18, "text-anchor": "middle" }, shown(value)));
      last = x;
    }
    svg.append(make("line", { class: "axis", x1: room.left, x2: right, y1: bottom, y2: bottom }));
    svg.append(make("text", { class: "name", x: room.left + inner.width / 2, y: height - 8, "text-anchor": "middle" }, inner.width < 420 && spec.xShort ? spec.xShort : spec.xLabel));
    const label = inner.height < 330 && spec.yShort ? spec.yShort : spec.yLabel;
    svg.append(make("text", { class: "name", x: 0, y: 0, "text-anchor": "middle", transform: `translate(14 ${room.top + inner.height / 2}) rotate(-90)` }, label));
    if (spec.scale) scale(svg, spec.scale, right + 14, room.top, inner.height);
  }

  function scale(svg, { low, high, floor }, x, top, height) {
    const parts = 40, y = (value) => top + height * (1 - (value - low) / (high - low));
    for (let i = 0; i < parts; i += 1) svg.append(make("rect", { x, y: top + height * (1 - (i + 1) / parts), width: 12, height: height / parts + 0.6, fill: viridis((i + 0.5) / parts) }));
    for (const value of steps(low, high, 5)) svg.append(make("text", { x: x + 18, y: y(value) + 4 }, shown(value)));
    if (floor !== null && floor !== undefined) svg.append(make("path", { d: `M${x - 3} ${y(floor)}h18`, stroke: "var(--mark)", "stroke-width": 2.5 }));
  }

  function legend(spec) {
    const list = document.createElement("ul");
    list.className = "legend";
    const entry = (name, ...parts) => {
      const item = document.createElement("li"), icon = make("svg", { viewBox: "-13 -6 26 12", "aria-hidden": "true" });
      icon.append(...parts); item.append(icon, name); list.append(item);
    };
    for (const series of spec.series) {
      if (!series.name) continue;
      const fill = spec.scale ? "#7d8590" : colour(series.color), parts = series.line ? [make("path", { d: "M-12 0H12", stroke: fill, "stroke-width": 2 })] : [];
      entry(series.name, ...parts, make("path", { d: SYMBOLS[series.symbol % SYMBOLS.length](4.4), fill: series.open ? "none" : fill, stroke: fill, "stroke-width": 1.5 }));
    }
    for (const level of spec.levels || []) entry(level.name, make("path", { d: "M-12 0H12", stroke: colour(level.color), "stroke-width": 2, "stroke-dasharray": DASHES[level.dash] || "" }));
    if (spec.scale) {
      entry(`colour: ${spec.scale.label}`, ...[0, 1, 2, 3].map((i) => make("rect", { x: -12 + 6 * i, y: -5, width: 6, height: 10, fill: viridis((i + 0.5) / 4) })));
      if (spec.scale.floor !== null && spec.scale.floor !== undefined) entry(spec.scale.floorName, make("path", { d: "M-9 0H9", stroke: "var(--mark)", "stroke-width": 2.5 }));
    }
    return list;
  }

  function listen(svg, marks, width) {
    const ordered = [...marks].sort((a, b) => a.x - b.x || a.y - b.y);
    let current = -1;
    const show = (each) => {
      const box = svg.getBoundingClientRect(), factor = box.width / width;
      for (const other of marks) other.mark.removeAttribute("opacity");
      showTip(each.lines, box.left + each.x * factor, box.top + each.y * factor);
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), factor = width / box.width;
      const x = (event.clientX - box.left) * factor, y = (event.clientY - box.top) * factor;
      let best = null, least = 18 ** 2;
      for (const each of marks) { const away = (each.x - x) ** 2 + (each.y - y) ** 2; if (away < least) { least = away; best = each; } }
      if (best) { current = ordered.indexOf(best); show(best); } else hideTip();
    });
    svg.addEventListener("pointerleave", hideTip);
    svg.addEventListener("blur", hideTip);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hideTip();
      if (!step || !ordered.length) return;
      event.preventDefault();
      current = (current + step + ordered.length) % ordered.length;
      show(ordered[current]);
    });
  }

  function put(holder, spec) {
    let before = 0;
    holder.classList.add("chart");
    new ResizeObserver(() => { if (holder.clientWidth !== before) { before = holder.clientWidth; hideTip(); draw(holder, spec); } }).observe(holder);
  }
  function putAll() {
    for (const holder of document.querySelectorAll("[data-chart]")) put(holder, JSON.parse(document.getElementById(holder.dataset.chart).textContent));
  }
  return { put, putAll, showTip, hideTip, colour, viridis, COLOURS };
})();
Chart.putAll();
