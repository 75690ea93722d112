(function sorting() {
  const headings = all("table.runs thead th");
  const body = document.querySelector("table.runs tbody");
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const numeric = heading.dataset.kind === "number";
      const key = (row) => (numeric ? row.children[column].dataset.value : row.children[column].textContent);
      const sign = descending ? -1 : 1;
      const rows = [...body.rows].sort((one, other) => {
        const [x, y] = [key(one), key(other)];
        // Runs without the figure stay at the end, whichever way it is sorted.
        if (numeric) return (x === "") - (y === "") || sign * (x - y);
        return sign * x.localeCompare(y, "en", { numeric: true });
      });
      body.append(...rows);
    });
  });
})();
