// Rows of a part of a table, without the group's heading.
const rowsOf = (body) => [...body.rows].filter((row) => !row.classList.contains("group"));

// Makes the header cells of sortable tables into buttons; without scripts the page is complete.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];

  // The value a row has in a column; null, sorted last, where it has none of its own.
  const valueIn = (row, column, numeric) => {
    let start = 0;
    for (const cell of row.cells) {
      if (column < start + cell.colSpan) {
        if (!numeric) return cell.textContent.trim();
        return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
      }
      start += cell.colSpan;
    }
    return null;
  };

  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const button = document.createElement("button");
    button.append(...head.childNodes);
    // What the column means is told where the focus is.
    const about = head.getAttribute("aria-describedby");
    if (about) button.setAttribute("aria-describedby", about);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = numeric ? "descending" : "ascending";
      const other = before === "ascending" ? "descending" : "ascending";
      const order = before === null ? first : other;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      // Rows stay in their groups, which do not compare.
      for (const body of table.tBodies) {
        const rows = rowsOf(body).map((row) => [valueIn(row, column, numeric), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * (numeric ? a - b : a.localeCompare(b));
        });
        body.append(...rows.map(([, row]) => row));
      }
    });
  });
}

// The title above a table.
const nameOf = (table) => document.getElementById(
  table.closest(".scroll").getAttribute("aria-labelledby"),
)?.textContent;

// Puts a text filter and, where rows have regimes, a choice of regime above filterable tables.
for (const table of document.querySelectorAll("table.filterable")) {
  const rows = [...table.tBodies].flatMap(rowsOf);
  const words = build("input", { type: "search", autocomplete: "off" });
  const kinds = [...new Set(rows.map((row) => row.dataset.regime).filter(Boolean))];
  const choices = ["all", ...kinds].map((kind) => build("option", { value: kind }, kind));
  const regime = build("select", {}, ...choices);
  const count = build("output", {});

  const update = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word));
      row.hidden = !fits || (regime.value !== "all" && regime.value !== row.dataset.regime);
    }
    for (const body of table.tBodies) body.hidden = rowsOf(body).every((row) => row.hidden);
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
  };
  words.addEventListener("input", update);
  regime.addEventListener("change", update);
  // Several landmarks of one kind need names of their own.
  const titles = [table.closest("section").querySelector("h2").textContent, nameOf(table)];
  const name = `Filter ${titles.filter(Boolean).join(", ")}`;
  const bar = build("div", { class: "filter", role: "search", "aria-label": name }, labelled("Filter rows", words));
  if (kinds.length > 1) bar.append(labelled("Label regime", regime));
  bar.append(count);
  table.closest(".scroll").before(bar);
}
