"use strict";
document.documentElement.classList.add("js");

// Reading values off the curves: the pointer, or the arrow keys, pick a step in one chart and all charts over steps show it.
const charts = JSON.parse(document.getElementById("chart-data").textContent);
const figures = [...document.querySelectorAll("figure.chart")].map((figure) => {
  const data = charts[Number(figure.dataset.chart)];
  const outputs = [...figure.querySelectorAll(".legend output")];
  return { figure, data, outputs, resting: outputs.map((o) => o.textContent), plot: figure.querySelector(".plot"), cursor: figure.querySelector(".cursor"), at: figure.querySelector(".at") };
});

function write(value, share) {
  if (value === null || value === undefined) return "–";
  if (share) {
    const whole = 100 * value;
    return ((whole > 0 && whole < 9.95) || (whole >= 99.5 && whole < 99.95) ? whole.toFixed(1) : whole.toFixed(0)) + "\u00a0%";
  }
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return size < 1e-3 ? value.toExponential(1) : value.toPrecision(3);
}

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

function label(data, x) {
  return data.labels ? data.name + " " + (data.labels[x] ?? data.labels[x.toFixed(1)]) : data.name + " " + Math.round(x);
}

function show(chart, x) {
  const { data } = chart;
  const place = (x - data.x[0]) / (data.x[1] - data.x[0]);
  chart.cursor.style.display = place >= 0 && place <= 1 ? "block" : "none";
  chart.cursor.style.left = 100 * place + "%";
  chart.at.textContent = label(data, x);
  data.lines.forEach((line, i) => {
    const point = nearest(line.x, x);
    // A measurement far from the pointer's step is still the newest one there was, but it is said to be from elsewhere.
    const elsewhere = !data.labels && Math.abs(line.x[point] - x) > 0.5 && line.x.length < 60 ? " (" + Math.round(line.x[point]) + ")" : "";
    const interval = line.low && line.low[point] !== null ? " [" + [line.low[point], line.high[point]].map((v) => write(v, data.share).replace("\u00a0%", "")).join(", ") + "]" : "";
    chart.outputs[i].textContent = write(line.y[point], data.share) + interval + elsewhere;
  });
}

function rest(chart) {
  chart.cursor.style.display = "none";
  chart.at.textContent = "";
  chart.outputs.forEach((output, i) => { output.textContent = chart.resting[i]; });
}

const linked = (chart) => (chart.data.labels ? [chart] : figures.filter((other) => !other.data.labels));

figures.forEach((chart) => {
  const xs = [...new Set(chart.data.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  let current = xs.length - 1;
  const choose = (index) => {
    current = Math.max(0, Math.min(xs.length - 1, index));
    linked(chart).forEach((other) => show(other, xs[current]));
  };
  chart.plot.addEventListener("pointermove", (event) => {
    const box = chart.plot.getBoundingClientRect();
    choose(nearest(xs, chart.data.x[0] + ((event.clientX - box.left) / box.width) * (chart.data.x[1] - chart.data.x[0])));
  });
  chart.plot.addEventListener("pointerleave", () => linked(chart).forEach(rest));
  chart.plot.addEventListener("blur", () => linked(chart).forEach(rest));
  chart.plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: xs.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(moves[event.key]);
  });
});

// Filters over samples and attempts.
document.querySelectorAll("section.filtered").forEach((section) => {
  const cards = [...section.querySelectorAll("article")];
  const kinds = [...section.querySelectorAll("[data-show]")];
  const slider = section.querySelector("input[type=range]");
  const every = section.querySelector("[data-every]");
  const more = section.querySelector(".more button");
  const none = section.querySelector(".none");
  const steps = slider ? slider.dataset.steps.split(",") : [];
  const most = Number(section.dataset.most) || Infinity;
  let kind = "", unfolded = false;

  function apply() {
    const all = !slider || every.getAttribute("aria-pressed") === "true";
    const fitting = cards.filter((card) => (!kind || card.dataset.kind === kind) && (all || card.dataset.step === steps[slider.value]));
    cards.forEach((card) => { card.hidden = true; });
    fitting.forEach((card, i) => { card.hidden = !unfolded && i >= most; });
    if (slider) section.querySelector(".slider output").textContent = all ? "all" : steps[slider.value];
    if (more) {
      more.hidden = unfolded || fitting.length <= most;
      more.textContent = "Show all " + fitting.length;
    }
    if (none) none.hidden = fitting.length > 0;
  }
  kinds.forEach((button) => button.addEventListener("click", () => {
    kind = button.dataset.show;
    kinds.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    apply();
  }));
  if (slider) {
    slider.addEventListener("input", () => { every.setAttribute("aria-pressed", "false"); apply(); });
    every.addEventListener("click", () => { every.setAttribute("aria-pressed", String(every.getAttribute("aria-pressed") !== "true")); apply(); });
  }
  if (more) more.addEventListener("click", () => { unfolded = true; apply(); });
  apply();
});

// Paper cannot be unfolded: print what is folded, except the long tables.
addEventListener("beforeprint", () => document.querySelectorAll("#curves details").forEach((part) => { part.open = true; }));
