"use strict";
// Draws the charts of the chosen task, sorts the table of results and filters the list of runs.
// Everything shown comes from the JSON block "charts" and from markup that was escaped when the page was written.
(() => {
  const data = JSON.parse(document.getElementById("charts-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const draw = (place) => {
    const theme = dark.matches ? "dark" : "light";
    if (place.dataset.drawn === theme) return;
    place.dataset.drawn = theme;
    vegaEmbed(place, data.specs[Number(place.dataset.spec)], {
      renderer: "svg",
      config: { ...data.config[theme], background: "transparent" },
      tooltip: { theme },
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: place.dataset.name,
    });
  };
  const drawVisible = () => {
    for (const group of document.querySelectorAll(".charts")) {
      if (!group.hidden) group.querySelectorAll("[data-spec]").forEach(draw);
    }
  };

  const chooser = document.getElementById("group");
  const choose = () => {
    for (const group of document.querySelectorAll(".charts")) {
      group.hidden = chooser !== null && group.dataset.group !== chooser.value;
    }
    drawVisible();
  };
  chooser?.addEventListener("change", choose);
  dark.addEventListener("change", drawVisible);
  choose();

  const sortBy = (header) => {
    const table = header.closest("table");
    const index = [...header.parentElement.children].indexOf(header);
    const ascending = header.getAttribute("aria-sort") === "descending";
    for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const key = (line) => line.children[index].dataset.value ?? line.children[index].textContent;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      const numbers = [Number(x), Number(y)];
      if (!numbers.some(Number.isNaN)) return numbers[0] - numbers[1];
      return x.localeCompare(y, undefined, { numeric: true });
    };
    const body = table.tBodies[0];
    const lines = [...body.rows].sort((a, b) => (ascending ? compare(a, b) : compare(b, a)));
    body.append(...lines);
  };
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }

  const words = document.getElementById("run-words");
  const status = document.getElementById("run-status");
  const shown = document.getElementById("runs-shown");
  const runs = [...document.querySelectorAll("details.run")];
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const run of runs) {
      const text = run.querySelector("summary").textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word)) && (!status.value || run.dataset.status === status.value);
      run.hidden = !fits;
      count += fits ? 1 : 0;
    }
    shown.textContent = `${count} of ${runs.length} runs`;
  };
  words?.addEventListener("input", filter);
  status?.addEventListener("change", filter);
})();
