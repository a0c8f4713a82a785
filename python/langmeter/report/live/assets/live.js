// Shows what the server sends: once the whole page, then the cells that change.
(function () {
  "use strict";
  const own = document.currentScript;
  const get = (id) => document.getElementById(id);
  const main = get("main"), nav = document.querySelector("nav[aria-label=Contents] ul");
  // Milliseconds without an event after which the page no longer counts as live; a history is read each 15 s or more.
  const silence = own.dataset.span ? 120000 : 10000;
  let events = null, plots = {}, needs = "", paused = false, heard = 0, again = 0;

  function setText(node, text) { if (node.textContent !== text) node.textContent = text; }
  function status(kind, text) {
    const line = get("status");
    setText(line, text);
    if (line.className !== "status " + kind) line.className = "status " + kind;
    document.body.classList.toggle("stale", kind === "bad");
  }
  function problem(text) {
    const line = get("problem");
    setText(line, text);
    line.hidden = !text;
  }

  function bar(cell, share) {
    const fill = cell.querySelector("rect");
    const width = (100 * Math.min(Math.max(share, 0), 1)).toFixed(1) + "%";
    if (fill) {
      if (fill.getAttribute("width") !== width) fill.setAttribute("width", width);
      return;
    }
    const make = (name, values) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
      return element;
    };
    const drawing = make("svg", { class: "bar", "aria-hidden": "true" });
    drawing.appendChild(make("rect", { width, height: "100%", rx: 2, class: "fill s1" }));
    cell.replaceChildren(drawing);
  }
  // Of a row only the cells that differ are touched: the browser lays out those alone.
  function fill(body, rows) {
    while (body.rows.length > rows.length) body.deleteRow(-1);
    rows.forEach((row, n) => {
      const line = body.rows[n] || body.insertRow();
      row.forEach((value, place) => {
        let cell = line.cells[place];
        if (!cell) {
          cell = line.appendChild(document.createElement(place ? "td" : "th"));
          if (!place) cell.scope = "row";
        }
        if (typeof value === "number") return bar(cell, value);
        const [text, kind] = typeof value === "string" ? [value, ""] : value;
        setText(cell, text);
        if (cell.className !== kind) cell.className = kind;
      });
    });
  }

  function cells(view) {
    setText(get("at"), view.at ? view.at + (view.age ? ", " + view.age : "") : "Nothing was metered.");
    const tiles = get("tiles");
    tiles.classList.toggle("five", view.tiles.length % 5 === 0);
    while (tiles.children.length > view.tiles.length) tiles.lastChild.remove();
    view.tiles.forEach(([name, text], n) => {
      const tile = tiles.children[n] || tiles.appendChild(document.createElement("div"));
      if (!tile.firstChild) tile.append(document.createElement("dt"), document.createElement("dd"));
      setText(tile.firstChild, name);
      setText(tile.lastChild, text);
    });
    if (needs !== view.needs) get("needs").innerHTML = needs = view.needs;
    for (const [name, rows] of Object.entries(view.tables)) {
      const box = get(name);
      fill(box.querySelector("tbody"), rows);
      setText(box.querySelector(".note"), view.notes[name]);
    }
  }
  function whole(view) {
    Object.values(plots).forEach((plot) => plot.destroy());
    plots = {};
    const scrolled = [...main.querySelectorAll(".cells .scroll")].map((box) => [box.closest(".cells").id, box.scrollTop]);
    const focus = document.activeElement && main.contains(document.activeElement) && document.activeElement.closest("[id]").id;
    // A page that is shorter for a moment would scroll.
    main.style.minHeight = main.offsetHeight + "px";
    if (nav.innerHTML !== view.nav) nav.innerHTML = view.nav;
    main.innerHTML = view.main;
    main.querySelectorAll(".chart[data-chart]").forEach((box) => {
      plots[box.dataset.chart] = langmeterChart(box, view.charts[box.dataset.chart]);
    });
    cells(view);
    main.style.minHeight = "";
    scrolled.forEach(([id, top]) => { if (get(id)) get(id).querySelector(".scroll").scrollTop = top; });
    const part = focus && get(focus);
    if (part && part !== main) (part.querySelector("[tabindex]") || part).focus({ preventScroll: true });
  }
  function frame(view) {
    cells(view);
    for (const [name, point] of Object.entries(view.points)) plots[name].update(point);
  }

  function on(name, show) {
    events.addEventListener(name, (event) => {
      heard = Date.now();
      show(JSON.parse(event.data));
    });
  }
  function open() {
    if (events || paused || document.hidden) return;
    heard = Date.now();
    events = new EventSource("events" + (own.dataset.span ? "?span=" + own.dataset.span : ""));
    on("whole", (view) => { whole(view); live(); });
    on("frame", (view) => { frame(view); live(); });
    on("problem", (why) => {
      status("bad", "the source does not answer");
      problem(why.text);
    });
    events.onerror = () => {
      lost();
      // The browser tries again by itself, unless the answer was a refusal.
      if (events && events.readyState === EventSource.CLOSED) {
        close();
        again = setTimeout(refused, 2000);
      }
    };
  }
  function live() {
    status("good", own.dataset.span ? "up to date" : "live");
    problem("");
  }
  function lost() {
    status("bad", "disconnected");
    problem("The server does not answer. The figures are those of before; the page tries again every second.");
  }
  async function refused() {
    try {
      const answer = await fetch("events", { method: "HEAD" });
      if (answer.status === 401) {
        problem("The server wants its token: load the page again.");
        again = setTimeout(refused, 5000);
        return;
      }
    } catch (error) { /* it does not answer yet */ }
    open();
  }
  function close() {
    clearTimeout(again);
    if (events) events.close();
    events = null;
  }

  get("pause").addEventListener("click", () => {
    paused = !paused;
    get("pause").setAttribute("aria-pressed", String(paused));
    setText(get("pause"), paused ? "Go on" : "Pause");
    close();
    if (paused) status("", "paused");
    else open();
  });
  // A page that is out of sight needs no reading.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  setInterval(() => {
    if (events && Date.now() - heard > silence) lost();
  }, 1000);
  open();
})();
