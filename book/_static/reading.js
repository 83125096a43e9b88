// What the line below a page's title does, and boxes that the keyboard can scroll. Without this script all text is there.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const code = [...document.querySelectorAll("details.hide")];
  for (const button of document.querySelectorAll(".show-code")) {
    button.hidden = code.length === 0;
    button.addEventListener("click", () => {
      const show = button.textContent === "Show all code";
      code.forEach((part) => { part.open = show; });
      button.textContent = show ? "Hide all code" : "Show all code";
    });
  }
  for (const button of document.querySelectorAll(".print-page")) {
    button.hidden = false;
    button.addEventListener("click", () => window.print());
  }

  // The theme would call this from within the HTML, which the page's policy forbids.
  for (const button of document.querySelectorAll(".btn-fullscreen-button")) button.addEventListener("click", () => toggleFullScreen());

  // A box that scrolls can be reached by the tab key, one that does not is no stop on the way.
  const boxes = [...document.querySelectorAll(".picture, .pst-scrollable-table-container, .cell_output .text_html, div.math, .run-box pre")];
  const stops = () => boxes.forEach((box) => {
    const more = box.scrollWidth > box.clientWidth + 4;  // the mark at its edge is 4 pixels wide
    box.classList.toggle("scrolls", more);
    if (more) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  const sizes = new ResizeObserver(stops);
  boxes.forEach((box) => sizes.observe(box));  // also when something is unfolded, or a sidebar comes and goes
  addEventListener("load", stops);

  // The definition of a word goes away on Escape, also where the pointer still is.
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll(".word:is(:hover, :focus-within)").forEach((word) => word.classList.add("closed"));
  });
  for (const word of document.querySelectorAll(".word")) {
    for (const event of ["mouseleave", "focusout"]) word.addEventListener(event, () => word.classList.remove("closed"));
  }
});
