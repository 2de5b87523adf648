// A field above each long table: rows without the typed words are hidden. Without JavaScript the whole table is there.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
    const rows = [...table.querySelectorAll("tbody tr")];
    if (rows.length < 30) continue;
    const field = document.createElement("input");
    const count = document.createElement("span");
    const bar = document.createElement("p");
    field.type = "search";
    field.placeholder = "filter rows";
    field.setAttribute("aria-label", "filter the rows of the table below");
    count.setAttribute("role", "status");
    bar.className = "row-filter";
    bar.append(field, count);
    (table.closest(".md-typeset__scrollwrap") || table).before(bar);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const update = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += !row.hidden;
      });
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    field.addEventListener("input", update);
    update();
  }
});
