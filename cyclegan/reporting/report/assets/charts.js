// Curves by uPlot: faint as logged, bold smoothed; figures under the pointer stand in the legend.
const charts = {};
const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6"];
function figure(value) {
  if (value == null) return "–";
  const short = Number(value.toPrecision(4));
  return short !== 0 && Math.abs(short) < 0.001 ? short.toExponential() : String(short);
}
let smoothing = 0.6;

/** Exponential moving average, corrected for its start at nothing; gaps stay gaps. */
function smoothed(values, weight) {
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value == null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

/** `lines`: {name, values, colour, dash, points}; with `smooth` each is drawn twice. */
function chart(title, says, steps, images, lines, smooth) {
  const at = make("p", { class: "at", "aria-live": "polite" });
  const legend = make("ul", { class: "legend" });
  const plot = make("div", { class: "plot", tabindex: "0", role: "group" });
  const box = make("div", { class: "chart" }, make("h3", {}, title));
  if (says) box.append(make("p", { class: "note" }, says));
  box.append(legend, plot, at);
  byId("charts").append(box);

  const each = smooth ? 2 : 1;
  const rows = () => [steps, ...lines.flatMap((line) => (smooth ? [line.values, smoothed(line.values, smoothing)] : [line.values]))];
  const series = lines.flatMap((line) => {
    const stroke = () => style(line.colour);
    const faint = () => style(line.colour) + "55";
    const points = { show: line.points || steps.length < 3, size: 6 };
    const bold = { label: line.name, stroke, width: 2, dash: line.dash, spanGaps: !smooth, points };
    return smooth ? [{ label: line.name, stroke: faint, width: 1, points: { show: false } }, bold] : [bold];
  });
  const axis = { stroke: () => style("--muted"), grid: { stroke: () => style("--line"), width: 1 }, ticks: { stroke: () => style("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const values = lines.map((line) => {
    const value = make("b");
    const swatch = make("i");
    swatch.style.background = `var(${line.colour})`;
    if (line.dash) swatch.style.opacity = ".5";
    const button = make("button", { type: "button", "aria-pressed": "true" }, swatch, line.name, value);
    legend.append(make("li", {}, button));
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      for (let i = 0; i < each; i++) u.setSeries(1 + lines.indexOf(line) * each + i, { show: on });
    });
    return value;
  });
  const say = (index) => {
    const i = index ?? steps.length - 1;
    lines.forEach((line, k) => (values[k].textContent = figure(line.values[i])));
    const seen = images?.[i] == null ? "" : ` · ${images[i].toLocaleString("en")} images`;
    at.textContent = `${index == null ? "last: " : ""}step ${steps[i].toLocaleString("en")}${seen}`;
  };
  const options = {
    width: 300, height: 230, legend: { show: false }, padding: [8, 12, 0, 0],
    cursor: { y: false, points: { size: 7 } },
    scales: { x: { time: false } },
    axes: [
      { ...axis, size: 30, space: 60, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString("en") : "")) },
      { ...axis, size: 62, values: (_, ticks) => ticks.map(figure) },
    ],
    series: [{}, ...series],
    hooks: { setCursor: [(u) => say(u.cursor.idx)] },
  };
  const u = new uPlot(options, rows(), plot);
  const go = (i) => {
    const to = Math.max(0, Math.min(steps.length - 1, i));
    u.setCursor({ left: u.valToPos(steps[to], "x"), top: 10 });
  };
  plot.addEventListener("keydown", (event) => {
    const from = u.cursor.idx ?? steps.length;
    const to = { ArrowLeft: from - 1, ArrowRight: Math.min(from + 1, steps.length - 1), Home: 0, End: steps.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(to);
  });
  // A finger has no hover: where it touches, the figures are shown.
  for (const kind of ["pointerdown", "pointermove"]) {
    u.over.addEventListener(kind, (event) => {
      if (event.pointerType === "touch") u.setCursor({ left: event.clientX - u.over.getBoundingClientRect().left, top: 10 });
    });
  }
  const described = lines.map((line) => {
    const known = line.values.filter((value) => value != null);
    return `${line.name} from ${figure(known[0])} to ${figure(known.at(-1))}`;
  });
  plot.setAttribute("aria-label", `Chart: ${title}, steps ${steps[0]} to ${steps.at(-1)}. ${described.join("; ")}. Arrow keys read single steps.`);
  new ResizeObserver(() => {
    // The style sheet decides the width; the plot must not hold it open.
    const width = Math.floor(box.clientWidth - 29);
    if (width > 0 && width !== u.width) u.setSize({ width, height: 230 });
  }).observe(box);
  say(null);
  onTheme.push(() => u.redraw(false));
  charts[title] = u;
  return () => {
    if (!smooth) return;
    u.setData(rows(), false);
    u.redraw();
  };
}

(function draw() {
  if (!byId("charts")) return;
  const redraws = [];
  for (const metric of data.metrics) {
    const steps = [...new Set(metric.lines.flatMap((line) => line.points.map(([step]) => step)))].sort((a, b) => a - b);
    const lines = metric.lines.map((line) => {
      const values = new Map(line.points);
      const isAnchor = line.name.includes(" ");
      return {
        name: line.name.replace("AtoB", "A to B").replace("BtoA", "B to A"), points: !isAnchor,
        values: steps.map((step) => values.get(step) ?? null),
        colour: line.name.startsWith("AtoB") ? "--c1" : "--c2",
        dash: isAnchor ? (line.name.endsWith("nothing") ? [8, 4] : [2, 4]) : undefined,
      };
    });
    redraws.push(chart(metric.title, "On held-out pictures; dashed: doing nothing, dotted: best possible.", steps, null, lines, false));
  }
  for (const group of data.curves.groups) {
    const lines = group.lines.map((line, i) => ({ ...line, colour: COLOURS[i % COLOURS.length] }));
    const binned = data.curves.bin > 1 ? ` Each point is the mean of ${data.curves.bin} lines of metrics.jsonl.` : "";
    redraws.push(chart(group.title, group.says + binned, data.curves.steps, data.curves.images, lines, group.smooth));
  }
  byId("curve-controls").hidden = false;
  byId("smoothing").addEventListener("input", (event) => {
    smoothing = Number(event.target.value);
    byId("smoothing-value").textContent = smoothing.toFixed(2);
    redraws.forEach((redraw) => redraw());
  });
})();
