const buttons = [...document.querySelectorAll("button[data-show]")];
const items = [...document.querySelectorAll("article")];
for (const button of buttons) {
  button.addEventListener("click", () => {
    const wanted = button.dataset.show;
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    for (const item of items) {
      item.hidden = wanted !== "all" && !item.dataset.is.split(" ").includes(wanted);
    }
  });
}
