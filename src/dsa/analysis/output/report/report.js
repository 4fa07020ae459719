"use strict";
(() => {
  const NS = "http://www.w3.org/2000/svg";
  const MARKERS = {
    circle: "M-4.2,0a4.2,4.2 0 1,0 8.4,0a4.2,4.2 0 1,0 -8.4,0Z",
    diamond: "M0,-5L5,0L0,5L-5,0Z",
    up: "M0,-5L5,4L-5,4Z",
    down: "M0,5L5,-4L-5,-4Z",
    left: "M-5,0L4,5L4,-5Z",
    right: "M5,0L-4,5L-4,-5Z",
    square: "M-4,-4H4V4H-4Z",
    cross: "M-4.5,-2.5L-2.5,-4.5L0,-2L2.5,-4.5L4.5,-2.5L2,0L4.5,2.5L2.5,4.5L0,2L-2.5,4.5L-4.5,2.5L-2,0Z",
  };
  const LINES = [0, 2, 3, 4, 6]; // series whose colours cannot be taken for the baseline's
  const SERIES = ["circle", "diamond", "up", "down", "square", "cross", "circle", "diamond"];
  const CONTROLS = { dense: "square", oracle: "up", random: "cross", window: "down", sink_window: "left", static: "right", replicate: "diamond" };
  const STANDINGS = {
    front: "on the front", open: "undecided", dominated: "another is better or as good, and cheaper", unranked: "not ranked",
  };
  const CONTROL_DASHES = { dense: "9 3", oracle: "7 3 2 3", random: "2 2", window: "2 5", sink_window: "6 2 2 2", static: "8 2", replicate: "4 4" };
  const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
  const tip = document.getElementById("tip");

  // ---- small tools
  function svg(parent, tag, attributes, text) {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }
  function html(parent, tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }
  const pen = document.createElement("canvas").getContext("2d");
  function textWidth(text, size = 12) {
    pen.font = `${size}px system-ui, "DejaVu Sans", sans-serif`;
    return pen.measureText(text).width;
  }
  function cut(text, room, size = 12) {
    if (textWidth(text, size) <= room) return text;
    let n = text.length;
    while (n > 1 && textWidth(text.slice(0, n) + "…", size) > room) n -= 1;
    return text.slice(0, n) + "…";
  }
  function wrapped(text, room, size = 12) { // lines that each fit, broken after a space or a sign
    const lines = [""];
    for (const piece of text.split(/(?<=[\s,+_-])/)) {
      const last = lines.length - 1;
      if (!lines[last] || textWidth((lines[last] + piece).trimEnd(), size) <= room) lines[last] += piece;
      else lines.push(piece);
    }
    return lines.map((line) => cut(line.trimEnd(), room, size));
  }
  function digits(value) {
    if (value === null || value === undefined) return "–";
    return Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  }
  function short(value) {
    for (const [factor, sign, base] of [[1e12, "T", 1e12], [1e9, "G", 1e9], [1e6, "M", 1e6], [1e4, "k", 1e3]]) {
      if (Math.abs(value) >= factor) return Number((value / base).toPrecision(3)) + sign;
    }
    return String(Number(value.toPrecision(3)));
  }
  function range(value, interval) {
    return interval && interval[1] > interval[0] ? `${digits(value)} [${digits(interval[0])}, ${digits(interval[1])}]` : digits(value);
  }
  const control = (role) => role !== "condition" && role !== "baseline";
  const roleClass = (role) => (role === "baseline" ? "baseline" : control(role) ? "control" : "condition");

  // ---- axes
  function titled(axis) {
    if (axis.linear_within) return `${axis.label} (log scale beyond ±${axis.linear_within})`;
    return axis.label + (axis.marked ? `, ${axis.log ? "log" : "linear"} scale` : "");
  }
  function scaleOf(axis, values, from, to) {
    let [low, high] = axis.limits || [Math.min(...values), Math.max(...values)];
    if (low === high) { low -= Math.abs(low) * 0.1 || 1; high += Math.abs(high) * 0.1 || 1; }
    const within = axis.linear_within, bent = (v) => Math.sign(v) * Math.log10(1 + Math.abs(v) / within);
    const f = within ? bent : axis.log ? Math.log10 : (v) => v;
    const map = (v) => from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from);
    map.low = low; map.high = high; map.clip = (v) => map(Math.min(high, Math.max(low, v)));
    map.inside = (v) => v >= low && v <= high;
    map.ticks = axis.ticks ? axis.ticks : within ? bentTicks(low, high, within) : axis.log ? logTicks(low, high) : niceTicks(low, high, Math.max(2, Math.abs(to - from) / 70));
    return map;
  }
  function niceTicks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const out = [];
    for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k += 1) out.push(Number((k * step).toPrecision(12)));
    return out;
  }
  function logTicks(low, high) {
    const every = high / low < 300 ? [1, 2, 5] : [1], out = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
      for (const m of every) { const v = Number((m * 10 ** e).toPrecision(12)); if (v >= low && v <= high) out.push(v); }
    }
    return out;
  }
  function bentTicks(low, high, within) { // 0, and powers of ten either way
    const far = logTicks(within, Math.max(Math.abs(low), Math.abs(high), 10 * within)).filter((v) => Number.isInteger(Math.log10(v)));
    return [...far.map((v) => -v).reverse(), 0, ...far].filter((v) => v >= low && v <= high);
  }
  function xAxis(root, x, top, bottom, left, right, label) {
    let edge = -Infinity;
    for (const t of x.ticks) {
      svg(root, "line", { class: "grid", x1: x(t), x2: x(t), y1: top, y2: bottom });
      const text = short(t), half = textWidth(text, 11) / 2;
      if (x(t) - half > edge + 6 && x(t) + half <= right + 14) {
        svg(root, "text", { class: "soft", x: x(t), y: bottom + 15, "text-anchor": "middle", "font-size": 11 }, text);
        edge = x(t) + half;
      }
    }
    svg(root, "line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom });
    const width = textWidth(label), middle = Math.max(width / 2 + 2, Math.min((left + right) / 2, right + 10 - width / 2));
    svg(root, "text", { class: "soft", x: middle, y: bottom + 34, "text-anchor": "middle" }, cut(label, right + 8));
  }
  function stripe(root, y, height, width) {
    const group = svg(root, "g", { class: "row", tabindex: -1 });
    svg(group, "rect", { class: "stripe", x: 0, y, width, height, opacity: 0.6 });
    return group;
  }
  function guides(root, axis, scale, from, to, across) {
    for (const value of axis.guides) {
      if (!scale.inside(value)) continue;
      const at = across ? { y1: scale(value), y2: scale(value), x1: from, x2: to } : { x1: scale(value), x2: scale(value), y1: from, y2: to };
      svg(root, "line", { class: "guide", ...at, "stroke-dasharray": value === 0 ? "" : "5 4" });
    }
  }
  function yAxis(root, y, left, right, top, bottom, label) {
    for (const t of y.ticks) {
      svg(root, "line", { class: "grid", x1: left, x2: right, y1: y(t), y2: y(t) });
      svg(root, "text", { class: "soft", x: left - 6, y: y(t) + 4, "text-anchor": "end", "font-size": 11 }, short(t));
    }
    svg(root, "line", { class: "axis", x1: left, x2: left, y1: top, y2: bottom });
    svg(root, "text", { class: "soft", x: 2, y: 12 }, label);
  }

  // ---- the tooltip: follows hover and focus, stays on a click, can be entered to reach its button
  let pinned = false, leaving = 0, owner = null;
  function show(node, fill) {
    clearTimeout(leaving);
    owner = node;
    tip.replaceChildren();
    fill(tip);
    tip.hidden = false;
    const at = (node.querySelector(".zone") || node).getBoundingClientRect(), box = tip.getBoundingClientRect(), room = document.documentElement.clientWidth;
    const left = Math.min(Math.max(8, at.left + at.width / 2 - box.width / 2), room - box.width - 8);
    const above = at.top - box.height - 6;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(above > 4 ? above : at.bottom + 6) + window.scrollY}px`;
  }
  function hide() { tip.hidden = true; pinned = false; owner = null; }
  function leave() { if (!pinned) leaving = setTimeout(hide, 260); }
  function hoverable(node, fill) {
    node.addEventListener("pointerenter", (e) => { if (!pinned && e.pointerType !== "touch") show(node, fill); });
    node.addEventListener("pointerleave", leave);
    node.addEventListener("focus", () => { if (!pinned) show(node, fill); });
    node.addEventListener("blur", leave);
    node.addEventListener("click", (e) => { e.stopPropagation(); const same = pinned && owner === node; if (same) hide(); else { show(node, fill); pinned = true; } });
    node.addEventListener("keydown", (e) => { if (e.key === "Enter") { show(node, fill); pinned = true; } });
  }
  tip.addEventListener("pointerenter", () => clearTimeout(leaving));
  tip.addEventListener("pointerleave", leave);
  tip.addEventListener("click", (e) => e.stopPropagation());
  document.addEventListener("click", hide);
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") hide(); });

  async function copy(text, button) {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = html(document.body, "textarea", "", text);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1200);
  }

  // ---- legends
  function sign(parent, path, style) {
    const root = svg(parent, "svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" });
    svg(root, "path", { d: path, ...style });
  }
  function legendItem(legend, path, style, text) {
    const item = html(legend, "span");
    sign(item, path, style);
    item.appendChild(document.createTextNode(text));
    return item;
  }
  const seriesColour = (i) => `var(--s${i % 8})`;

  const BOLD = 1.1; // how much wider the baseline's name is for being bold
  function namesWidth(panel, width) {
    return Math.min(0.4 * width, Math.max(...panel.rows.map((r) => textWidth(r.label) * (r.role === "baseline" ? BOLD : 1))) + 4);
  }

  // ---- forest
  function forest(chart, panel, root, width) {
    const names = namesWidth(panel, width);
    const count = chart.series.length, most = Math.max(...panel.rows.map((r) => r.marks.length));
    const left = names + 10, right = width - 16, half = (right - left) / 2 - 6;
    const named = (r) => wrapped(r.label, r.role === "baseline" ? names / BOLD : names);
    const meant = (r) => (r.ends || []).map((text, side) => wrapped(side ? `${text} →` : `← ${text}`, half, 10));
    const deepest = (texts) => Math.max(0, ...texts.map((lines) => lines.length));
    const ends = 12 * deepest(panel.rows.flatMap(meant)) + (panel.rows.some((r) => r.ends) ? 4 : 0);
    const tall = Math.max(20, Math.min(9 * most + 8, 44), 14 * deepest(panel.rows.map(named)) + 6) + ends;
    const top = 4, bottom = top + tall * panel.rows.length;
    const every = panel.rows.flatMap((r) => r.marks.flatMap((m) => [m.value, ...(m.interval || [])]));
    const x = scaleOf(panel.x, every, left, right);
    root.setAttribute("height", bottom + 42);
    xAxis(root, x, top, bottom, left, right, titled(panel.x));
    guides(root, panel.x, x, top, bottom, false);
    const first = panel.rows.findIndex((r) => control(r.role));
    panel.rows.forEach((row, i) => {
      const y = top + tall * (i + 0.5), group = stripe(root, y - tall / 2, tall, width);
      const lines = named(row), beyond = { over: right, under: left };
      lines.forEach((line, n) => svg(group, "text", { class: roleClass(row.role), x: names, y: y + 4 + 14 * (n - (lines.length - 1) / 2), "text-anchor": "end" }, line));
      meant(row).forEach((signs, side) => signs.forEach((sign, n) => {
        svg(group, "text", { class: "soft", x: side ? right : left, y: y - tall / 2 + 12 * (n + 1), "text-anchor": side ? "end" : "start", "font-size": 10 }, sign);
      }));
      for (const mark of row.marks) {
        const at = y + (row.marks.length < 2 ? 0 : (mark.series / (count - 1) - 0.5) * Math.min(tall - 10, 9 * (count - 1))) + ends / 2;
        const colour = seriesColour(mark.series);
        if (!x.inside(mark.value)) {
          const over = mark.value > x.high, text = over ? `${digits(mark.value)} →` : `← ${digits(mark.value)}`;
          svg(group, "text", { x: over ? beyond.over : beyond.under, y: y + 4, "text-anchor": over ? "end" : "start", "font-size": 11, style: `fill:${colour}` }, text);
          if (over) beyond.over -= textWidth(text, 11) + 10; else beyond.under += textWidth(text, 11) + 10;
          continue;
        }
        if (mark.interval) svg(group, "line", { x1: x.clip(mark.interval[0]), x2: x.clip(mark.interval[1]), y1: at, y2: at, stroke: colour, "stroke-width": 1.6, opacity: control(row.role) ? 0.5 : 1 });
        if (mark.reference !== null) svg(group, "line", { x1: x.clip(mark.reference), x2: x.clip(mark.reference), y1: at - 5, y2: at + 5, stroke: colour, "stroke-width": 2 });
        svg(group, "path", { d: MARKERS[SERIES[mark.series % 8]], transform: `translate(${x(mark.value)} ${at})`, stroke: colour, "stroke-width": 1.3, fill: control(row.role) ? "var(--paper)" : colour });
      }
      if (i === first && i > 0) svg(root, "line", { class: "axis", x1: 0, x2: right, y1: y - tall / 2, y2: y - tall / 2 });
      hoverable(group, (box) => {
        html(box, "p", "name", row.label + (control(row.role) ? " (control)" : row.role === "baseline" ? " (baseline)" : ""));
        html(box, "p", "", panel.name);
        for (const mark of row.marks) {
          const best = mark.reference === null ? "" : `, at most ${digits(mark.reference)}`;
          html(box, "p", "", `${chart.series[mark.series].split(":")[0]}: ${range(mark.value, mark.interval)}${best}${mark.note ? `, ${mark.note}` : ""}`);
        }
      });
    });
  }
  function forestLegend(chart, legend) {
    chart.series.forEach((name, i) => legendItem(legend, MARKERS[SERIES[i % 8]], { fill: seriesColour(i) }, name));
  }

  // ---- dots: every seed in a colour of its own
  const hue = (i, count) => `hsl(${265 - (245 * i) / Math.max(1, count - 1)} 65% 50%)`;
  function dots(chart, panel, root, width) {
    const names = namesWidth(panel, width), tall = 22, count = chart.series.length;
    const left = names + 10, right = width - 52, top = 4, bottom = top + tall * panel.rows.length;
    const x = scaleOf(panel.x, [], left, right);
    root.setAttribute("height", bottom + 42);
    xAxis(root, x, top, bottom, left, right, titled(panel.x));
    guides(root, panel.x, x, top, bottom, false);
    const first = panel.rows.findIndex((r) => control(r.role));
    panel.rows.forEach((row, i) => {
      const y = top + tall * (i + 0.5), group = stripe(root, y - tall / 2, tall, width);
      svg(group, "text", { class: roleClass(row.role), x: names, y: y + 4, "text-anchor": "end" }, cut(row.label, row.role === "baseline" ? names / BOLD : names));
      for (const mark of row.marks) {
        const at = y + (tall - 10) * (mark.series / Math.max(1, count - 1) - 0.5);
        svg(group, "circle", { cx: x.clip(mark.value), cy: at, r: 2.6, fill: hue(mark.series, count) });
      }
      svg(group, "text", { class: "soft", x: right + 6, y: y + 4, "font-size": 11 }, row.note);
      if (i === first && i > 0) svg(root, "line", { class: "axis", x1: 0, x2: right, y1: y - tall / 2, y2: y - tall / 2 });
      hoverable(group, (box) => {
        const ordered = [...row.marks].sort((a, b) => b.value - a.value), told = (mark) => `${chart.series[mark.series]}: ${digits(mark.value)}`;
        html(box, "p", "name", row.label + (control(row.role) ? " (control)" : row.role === "baseline" ? " (baseline)" : ""));
        html(box, "p", "", `${panel.name}, ${row.marks.length} seeds${row.note ? `, ${row.note} beyond the margin` : ""}`);
        html(box, "p", "", `worst ${told(ordered[0])}`);
        html(box, "p", "", `best ${told(ordered[ordered.length - 1])}`);
      });
    });
  }
  function dotsLegend(chart, legend) {
    const last = chart.series.length - 1;
    for (const i of new Set([0, Math.floor(last / 2), last])) legendItem(legend, MARKERS.circle, { fill: hue(i, last + 1) }, chart.series[i]);
  }

  // ---- bars
  function bars(chart, panel, root, width) {
    const names = namesWidth(panel, width);
    const tall = 22, left = names + 10, right = width - 48, top = 4, bottom = top + tall * panel.rows.length;
    const totals = panel.rows.map((r) => r.marks.reduce((sum, m) => sum + m.value, 0));
    const x = scaleOf({ log: false, limits: [0, Math.max(...totals)] }, [], left, right);
    root.setAttribute("height", bottom + 42);
    xAxis(root, x, top, bottom, left, right, titled(panel.x));
    panel.rows.forEach((row, i) => {
      const y = top + tall * (i + 0.5), group = stripe(root, y - tall / 2, tall, width);
      svg(group, "text", { class: roleClass(row.role), x: names, y: y + 4, "text-anchor": "end" }, cut(row.label, names));
      let from = 0;
      for (const mark of row.marks) {
        svg(group, "rect", { x: x(from), y: y - 7, width: Math.max(0, x(from + mark.value) - x(from)), height: 14, fill: seriesColour(mark.series) });
        from += mark.value;
      }
      const whole = row.marks[0].reference, share = whole ? `${Math.round((100 * totals[i]) / whole)}%` : "";
      svg(group, "text", { class: "soft", x: x(totals[i]) + 5, y: y + 4, "font-size": 11 }, share);
      hoverable(group, (box) => {
        html(box, "p", "name", row.label);
        html(box, "p", "", panel.name);
        for (const mark of row.marks) html(box, "p", "", `${chart.series[mark.series]}: ${short(mark.value)}`);
        if (whole) html(box, "p", "", `in all ${short(totals[i])}, ${share} of dense attention`);
      });
    });
  }
  function barsLegend(chart, legend) {
    chart.series.forEach((name, i) => legendItem(legend, "M-5,-5H5V5H-5Z", { fill: seriesColour(i) }, name));
  }

  // ---- cells: rows by columns
  function cells(chart, panel, root, width, { look, told, tell, named = () => "" }) {
    const names = namesWidth(panel, width);
    const count = chart.series.length, tall = 20, left = names + 10, right = width - 44, top = 4, bottom = top + tall * panel.rows.length;
    const wide = Math.min(18, (right - left) / count);
    let edge = -Infinity;
    chart.series.forEach((name, i) => {
      const text = named(i), at = left + wide * (i + 0.5), half = textWidth(text, 10) / 2;
      if (!text || at - half < edge + 6) return;
      svg(root, "text", { class: "soft", x: at, y: bottom + 12, "text-anchor": "middle", "font-size": 10 }, text);
      edge = at + half;
    });
    const under = edge > 0 ? 32 : 18;
    root.setAttribute("height", bottom + under + 10);
    svg(root, "text", { class: "soft", x: left, y: bottom + under }, cut(titled(panel.x), width - left));
    panel.rows.forEach((row, i) => {
      const y = top + tall * i, group = stripe(root, y, tall, width);
      svg(group, "text", { class: roleClass(row.role), x: names, y: y + 14, "text-anchor": "end" }, cut(row.label, names));
      for (const mark of row.marks) {
        svg(group, "rect", { ...look(mark), x: left + wide * mark.series + 0.5, y: y + 1, width: Math.max(1, wide - 1), height: tall - 2 });
      }
      svg(group, "text", { class: "soft", x: left + wide * count + 5, y: y + 14, "font-size": 11 }, told(row));
      hoverable(group, (box) => {
        html(box, "p", "name", row.label + (control(row.role) ? " (control)" : row.role === "baseline" ? " (baseline)" : ""));
        tell(box, row);
      });
    });
  }

  // ---- heat: rows with more values than signs and colours can tell apart
  const EVERY = 5; // columns from one that is named to the next
  function spread(chart) {
    const every = chart.panels.flatMap((p) => p.rows.flatMap((r) => r.marks.map((m) => m.value)));
    return [Math.min(...every), Math.max(...every)];
  }
  const shade = (share) => ({ fill: "var(--s0)", "fill-opacity": 0.05 + 0.95 * share });
  function heat(chart, panel, root, width) {
    const [low, high] = spread(chart);
    cells(chart, panel, root, width, {
      look: (mark) => shade(high > low ? (mark.value - low) / (high - low) : 1),
      told: (row) => digits(Number((row.marks.reduce((sum, m) => sum + m.value, 0) / row.marks.length).toPrecision(2))),
      named: (i) => (i % EVERY ? "" : chart.series[i]),
      tell: (box, row) => {
        const ordered = [...row.marks].sort((a, b) => a.value - b.value), name = (mark) => `${chart.series[mark.series]}: ${range(mark.value, mark.interval)}`;
        html(box, "p", "", `least ${name(ordered[0])}`);
        html(box, "p", "", `most ${name(ordered[ordered.length - 1])}`);
      },
    });
  }
  function heatLegend(chart, legend) {
    spread(chart).forEach((value, i) => legendItem(legend, "M-7,-7H7V7H-7Z", shade(i), digits(value)));
  }

  // ---- matrix
  const STEPS = [1, 3, 10]; // in margins: from each on a cell is darker
  const DEPTHS = ["within the margin", "up to 3 margins", "up to 10 margins", "more than 10 margins"];
  const depth = (mark) => STEPS.filter((factor) => mark.value > factor * mark.reference).length;
  function matrix(chart, panel, root, width) {
    const failed = (row) => row.marks.filter((mark) => depth(mark));
    cells(chart, panel, root, width, {
      look: (mark) => ({ class: `depth${depth(mark)}` }),
      told: (row) => `${failed(row).length}/${row.marks.length}`,
      tell: (box, row) => {
        html(box, "p", "", `${panel.name}: ${failed(row).length} of ${row.marks.length} seeds fail`);
        for (const mark of failed(row).slice(0, 12)) html(box, "p", "", `${chart.series[mark.series]}: ${digits(mark.value)} beyond the oracle`);
        if (failed(row).length > 12) html(box, "p", "", `and ${failed(row).length - 12} more`);
      },
    });
  }
  function matrixLegend(chart, legend) {
    DEPTHS.forEach((name, i) => {
      const item = html(legend, "span");
      svg(svg(item, "svg", { width: 14, height: 14, "aria-hidden": "true" }), "rect", { class: `depth${i}`, width: 14, height: 14 });
      item.appendChild(document.createTextNode(name));
    });
  }

  // ---- scatter
  function look(spot) {
    const plain = spot.standing === "unranked" ? "var(--soft)" : "var(--s0)";
    const colour = spot.role === "baseline" ? "var(--baseline)" : control(spot.role) ? "var(--control)" : plain;
    const fill = control(spot.role) || ["front", "measured"].includes(spot.standing) ? colour : spot.standing === "open" ? "var(--half)" : "var(--paper)";
    return { d: MARKERS[CONTROLS[spot.role] || "circle"], stroke: colour, "stroke-width": 1.6, fill };
  }
  function scatter(chart, panel, root, width) {
    const height = Math.max(300, Math.min(400, width * 0.75));
    const left = 58, right = width - 18, top = 24, bottom = height - 42;
    root.setAttribute("height", height);
    const x = scaleOf(panel.x, panel.spots.map((s) => s.x), left, right);
    const y = scaleOf(panel.y, panel.spots.map((s) => s.y), bottom, top);
    xAxis(root, x, top, bottom, left, right, titled(panel.x));
    yAxis(root, y, left, right, top, bottom, titled(panel.y));
    guides(root, panel.y, y, left, right, true);
    if (panel.envelope.length > 1) {
      const path = panel.envelope.map(([a, b], i) => (i ? `H${x(a)}V${y(b)}` : `M${x(a)},${y(b)}`)).join("");
      svg(root, "path", { d: path, fill: "none", stroke: "var(--soft)", "stroke-dasharray": "4 4", opacity: 0.7 });
    }
    const taken = panel.spots.map((s) => ({ x0: x(s.x) - 7, x1: x(s.x) + 7, y0: y(s.y) - 7, y1: y(s.y) + 7 }));
    const ordered = [...panel.spots].sort((a, b) => rank(a) - rank(b));
    for (const spot of [...ordered].reverse()) {
      const group = svg(root, "g", { class: "spot", tabindex: 0, role: "button", "aria-label": `${spot.label}, ${panel.name}` });
      const style = look(spot), a = x(spot.x), b = y(spot.y);
      if (spot.x_interval) svg(group, "line", { x1: x.clip(spot.x_interval[0]), x2: x.clip(spot.x_interval[1]), y1: b, y2: b, stroke: style.stroke, opacity: 0.45 });
      if (spot.y_interval) svg(group, "line", { y1: y.clip(spot.y_interval[0]), y2: y.clip(spot.y_interval[1]), x1: a, x2: a, stroke: style.stroke, opacity: 0.45 });
      svg(group, "circle", { class: "zone ring", cx: a, cy: b, r: 10 });
      svg(group, "path", { ...style, transform: `translate(${a} ${b})${spot.role === "baseline" ? " scale(1.3)" : ""}` });
      hoverable(group, (box) => {
        html(box, "p", "name", spot.label + (control(spot.role) ? " (control)" : spot.role === "baseline" ? " (baseline)" : ""));
        html(box, "p", "", panel.name);
        html(box, "p", "", `${panel.y.label}: ${range(spot.y, spot.y_interval)}`);
        html(box, "p", "", `${panel.x.label}: ${range(spot.x, spot.x_interval)}`);
        if (!control(spot.role)) html(box, "p", "", [STANDINGS[spot.standing], spot.note].filter((t, i) => t && !(i === 0 && spot.note)).join("; "));
        if (spot.command) {
          const line = html(box, "div", "command");
          html(line, "code", "", spot.command);
          const button = html(line, "button", "copy", "Copy command");
          button.type = "button";
          button.addEventListener("click", () => copy(spot.command, button));
        }
      });
    }
    for (const spot of ordered) nameSpot(root, spot, x(spot.x), y(spot.y), taken, { left, right: width - 2, top, bottom });
  }
  const rank = (s) => (s.role === "baseline" ? -1 : ["front", "measured", "open", "dominated", "unranked"].indexOf(s.standing));
  function nameSpot(root, spot, a, b, taken, frame) {
    const text = cut(spot.label, 130, 11), w = textWidth(text, 11) + 3;
    const places = [[8, -4, 0], [8, 12, 0], [-8, -4, 1], [-8, 12, 1], [0, -11, 0.5], [0, 20, 0.5]];
    for (const [dx, dy, back] of places) {
      const box = { x0: a + dx - back * w, x1: a + dx + (1 - back) * w, y0: b + dy - 10, y1: b + dy + 3 };
      const inside = box.x0 >= frame.left && box.x1 <= frame.right && box.y0 >= frame.top && box.y1 <= frame.bottom;
      if (inside && !taken.some((o) => box.x0 < o.x1 && o.x0 < box.x1 && box.y0 < o.y1 && o.y0 < box.y1)) {
        taken.push(box);
        svg(root, "text", { class: `spot-name ${roleClass(spot.role)}`, x: box.x0, y: b + dy, "font-size": 11, "pointer-events": "none" }, text);
        return;
      }
    }
  }
  function scatterLegend(chart, legend) {
    const spots = chart.panels.flatMap((p) => p.spots);
    for (const [standing, meaning] of Object.entries(STANDINGS)) {
      if (spots.some((s) => s.standing === standing && !control(s.role))) legendItem(legend, MARKERS.circle, look({ role: "condition", standing }), meaning);
    }
    for (const role of ["baseline", ...Object.keys(CONTROLS)]) {
      if (spots.some((s) => s.role === role)) legendItem(legend, MARKERS[CONTROLS[role] || "circle"], look({ role, standing: "front" }), role);
    }
  }

  // ---- lines
  function styleOf(chart, line) {
    const names = [...new Set(chart.panels.flatMap((p) => p.lines.map((l) => l.label)))], i = names.indexOf(line.label);
    if (line.role === "baseline") return { stroke: "var(--baseline)", "stroke-dasharray": "", width: 2.6 };
    if (control(line.role)) return { stroke: "var(--control)", "stroke-dasharray": CONTROL_DASHES[line.role], width: 1.6 };
    return { stroke: seriesColour(LINES[i % 5]), "stroke-dasharray": DASHES[Math.floor(i / 5) % 4], width: 1.6 };
  }
  function lines(chart, panel, root, width) {
    const height = Math.max(260, Math.min(340, width * 0.62)), left = 58, right = width - 14, top = 24, bottom = height - 42;
    root.setAttribute("height", height);
    const x = scaleOf(panel.x, panel.lines.flatMap((l) => l.x), left, right);
    const y = scaleOf(panel.y, panel.lines.flatMap((l) => l.y), bottom, top);
    xAxis(root, x, top, bottom, left, right, titled(panel.x));
    yAxis(root, y, left, right, top, bottom, titled(panel.y));
    guides(root, panel.y, y, left, right, true);
    for (const line of panel.lines) {
      const style = styleOf(chart, line), group = svg(root, "g", { class: "line", "data-label": line.label });
      const up = line.x.map((v, i) => `${x(v)},${y.clip(line.high[i])}`), down = line.x.map((v, i) => `${x(v)},${y.clip(line.low[i])}`).reverse();
      svg(group, "polygon", { class: "band", points: [...up, ...down].join(" "), fill: style.stroke, visibility: "hidden" });
      const points = line.x.map((v, i) => `${x(v)},${line.marked ? y.clip(line.y[i]) : y(line.y[i])}`).join(" ");
      svg(group, "polyline", { class: "course", points, stroke: style.stroke, "stroke-dasharray": style["stroke-dasharray"], style: `stroke-width:${style.width}` });
      line.x.forEach((v, i) => {
        if (!line.marked || !y.inside(line.y[i])) return;
        svg(group, "line", { x1: x(v), x2: x(v), y1: y.clip(line.low[i]), y2: y.clip(line.high[i]), stroke: style.stroke, "stroke-width": 1.4, opacity: 0.6 });
        svg(group, "path", { d: MARKERS[CONTROLS[line.role] || "circle"], transform: `translate(${x(v)} ${y(line.y[i])})`, fill: style.stroke });
      });
      const zone = svg(group, "polyline", { points, fill: "none", stroke: "transparent", "stroke-width": 9 });
      zone.addEventListener("pointerenter", () => highlight(root.closest(".chart"), line.label));
      zone.addEventListener("pointerleave", () => highlight(root.closest(".chart"), null));
      hoverable(zone, (box) => {
        const n = line.y.length - 1, told = (i) => range(line.y[i], [line.low[i], line.high[i]]);
        html(box, "p", "name", line.label + (control(line.role) ? " (control)" : ""));
        html(box, "p", "", [panel.name, line.over].filter(Boolean).join(", "));
        if (line.marked) line.x.forEach((v, i) => html(box, "p", "", `at ${short(v)}: ${told(i)}`));
        else html(box, "p", "", `at step ${Math.round(line.x[n])}: ${told(n)}`);
      });
    }
  }
  function highlight(section, label) {
    for (const group of section.querySelectorAll("g.line")) {
      const mine = group.dataset.label === label;
      group.querySelector(".course").classList.toggle("faint", label !== null && !mine);
      group.querySelector(".course").classList.toggle("strong", mine);
      group.querySelector(".band").setAttribute("visibility", mine ? "visible" : "hidden");
    }
    for (const item of section.querySelectorAll(".legend span")) item.classList.toggle("on", item.dataset.label === label);
  }
  function linesLegend(chart, legend) {
    const seen = new Set();
    for (const line of chart.panels.flatMap((p) => p.lines)) {
      if (seen.has(line.label)) continue;
      seen.add(line.label);
      const style = styleOf(chart, line), item = html(legend, "span", "pick");
      item.dataset.label = line.label;
      const root = svg(item, "svg", { width: 26, height: 10, "aria-hidden": "true" });
      svg(root, "line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: style.stroke, "stroke-width": style.width, "stroke-dasharray": style["stroke-dasharray"] });
      if (line.marked) svg(root, "path", { d: MARKERS[CONTROLS[line.role] || "circle"], transform: "translate(13 5)", fill: style.stroke });
      item.appendChild(document.createTextNode(line.label));
      item.addEventListener("pointerenter", () => highlight(legend.closest(".chart"), line.label));
      item.addEventListener("pointerleave", () => highlight(legend.closest(".chart"), null));
    }
  }

  // ---- the charts
  const KINDS = { forest: [forest, forestLegend], dots: [dots, dotsLegend], heat: [heat, heatLegend], matrix: [matrix, matrixLegend], bars: [bars, barsLegend], scatter: [scatter, scatterLegend], lines: [lines, linesLegend] };
  for (const chart of JSON.parse(document.getElementById("charts").textContent)) {
    if (!chart.panels.length) continue;
    const section = [...document.querySelectorAll(".chart")].find((s) => s.dataset.chart === chart.name);
    const [draw, legend] = KINDS[chart.kind];
    legend(chart, section.querySelector(".legend"));
    for (const panel of chart.panels) {
      const figure = html(section.querySelector(".panels"), "figure");
      const heading = html(figure, "figcaption", "", panel.name + " ");
      if (panel.note) html(heading, "small", "", `(${panel.note})`);
      let known = 0;
      const redraw = () => {
        const width = Math.floor(figure.clientWidth);
        if (!width || width === known) return;
        known = width;
        const root = svg(null, "svg", { width, role: "img", "aria-label": `${chart.title}, ${panel.name}` });
        const before = figure.querySelector("svg");
        if (before) before.replaceWith(root); else figure.appendChild(root);
        draw(chart, panel, root, width);
      };
      redraw();
      new ResizeObserver(redraw).observe(figure);
    }
  }

  // ---- the tables
  function sort(header) {
    const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
    const down = header.getAttribute("aria-sort") === "ascending";
    const key = (row) => row.cells[column];
    const rows = [...body.rows];
    rows.sort((r, s) => {
      const [a, b] = [key(r), key(s)], [u, v] = [a.dataset.value, b.dataset.value];
      if (u !== undefined && v !== undefined) return (Number(u) - Number(v)) * (down ? -1 : 1);
      if (u !== undefined || v !== undefined) return u !== undefined ? -1 : 1;
      return a.textContent.localeCompare(b.textContent, undefined, { numeric: true }) * (down ? -1 : 1);
    });
    body.append(...rows);
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
  }
  function csv(table) {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    return [...table.rows].map((row) => [...row.cells].map((c) => quoted(c.dataset.value ?? c.textContent.trim())).join(",")).join("\n") + "\n";
  }
  for (const header of document.querySelectorAll("th")) header.addEventListener("click", () => sort(header));
  for (const button of document.querySelectorAll("button.download")) {
    button.addEventListener("click", () => {
      const link = html(null, "a"), text = csv(button.parentNode.querySelector("table"));
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = `${button.dataset.name}.csv`;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
  for (const button of document.querySelectorAll("#reproduce .copy")) {
    button.addEventListener("click", () => copy(button.previousElementSibling.textContent, button));
  }
})();
