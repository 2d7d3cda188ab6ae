"use strict";
// The budget explorer: what each method scores within the limits that the sliders say, and what lies on the front.
(() => {
  const root = document.getElementById("budget-explorer");
  if (!root) return;
  const { resources, groups } = JSON.parse(document.getElementById("page-data").textContent).budget;
  const at = (id) => document.getElementById(id);
  const TOP = 1000; // the last place of a slider: no limit
  const SVG = "http://www.w3.org/2000/svg";

  const made = (tag, attributes = {}, ...content) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...content);
    return node;
  };
  const drawn = (tag, attributes = {}, text = "") => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    return node;
  };

  // ------------------------------------------------------------------------------------------------- numbers
  const three = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
  const scaled = (value, step, names) => {
    let power = 0;
    for (; Math.abs(value) >= 999.5 && power < names.length - 1; power += 1) value /= step;
    return `${three(value)} ${names[power]}`.trim();
  };
  const SAY = {
    count: (value) => (value < 1e6 ? Math.round(value).toLocaleString("en") : scaled(value, 1000, ["", "k", "M", "B", "T"])),
    bytes: (value) => scaled(value, 1000, ["B", "kB", "MB", "GB", "TB"]),
    flops: (value) => scaled(value, 1000, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"]),
    seconds: (value) => (value > 0 && value < 0.1 ? `${three(1000 * value)} ms` : value >= 120 ? `${three(value / 60)} min` : `${three(value)} s`),
  };
  const number = (value) => (Math.abs(value) < 10 ? value.toFixed(3) : String(Number(value.toPrecision(4))));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = (values) => {
    if (values.length < 2) return null;
    const middle = mean(values);
    return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
  };

  // ------------------------------------------------------------------------------------------------- the budget
  let group = groups[0];
  let limits = {}; // by resource; a resource without a limit is not in it
  let ranges = {};

  const rangeOf = (resource) => {
    const stairs = group.cells.flatMap((cell) => (resource.spent ? cell.stairs[resource.spent] : []));
    const totals = group.cells.map((cell) => cell.costs[resource.key]).filter((cost) => cost !== null);
    const costs = [...totals, ...stairs.flatMap(([steps]) => steps)];
    const positive = costs.filter((cost) => cost > 0);
    if (!positive.length) return null;
    return { low: Math.min(...positive), high: Math.max(...positive), zero: !resource.spent && totals.includes(0) };
  };
  // The first place stands for 0 where a method costs nothing; the last but one is the highest cost.
  const valueAt = ({ low, high, zero }, place) => {
    if (zero && place === 0) return 0;
    return low * (high / low) ** (place / (TOP - 1));
  };
  const isTraining = (resource) => resource.spent && resource.key in limits;

  // The best score of a run within every limit on training: the worst of what each limit alone allows, as all of them
  // rise with the steps.
  const within = (cell) => {
    const limiting = resources.filter(isTraining);
    if (!limiting.length) return { mean: cell.score, std: cell.std, n: cell.n };
    const better = group.higher ? Math.min : Math.max;
    let scores = null;
    for (const { spent, key } of limiting) {
      const stairs = cell.stairs[spent];
      if (!stairs.length) return { why: `${spent === "flops" ? "FLOPs" : "time"} of its curve not measured` };
      const reached = stairs.map(([costs, values]) => {
        let found = null;
        costs.forEach((cost, i) => { if (cost <= limits[key] * (1 + 1e-9)) found = values[i]; });
        return found;
      });
      if (reached.includes(null)) return { why: "not evaluated so early" };
      scores = scores === null ? reached : scores.map((score, i) => better(score, reached[i]));
    }
    return { mean: mean(scores), std: deviation(scores), n: scores.length };
  };
  const judged = (cell) => {
    for (const { key, title, spent } of resources) {
      if (spent || !(key in limits)) continue;
      const cost = cell.costs[key];
      if (cost === null) return { cell, why: `${title.toLowerCase()} not measured` };
      if (cost > limits[key] * (1 + 1e-9)) return { cell, why: `over: ${title.toLowerCase()}` };
    }
    const score = within(cell);
    return score.mean === null ? { cell, why: "score undefined" } : { cell, ...score };
  };
  const costAt = (cell, resource) => {
    const cost = cell.costs[resource.key];
    return cost !== null && isTraining(resource) ? Math.min(cost, limits[resource.key]) : cost;
  };
  const isBetter = (a, b) => (group.higher ? a > b : a < b);
  // Methods that none beats at their cost or less.
  const frontOf = (fitting, resource) => {
    const known = fitting.filter(({ cell }) => costAt(cell, resource) !== null);
    known.sort((a, b) => costAt(a.cell, resource) - costAt(b.cell, resource) || (isBetter(a.mean, b.mean) ? -1 : 1));
    const front = [];
    for (const one of known) if (!front.length || isBetter(one.mean, front[front.length - 1].mean)) front.push(one);
    return front;
  };

  // ------------------------------------------------------------------------------------------------- the sliders
  const sliders = () => {
    const place = at("budget-sliders");
    place.replaceChildren();
    ranges = {};
    limits = {};
    for (const resource of resources) {
      const range = rangeOf(resource);
      const id = `budget-${resource.key}`;
      const said = made("output", { for: id, id: `${id}-said` }, range ? "no limit" : "not measured");
      const head = made("div", { class: "slider-head" }, made("label", { for: id }, resource.title), said);
      const input = made("input", { type: "range", id, min: 0, max: TOP, step: 1, value: TOP });
      input.value = TOP;
      input.disabled = !range;
      place.append(made("div", { class: range ? "slider" : "slider unknown" }, head, input));
      if (!range) continue;
      ranges[resource.key] = range;
      const told = () => {
        const position = Number(input.value);
        if (position === TOP) delete limits[resource.key];
        else limits[resource.key] = valueAt(range, position);
        const text = position === TOP ? "no limit" : `≤ ${SAY[resource.unit](limits[resource.key])}`;
        said.textContent = text;
        input.setAttribute("aria-valuetext", text);
        input.style.setProperty("--filled", `${(100 * position) / TOP}%`);
      };
      input.addEventListener("input", () => { told(); update(); });
      told();
    }
    const reset = made("button", { type: "button", class: "quiet", id: "budget-reset" }, "No limits");
    reset.addEventListener("click", () => { sliders(); update(); at("budget-reset").focus(); });
    place.append(reset);
  };

  // ------------------------------------------------------------------------------------------------- words and table
  const scoreText = ({ mean: middle, std, n }) =>
    `${number(middle)}${std === null ? (n > 1 ? "" : " (n=1)") : ` ± ${std > 0 && std < 0.0005 ? "<0.001" : number(std)}`}`;
  const verdict = (fitting) => {
    const place = at("budget-answer");
    if (!fitting.length) {
      place.replaceChildren("No method fits this budget.");
      return;
    }
    const [best] = fitting;
    const training = resources.some(isTraining);
    const limited = Object.keys(limits).length > 0;
    const rows = training ? "selection rows" : `${group.set} rows`;
    place.replaceChildren(
      limited ? "Within this budget " : "Without limits ", made("strong", {}, best.cell.label), " scores best: ",
      made("span", { class: "figure" }, `${group.metric} ${scoreText(best)}`), ` on the ${rows}. `,
      made("span", { class: "aside" }, `${fitting.length} of ${group.cells.length} methods fit.`),
    );
  };
  const lines = (fitting, rest, front) => {
    const onFront = new Set(front.map(({ cell }) => cell));
    const line = (one, fits) => {
      const { cell } = one;
      const key = made("span", { class: "key", "aria-hidden": "true" });
      key.style.setProperty("--key", cell.colour);
      const mark = onFront.has(cell) ? made("span", { class: "front", title: "on the Pareto front" }, "front") : "";
      const row = made("tr", fits ? {} : { class: "out" }, made("th", { scope: "row" }, key, cell.label, mark));
      row.append(made("td", { class: "number" }, fits ? scoreText(one) : one.why));
      for (const resource of resources) {
        const cost = costAt(cell, resource);
        const over = !fits && resource.key in limits && !resource.spent && cost !== null && cost > limits[resource.key];
        const text = cost === null ? "not measured" : SAY[resource.unit](cost);
        row.append(made("td", { class: `number${over ? " problem" : ""}${cost === null ? " unknown" : ""}` }, text));
      }
      return row;
    };
    at("budget-lines").replaceChildren(
      ...fitting.map((one) => line(one, true)), ...rest.map((one) => line(one, false)),
    );
  };

  // ------------------------------------------------------------------------------------------------- the plot
  const SHAPES = {
    circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
    square: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}Z`,
    "triangle-up": (r) => `M0,${-r * 1.2}L${r * 1.15},${r * 0.9}H${-r * 1.15}Z`,
    diamond: (r) => `M0,${-r * 1.3}L${r * 1.3},0L0,${r * 1.3}L${-r * 1.3},0Z`,
    cross: (r) => `M${-r / 2.6},${-r * 1.1}h${r / 1.3}v${r * 0.72}h${r * 0.72}v${r / 1.3}h${-r * 0.72}v${r * 0.72}h${-r / 1.3}v${-r * 0.72}h${-r * 0.72}v${-r / 1.3}h${r * 0.72}Z`,
    "triangle-down": (r) => `M0,${r * 1.2}L${r * 1.15},${-r * 0.9}H${-r * 1.15}Z`,
    "triangle-right": (r) => `M${r * 1.2},0L${-r * 0.9},${r * 1.15}V${-r * 1.15}Z`,
    "triangle-left": (r) => `M${-r * 1.2},0L${r * 0.9},${r * 1.15}V${-r * 1.15}Z`,
  };
  const ticksOf = (low, high, count) => {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(tick);
    return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  };
  const xAxis = (costs, limit) => {
    const all = limit === undefined ? costs : [...costs, limit];
    const positive = all.filter((cost) => cost > 0);
    if (!positive.length) return null;
    const zero = all.includes(0);
    const [low, high] = [Math.min(...positive), Math.max(...positive)];
    if (!zero && high / low < 20) {
      const top = high * 1.06;
      return { place: (cost) => cost / top, ticks: ticksOf(0, top, 5).found };
    }
    const [first, last] = [Math.floor(Math.log10(low)) - (zero ? 1 : 0), Math.ceil(Math.log10(high * 1.001))];
    const every = Math.max(1, Math.ceil((last - first) / 6));
    const ticks = [];
    for (let e = first + (zero ? 1 : 0); e <= last; e += every) ticks.push(10 ** e);
    if (zero) ticks.unshift(0);
    const pad = 0.03;
    return {
      place: (cost) => pad + ((1 - 2 * pad) * ((cost > 0 ? Math.log10(cost) : first) - first)) / (last - first || 1),
      ticks,
    };
  };
  const labelled = (points, width, height) => {
    const boxes = points.map(({ x, y, bar }) => [x - 7, y - Math.max(7, bar), x + 7, y + Math.max(7, bar)]);
    const PLACES = [[8, -9, "start"], [10, 4, "start"], [-10, 4, "end"], [0, -12, "middle"], [0, 20, "middle"], [9, 17, "start"], [-9, -9, "end"], [-9, 17, "end"]];
    return points.map(({ x, y, text }, own) => {
      const wide = 6.8 * text.length;
      const options = PLACES.map(([dx, dy, anchor], rank) => {
        const left = x + dx - { start: 0, end: wide, middle: wide / 2 }[anchor];
        const box = [left, y + dy - 11, left + wide, y + dy + 3];
        const covered = boxes.reduce((sum, b, i) => {
          const w = Math.min(box[2], b[2]) - Math.max(box[0], b[0]);
          const h = Math.min(box[3], b[3]) - Math.max(box[1], b[1]);
          return sum + (i !== own && w > 0 && h > 0 ? w * h : 0);
        }, 0);
        const outside = Math.max(0, -box[0]) + Math.max(0, box[2] - width) + Math.max(0, -box[1]) + Math.max(0, box[3] - height);
        return { dx, dy, anchor, box, cost: covered + 20 * outside + rank * 0.1 };
      });
      const best = options.reduce((a, b) => (b.cost < a.cost ? b : a));
      boxes.push(best.box);
      return best;
    });
  };

  const plot = (fitting, rest, front, resource) => {
    const place = at("budget-plot");
    place.replaceChildren();
    const shown = [...fitting, ...rest.map(({ cell }) => ({ cell, mean: cell.score, std: cell.std, n: cell.n, faded: true }))]
      .filter((one) => one.mean !== null && costAt(one.cell, resource) !== null);
    if (!shown.length) {
      place.append(made("p", { class: "empty" }, `${resource.title}: not measured in this study.`));
      place.setAttribute("aria-label", `${resource.title} was not measured.`);
      return;
    }
    const [wide, high] = [Math.max(280, place.clientWidth), 340];
    const edge = { left: 52, right: 14, top: 12, bottom: 46 };
    const [w, h] = [wide - edge.left - edge.right, high - edge.top - edge.bottom];
    const axis = xAxis(shown.map(({ cell }) => costAt(cell, resource)), limits[resource.key]);
    const spread = shown.flatMap(({ mean: m, std }) => [m - (std ?? 0), m + (std ?? 0)]);
    let [low, top] = [Math.min(...spread), Math.max(...spread)];
    const span = top - low || Math.abs(top) * 0.1 || 1;
    const inReach = group.baselines.filter(({ value }) => value > low - 0.6 * span && value < top + 0.6 * span);
    low = Math.min(low, ...inReach.map(({ value }) => value)) - 0.1 * span;
    top = Math.max(top, ...inReach.map(({ value }) => value)) + 0.1 * span;
    const X = (cost) => edge.left + w * (axis ? axis.place(cost) : 0.5);
    const Y = (score) => edge.top + h * (1 - (score - low) / (top - low));
    const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, "aria-hidden": "true" });
    const { found, digits } = ticksOf(low, top, 5);
    for (const tick of found) {
      svg.append(drawn("line", { class: "grid", x1: edge.left, x2: edge.left + w, y1: Y(tick), y2: Y(tick) }));
      svg.append(drawn("text", { class: "tick", x: edge.left - 8, y: Y(tick) + 4, "text-anchor": "end" }, tick.toFixed(digits)));
    }
    for (const tick of axis?.ticks ?? []) {
      const text = tick === 0 ? "0" : SAY[resource.unit](tick);
      svg.append(drawn("text", { class: "tick", x: X(tick), y: edge.top + h + 19, "text-anchor": "middle" }, text));
    }
    const isLog = axis && resource && axis.ticks.length > 1 && axis.ticks[axis.ticks.length - 1] / (axis.ticks[1] || 1) >= 10;
    svg.append(drawn("text", { class: "title", x: edge.left + w / 2, y: high - 6, "text-anchor": "middle" }, `${resource.title.toLowerCase()}${isLog ? " (log scale)" : ""}`));
    if (resource.key in limits) {
      const x = Math.min(X(limits[resource.key]), edge.left + w);
      svg.append(drawn("rect", { class: "beyond", x, y: edge.top, width: edge.left + w - x, height: h }));
      svg.append(drawn("line", { class: "limit", x1: x, x2: x, y1: edge.top, y2: edge.top + h }));
    }
    for (const { name, value } of inReach) {
      svg.append(drawn("line", { class: "baseline", x1: edge.left, x2: edge.left + w, y1: Y(value), y2: Y(value) }));
      svg.append(drawn("text", { class: "tick", x: edge.left + w, y: Y(value) - 5, "text-anchor": "end" }, name));
    }
    if (front.length) {
      let path = "";
      front.forEach((one, i) => {
        const [x, y] = [X(costAt(one.cell, resource)), Y(one.mean)];
        path += i ? `H${x}V${y}` : `M${x},${y}`;
      });
      svg.append(drawn("path", { class: "front-line", d: `${path}H${edge.left + w}` }));
    }
    const points = shown.map((one) => ({
      x: X(costAt(one.cell, resource)), y: Y(one.mean), bar: one.std ? Math.abs(Y(one.mean + one.std) - Y(one.mean)) : 0, text: one.cell.label,
    }));
    const places = labelled(points.map((p) => ({ ...p, x: p.x - edge.left, y: p.y - edge.top })), w, h);
    shown.forEach((one, i) => {
      const { x, y, bar, text } = points[i];
      const mark = drawn("g", { class: one.faded ? "point faded" : "point" });
      if (bar) mark.append(drawn("line", { x1: x, x2: x, y1: y - bar, y2: y + bar, stroke: one.cell.colour, "stroke-width": 1.5 }));
      mark.append(drawn("path", { d: SHAPES[one.cell.shape](5.5), transform: `translate(${x},${y})`, fill: one.cell.colour }));
      mark.append(drawn("text", { class: "name", x: x + places[i].dx, y: y + places[i].dy, "text-anchor": places[i].anchor }, text));
      mark.append(drawn("title", {}, `${text}: ${scoreText(one)}, ${SAY[resource.unit](costAt(one.cell, resource))}`));
      svg.append(mark);
    });
    place.append(svg);
    place.setAttribute("aria-label", `${group.metric} against ${resource.title.toLowerCase()}. On the Pareto front: ${front.map(({ cell }) => cell.label).join(", ") || "none"}. The table below has the numbers.`);
    const outside = group.baselines.map(({ name, value, meaning }) => `${name} ${number(value)} (${meaning})`);
    at("budget-baselines").textContent = outside.length ? `To beat: ${outside.join("; ")}.` : "";
  };

  // ------------------------------------------------------------------------------------------------- together
  const update = () => {
    const judgements = group.cells.map(judged);
    const fitting = judgements.filter(({ why }) => why === undefined);
    fitting.sort((a, b) => (isBetter(a.mean, b.mean) ? -1 : isBetter(b.mean, a.mean) ? 1 : 0));
    const rest = judgements.filter(({ why }) => why !== undefined);
    const resource = resources.find(({ key }) => key === at("budget-axis").value);
    const front = frontOf(fitting, resource);
    verdict(fitting);
    lines(fitting, rest, front);
    plot(fitting, rest, front, resource);
    const clock = group.machines > 1 ? ` Time and memory are those of one machine of ${group.machines}: ${group.machine}.` : "";
    const basis = resources.some(isTraining)
      ? "Scores are on the selection rows, the best up to the budget, mean over seeds: only they are known during training."
      : `Scores are on the ${group.set} rows, mean ± one sample standard deviation over seeds. A limit on FLOPs or time shows the selection rows instead, as only they are known during training.`;
    at("budget-note").textContent = `${basis}${clock}`;
  };
  at("budget-axis").addEventListener("change", update);
  at("budget-group")?.addEventListener("change", (event) => { group = groups[Number(event.target.value)]; sliders(); update(); });
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (Math.round(entry.contentRect.width) !== width) { width = Math.round(entry.contentRect.width); update(); }
  }).observe(at("budget-plot"));
  sliders();
  const first = resources.find(({ key }) => ranges[key]);
  if (first) at("budget-axis").value = first.key;
  update();
})();
