// What the theme does not tell those who listen: what a fold of the sidebar opens, and that parameters are a list.
document.addEventListener("DOMContentLoaded", () => {
  for (const fold of document.querySelectorAll("li.has-children > details > summary")) {
    fold.ariaLabel = `Pages below ${fold.closest("li").querySelector("a").textContent}`;
  }
  for (const list of document.querySelectorAll("dt.sig dl")) {
    list.role = "list";
    for (const one of list.children) one.role = "listitem";
  }
});
