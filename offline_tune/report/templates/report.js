"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = read("figure-data");
const dark = matchMedia("(prefers-color-scheme: dark)");

function theme(printing) {
  const light = printing || !dark.matches;
  return light ? { text: "#1c232c", grid: "#e3e7ec", paper: "#ffffff" } : { text: "#d5dbe2", grid: "#2c343d", paper: "#1d232a" };
}

function layoutOf(figure, printing) {
  const colors = theme(printing);
  const axis = { gridcolor: colors.grid, zerolinecolor: colors.grid, linecolor: colors.grid, automargin: true };
  const base = {
    height: figure.height, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colors.text, family: 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif', size: 13 },
    margin: { t: 20, r: 20, b: 50, l: 60 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "#8b93a0", activecolor: colors.text },
    hoverlabel: { align: "left", bgcolor: colors.paper, bordercolor: colors.text, font: { color: colors.text, size: 12 } },
  };
  const layout = { ...base, ...structuredClone(figure.layout) };
  for (const name of ["xaxis", "yaxis"]) layout[name] = { ...axis, ...layout[name] };
  for (const label of layout.annotations || []) {
    label.bgcolor = label.textangle ? undefined : printing || !dark.matches ? "rgba(255,255,255,0.75)" : "rgba(20,24,29,0.75)";
    if (printing) label.font = { size: 8 };
  }
  if (printing) layout.width = 690;
  return layout;
}

function draw(printing = false) {
  for (const [key, figure] of Object.entries(figures)) {
    const place = document.getElementById("chart-" + key);
    if (!place) continue;
    const config = { responsive: !printing, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
    Plotly.react(place, structuredClone(figure.traces), layoutOf(figure, printing), config);
  }
}

function sortable(table) {
  const body = table.tBodies[0];
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
      const rank = (a, b) => (isNaN(a) || isNaN(b) || a === "" || b === "" ? a.localeCompare(b) : a - b);
      const rows = [...body.rows].sort((a, b) => rank(key(a), key(b)) * (up ? 1 : -1));
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function callElement(call) {
  const details = element("details");
  details.append(element("summary", `before trial ${call.first_trial}: ${call.answers.length} answers, ` +
    `${call.tokens_in} tokens in, ${call.tokens_out} out, ${(call.seconds ?? NaN).toFixed(2)} s`));
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const answers = call.answers.map((answer) => `${(answer.logprob ?? NaN).toFixed(2).padStart(9)}  ${answer.text}`).join("\n");
    details.append(element("h3", "Prompt"), element("pre", call.prompt));
    details.append(element("h3", "Answers, each after its log-probability"), element("pre", answers));
  });
  return details;
}

function laterCalls() {
  const button = document.getElementById("more-calls");
  if (!button) return;
  const calls = read("later-calls");
  let next = 0;
  button.hidden = false;
  button.addEventListener("click", () => {
    const part = calls.slice(next, next + 100);
    document.getElementById("calls").append(...part.map(callElement));
    next += part.length;
    button.hidden = next >= calls.length;
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);
laterCalls();
if (window.Plotly) {
  draw();
  dark.addEventListener("change", () => draw());
  addEventListener("beforeprint", () => draw(true));
  addEventListener("afterprint", () => draw());
}
