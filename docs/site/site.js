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
  choose(location.hash.slice(1));
});
