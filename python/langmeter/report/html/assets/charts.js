// Draws a chart that follows the pointer and the arrow keys into a box: langmeterChart(box, data) returns it as
// { update(point) } and { destroy() }. The report puts them over its drawings, the live page moves them.
(function () {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const dashes = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 4], [12, 4]];
  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function duration(s) {
    if (s >= 60) return Math.floor(s / 60) + " m " + String(Math.round(s % 60)).padStart(2, "0") + " s";
    const [scale, unit] = s >= 1 ? [1, " s"] : s >= 1e-3 ? [1e-3, " ms"] : [1e-6, " µs"];
    return Number((s / scale).toPrecision(3)) + unit;
  }
  function text(value, unit) {
    if (value == null) return "–";
    if (unit === "s") return duration(value);
    return unit === "USD" ? "$" + Number(value.toPrecision(3)) : compact.format(value);
  }
  function place(x, chart) {
    // Minutes are enough for the steps of a history; a live chart has a point each second.
    if (chart.axis === "time") return new Date(x * 1e3).toISOString().slice(0, chart.live ? 19 : 16).replace("T", " ") + " UTC";
    return Number((100 * (1 - Math.pow(10, -x))).toFixed(Math.max(0, Math.ceil(x)))) + " % of calls";
  }

  function logTicks(low, high) {
    const ticks = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
      for (const n of high / low < 500 ? [1, 2, 5] : [1]) ticks.push(n * Math.pow(10, p));
    }
    return ticks.filter((y) => low <= y && y <= high);
  }
  function timeTicks(xs) {
    return xs.map((x) => {
      const date = new Date(x * 1e3);
      return x % 86400 ? date.toISOString().slice(11, x % 60 ? 19 : 16) : date.toLocaleDateString("en", { month: "short", day: "numeric", timeZone: "UTC" });
    });
  }

  function draw(box, chart, at) {
    const outputs = box.parentNode.querySelectorAll("output");
    const axis = { stroke: color("--soft"), font: "12px system-ui, sans-serif", grid: { stroke: color("--grid"), width: 1 }, ticks: { show: false }, size: 30 };
    const xAxis = chart.axis === "time" ? { ...axis, grid: { show: false }, space: chart.live ? 80 : 50, values: (u, xs) => timeTicks(xs) } : {
      ...axis,
      splits: (u) => [50, 90, 99, 99.9, 99.99, 99.999].map((p) => -Math.log10(1 - p / 100)).filter((x) => x <= u.scales.x.max),
      values: (u, xs) => xs.map((x) => Number((100 * (1 - Math.pow(10, -x))).toFixed(3)) + " %"),
    };
    const plot = new uPlot({
      width: box.clientWidth, height: 260,
      tzDate: (x) => uPlot.tzDate(new Date(x * 1e3), "Etc/UTC"),
      legend: { show: false },
      cursor: { y: false, drag: { x: chart.axis === "time", y: false } },
      scales: { x: { time: chart.axis === "time", ...(chart.live ? { range: (u, low, high) => [Math.min(low, high - 120), high] } : {}) }, y: chart.log ? { distr: 3, range: (u, low, high) => [(low || 1e-3) * 0.9, (high || 1) * 1.1] } : { range: (u, low, high) => [0, (high || 1) * 1.06] } },
      axes: [xAxis, { ...axis, size: 64, ...(chart.log ? { splits: (u) => logTicks(u.scales.y.min, u.scales.y.max), filter: (u, ys) => ys } : {}), values: (u, ys) => ys.map((y) => (y == null ? "" : text(y, chart.unit))) }],
      series: [{}, ...chart.names.map((name, i) => ({ label: name, stroke: color("--s" + (i + 1)), width: 1.8, dash: dashes[i], points: { show: false } }))],
      hooks: {
        setCursor: [(u) => {
          const i = u.cursor.idx;
          at.textContent = i == null ? "" : place(chart.x[i], chart);
          outputs.forEach((output, n) => { output.textContent = i == null ? "" : text(chart.series[n][i], chart.unit); });
        }],
      },
    }, [chart.x, ...chart.series], box);
    box.classList.add("drawn");
    return plot;
  }

  window.langmeterChart = function (box, chart) {
    const at = document.createElement("p");
    at.className = "at";
    // A live chart says where the pointer is; spoken each second, it would be all that one hears.
    if (!chart.live) at.setAttribute("aria-live", "polite");
    box.appendChild(at);
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", box.dataset.title + ". Arrow keys move along the lines.");
    let plot = draw(box, chart, at), i = -1;
    const again = () => { plot.destroy(); plot = draw(box, chart, at); };
    dark.addEventListener("change", again);
    const sizes = new ResizeObserver(() => {
      if (box.clientWidth && box.clientWidth !== plot.width) plot.setSize({ width: box.clientWidth, height: 260 });
    });
    sizes.observe(box);
    box.addEventListener("keydown", (event) => {
      const last = plot.data[0].length - 1;
      const steps = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: last, PageDown: i + 10, PageUp: i - 10 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      i = Math.min(last, Math.max(0, steps[event.key]));
      plot.setCursor({ left: plot.valToPos(plot.data[0][i], "x"), top: 20 });
    });
    return {
      // Adds a point [x, y of each line] and lets go of what is more than chart.live seconds older.
      update(point) {
        const columns = [chart.x, ...chart.series];
        columns.forEach((column, n) => column.push(point[n]));
        let old = 0;
        while (chart.x[old] < point[0] - chart.live) old++;
        if (old) columns.forEach((column) => column.splice(0, old));
        plot.setData(columns);
      },
      destroy() {
        dark.removeEventListener("change", again);
        sizes.disconnect();
        plot.destroy();
      },
    };
  };
})();
