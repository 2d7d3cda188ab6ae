"use strict";
// Draws the charts that are in sight, sorts tables and filters the list of runs.
// Everything shown comes from the JSON block of the page and from markup that was escaped when it was written.
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // A specification with its rows of data, which the page keeps once for all charts that share them.
  const filled = (part) => {
    if (Array.isArray(part)) return part.map(filled);
    if (part === null || typeof part !== "object") return part;
    if (typeof part.table === "number") {
      const { columns, rows } = data.tables[part.table];
      const { table, ...rest } = part;
      return { ...rest, values: rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]]))) };
    }
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, filled(value)]));
  };

  const draw = (place) => {
    const theme = dark.matches ? "dark" : "light";
    if (place.dataset.drawn === theme) return;
    place.dataset.drawn = theme;
    vegaEmbed(place, filled(data.specs[Number(place.dataset.spec)]), {
      ast: true, // expressions are interpreted: the page's policy lets no text become code
      renderer: "svg",
      config: { ...data.config[theme], background: "transparent" },
      tooltip: { theme },
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: place.dataset.name,
    });
  };
  const near = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.isIntersecting && draw(entry.target)),
    { rootMargin: "600px" },
  );
  const places = [...document.querySelectorAll("[data-spec]")];
  places.forEach((place) => near.observe(place));
  dark.addEventListener("change", () => places.filter((place) => place.dataset.drawn).forEach(draw));
  window.addEventListener("beforeprint", () => places.filter((place) => place.offsetParent).forEach(draw));

  const chooser = document.getElementById("group");
  const choose = () => {
    for (const group of document.querySelectorAll(".charts[data-group]")) {
      group.hidden = chooser !== null && group.dataset.group !== chooser.value;
    }
  };
  chooser?.addEventListener("change", choose);
  choose();
  for (const select of document.querySelectorAll("select.choices")) {
    const choices = [...select.closest("figure").querySelectorAll("[data-choice]")];
    const show = () => choices.forEach((choice) => { choice.hidden = choice.dataset.choice !== select.value; });
    select.addEventListener("change", show);
    show();
  }

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
    body.append(...[...body.rows].sort((a, b) => (ascending ? compare(a, b) : compare(b, a))));
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
