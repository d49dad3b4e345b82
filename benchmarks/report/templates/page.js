"use strict";
{
  const missing = (value) => value === null || Number.isNaN(value);

  /* Numbers by their value, missing ones last in either direction; texts as people order them. */
  const sortRows = (table, column, descending) => {
    const numeric = table.tHead.rows[0].cells[column].classList.contains("number");
    const key = (row) => {
      const cell = row.cells[column];
      if (!numeric) return cell.textContent.trim();
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    const sign = descending ? -1 : 1;
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return sign * (a - b);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        // The highest number first, and texts from a to z.
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        const now = before === first ? other : first;
        heads.forEach((each) => each.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", now);
        sortRows(table, column, now === "descending");
      });
    });
  }

  for (const form of document.querySelectorAll("form.filters")) {
    const table = document.getElementById(form.dataset.for);
    const search = form.querySelector("[data-search]");
    const choices = [...form.querySelectorAll("select")];
    const textOf = (cell) => (cell.querySelector("span") ?? cell).textContent.trim();
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = [...table.tBodies[0].rows];
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits =
          words.every((word) => text.includes(word)) &&
          choices.every((each) => !each.value || textOf(row.cells[Number(each.dataset.column)]) === each.value);
        row.hidden = !fits;
        shown += fits;
      }
      form.querySelector("output").textContent =
        shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
    };
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  /* Vega fills a chart's legend and marks with names from the data: as text, never as markup. */
  const views = new Map();
  const draw = async (place) => {
    const specification = JSON.parse(document.getElementById(place.dataset.specification).textContent);
    const { view } = await vegaEmbed(place, specification, {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
      logLevel: 1, // errors; Vega warns of each panel that has no doubted figure
    });
    views.set(place, view);
    hideEmpty(place);
  };
  /* Vega announces a layer without marks as a picture without a name. */
  const hideEmpty = (place) => {
    for (const layer of place.querySelectorAll("g[role=graphics-symbol]:empty")) layer.ariaHidden = "true";
  };
  const drawAll = async () => {
    for (const place of document.querySelectorAll(".chart")) await draw(place);
    document.documentElement.dataset.drawn = String(views.size);
  };

  for (const choice of document.querySelectorAll("select[data-group]")) {
    choice.addEventListener("change", async () => {
      const places = document.querySelectorAll(`#group-${choice.dataset.group} .chart`);
      for (const place of places) {
        await views.get(place)?.signal("chosen", choice.value).runAsync();
        hideEmpty(place);
      }
    });
  }

  if (window.vegaEmbed) drawAll();
}
