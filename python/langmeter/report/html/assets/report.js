// Puts a chart over each drawing. Without it the drawings stay.
(function () {
  "use strict";
  const charts = JSON.parse(document.getElementById("data").textContent);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));
  document.querySelectorAll(".chart[data-chart]").forEach((box) => langmeterChart(box, charts[box.dataset.chart]));
})();
