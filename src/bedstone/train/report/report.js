// The plots work without this: each value has its own hover text. This shows the text at once, and on a touch screen.
for (const figure of document.querySelectorAll("figure")) {
  const readout = figure.querySelector(".readout");
  const idle = "Point at the plot to read its values.";
  readout.textContent = idle;
  figure.addEventListener("pointerover", (event) => {
    const strip = event.target.closest(".at");
    if (strip) readout.textContent = strip.querySelector("title").textContent;
  });
  figure.addEventListener("pointerleave", () => { readout.textContent = idle; });
}
// Paper cannot unfold what is folded.
addEventListener("beforeprint", () => { for (const folded of document.querySelectorAll("details")) folded.open = true; });
