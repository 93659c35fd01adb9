// The list of all claims shows those of one verdict; the choice is kept in the address.
document.addEventListener("DOMContentLoaded", () => {
  const bar = document.getElementById("filter");
  if (!bar) return;
  const rows = [...document.querySelectorAll("table tbody tr")];
  const choose = (verdict) => {
    rows.forEach((row) => {
      row.hidden = Boolean(verdict) && !row.querySelector(`.verdict.${verdict}`);
    });
    bar.querySelectorAll("button").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
    });
    history.replaceState(null, "", verdict ? `#${verdict}` : location.pathname);
  };
  bar.addEventListener("click", (event) => {
    if (event.target.matches("button")) choose(event.target.dataset.verdict);
  });
  const asked = location.hash.slice(1);
  choose(bar.querySelector(`button[data-verdict="${CSS.escape(asked)}"]`) ? asked : "");
});

// A formula wider than its column is moved by hand; browsers do not break its line.
document.addEventListener("DOMContentLoaded", () => {
  const wide = [...document.querySelectorAll(".md-content math")].filter((formula) => {
    const column = formula.closest("td, li, p, dd, div");
    return formula.getBoundingClientRect().right > column.getBoundingClientRect().right + 1;
  });
  wide.forEach((formula) => {
    const frame = document.createElement("span");
    frame.className = "wide";
    formula.replaceWith(frame);
    frame.append(formula);
  });
});
