"use strict";
// Where two runs disagree, with the rows' texts, and which classes are taken for which.
(() => {
  const root = document.getElementById("rows-explorer");
  if (!root) return;
  const groups = JSON.parse(document.getElementById("page-data").textContent).rows;
  const at = (id) => document.getElementById(id);
  const MOST = 50; // rows at once
  const made = (tag, attributes = {}, ...content) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...content);
    return node;
  };
  let group = groups[0];
  let most = MOST;

  const named = (answer) => (group.kind !== "class" ? String(answer) : answer < 0 ? "no usable answer" : group.labels[answer] ?? String(answer));
  const KINDS = [
    ["differ", "all rows they differ on"], ["first", "rows only the first has right"],
    ["second", "rows only the second has right"], ["both", "rows both have wrong"],
  ];

  const choose = () => {
    const options = () => group.runs.map((run, i) => made("option", { value: i }, run.label));
    const best = Math.max(0, group.runs.findIndex((run) => run.cell !== group.runs[0].cell));
    at("rows-first").replaceChildren(...options());
    at("rows-second").replaceChildren(...options());
    at("rows-second").value = String(best);
    const kinds = group.kind === "class" ? KINDS : KINDS.slice(0, 1);
    at("rows-kind").replaceChildren(...kinds.map(([value, text]) => made("option", { value }, text)));
  };

  const given = (answer, gold) => {
    if (group.kind !== "class") return made("td", { class: group.kind === "number" ? "number" : "text" }, named(answer));
    const right = answer === gold;
    const mark = made("span", { class: "mark", "aria-hidden": "true" }, right ? "✓" : "✗");
    return made("td", { class: right ? "right" : "wrong" }, mark, named(answer), made("span", { class: "unseen" }, right ? " (right)" : " (wrong)"));
  };

  const compare = () => {
    const [first, second] = [group.runs[Number(at("rows-first").value)], group.runs[Number(at("rows-second").value)]];
    const kind = at("rows-kind").value;
    const counts = { both: 0, first: 0, second: 0, neither: 0, differ: 0 };
    const rows = [];
    group.gold.forEach((gold, i) => {
      const [a, b] = [first.answers[i], second.answers[i]];
      const [x, y] = [a === gold, b === gold];
      counts[x && y ? "both" : x ? "first" : y ? "second" : "neither"] += 1;
      const differ = a !== b;
      if (differ) counts.differ += 1;
      const wanted = kind === "differ" ? differ : kind === "first" ? x && !y : kind === "second" ? y && !x : !x && !y;
      if (wanted) rows.push(i);
    });
    if (group.kind === "number") rows.sort((i, j) => Math.abs(first.answers[j] - second.answers[j]) - Math.abs(first.answers[i] - second.answers[i]));
    else rows.sort((i, j) => (String(i) in group.texts ? 0 : 1) - (String(j) in group.texts ? 0 : 1) || i - j);
    const said = (n) => n.toLocaleString("en");
    at("rows-tally").textContent = `They differ on ${said(counts.differ)} of ${said(group.total)} ${group.set} rows.${
      group.kind === "class" ? ` Both right ${said(counts.both)}, only ${first.label} ${said(counts.first)}, only ${second.label} ${said(counts.second)}, both wrong ${said(counts.neither)}.` : ""}`;
    show(rows, first, second);
  };
  const show = (rows, first, second) => {
    const place = at("rows-table");
    if (!rows.length) { place.replaceChildren(made("p", { class: "notes" }, "No such row.")); return; }
    const head = ["row", "text", "right answer", first.label, second.label].map((title) => made("th", { scope: "col" }, title));
    const body = rows.slice(0, most).map((i) => {
      const text = group.texts[i];
      return made("tr", {},
        made("th", { scope: "row" }, group.ids[i]),
        made("td", { class: text === undefined ? "unknown" : "text" }, text === undefined ? "not on this page" : text.replace("\t", "\n")),
        made("td", {}, named(group.gold[i])), given(first.answers[i], group.gold[i]), given(second.answers[i], group.gold[i]));
    });
    const table = made("table", { class: "answers" }, made("thead", {}, made("tr", {}, ...head)), made("tbody", {}, ...body));
    const frame = made("div", { class: "scroll tall", role: "region", tabindex: "0", "aria-label": "Rows and the two answers" }, table);
    place.replaceChildren(frame);
    if (rows.length > most) {
      const more = made("button", { type: "button", class: "quiet" }, `Show ${Math.min(MOST, rows.length - most)} more of ${rows.length - most}`);
      more.addEventListener("click", () => { most += MOST; compare(); });
      place.append(made("p", {}, more));
    }
  };

  const matrices = () => {
    const place = at("rows-matrices");
    place.replaceChildren();
    if (!group.matrices.length) return;
    const select = made("select", {}, ...group.matrices.map(({ cell }, i) => made("option", { value: i }, cell)));
    const frame = made("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Confusion matrix" });
    const draw = () => {
      const { counts, runs } = group.matrices[Number(select.value)];
      const unusable = counts.some((row) => row[row.length - 1] > 0);
      const classes = counts.map((_, i) => group.labels[i] ?? String(i));
      const columns = unusable ? [...classes, "no usable answer"] : classes;
      const head = made("tr", {}, made("th", { scope: "col" }, "right ↓ given →"), ...columns.map((name) => made("th", { scope: "col" }, name)));
      const body = counts.map((row, i) => {
        const total = row.reduce((a, b) => a + b, 0);
        const cells = row.slice(0, columns.length).map((count, j) => {
          const cell = made("td", i === j ? { class: "diagonal" } : {}, String(count));
          cell.style.setProperty("--share", `${total ? Math.round((60 * count) / total) : 0}%`);
          if (total) cell.title = `${((100 * count) / total).toFixed(1)} % of ${classes[i]}`;
          return cell;
        });
        return made("tr", {}, made("th", { scope: "row" }, classes[i]), ...cells);
      });
      const caption = made("caption", {}, `Rows of each right class by the class given${runs > 1 ? `, sum over ${runs} runs` : ""}.`);
      frame.replaceChildren(made("table", { class: "matrix" }, caption, made("thead", {}, head), made("tbody", {}, ...body)));
    };
    select.addEventListener("change", draw);
    place.append(made("h3", {}, "Which classes are taken for which"),
      made("div", { class: "choosers" }, made("label", { class: "chooser" }, "Method ", select)), frame);
    draw();
  };

  const again = () => { most = MOST; compare(); };
  for (const id of ["rows-first", "rows-second", "rows-kind"]) at(id).addEventListener("change", again);
  at("rows-group")?.addEventListener("change", (event) => { group = groups[Number(event.target.value)]; choose(); again(); matrices(); });
  choose();
  compare();
  matrices();
})();
