(function beforeAndAfter() {
  for (const compare of all(".compare")) {
    const slider = compare.querySelector("input");
    slider.hidden = false;
    slider.addEventListener("input", () => compare.style.setProperty("--cut", `${slider.value}%`));
  }
  for (const button of all("button.against")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const large = data.pictures.directions[button.dataset.direction].large;
      const truth = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(truth));
      all(`.compares[data-direction=${button.dataset.direction}] .compare`).forEach((compare, i) => {
        const image = compare.querySelector(".before");
        image.dataset.alt ??= image.alt;
        image.src = truth ? large.truth[i] : large.input[i];
        image.alt = truth ? `The true picture for picture ${i + 1}` : image.dataset.alt;
        compare.querySelector(".tag.left").textContent = truth ? "true" : "input";
      });
    });
  }
})();

(function history() {
  if (!data.pictures) return;
  const { steps, directions } = data.pictures;
  const grid = byId("history-grid");
  const names = JSON.parse(grid.dataset.names);
  const headings = { input: "Input", output: "Translated", truth: "True picture", back: "Back again", identity: "Identity" };
  const slider = byId("history-slider");
  const play = byId("play");
  let direction = Object.keys(directions)[0];
  let moving = [];
  let timer = null;

  function show(index) {
    byId("history-step").textContent = steps[index].toLocaleString("en");
    slider.setAttribute("aria-valuetext", `step ${steps[index]}`);
    for (const { image, role, row } of moving) {
      image.src = directions[direction].moving[role][index][row];
      image.alt = `${names[direction]}, picture ${row + 1}, ${headings[role].toLowerCase()}, at step ${steps[index]}`;
    }
  }

  function build() {
    const { still, moving: changing } = directions[direction];
    const roles = Object.keys(headings).filter((role) => role in still || role in changing);
    grid.style.gridTemplateColumns = `repeat(${roles.length}, minmax(0, 1fr))`;
    grid.replaceChildren(...roles.map((role) => make("span", { class: role === "output" ? "column now" : "column" }, headings[role])));
    moving = [];
    still.input.forEach((_, row) => {
      for (const role of roles) {
        const image = make("img", { class: role === "output" ? "now" : "" });
        if (role in changing) moving.push({ image, role, row });
        else {
          image.src = still[role][row];
          image.alt = `${names[direction]}, picture ${row + 1}, ${headings[role].toLowerCase()}`;
        }
        grid.append(image);
      }
    });
    show(Number(slider.value));
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ Play";
    play.setAttribute("aria-pressed", "false");
  }

  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    play.textContent = "⏸ Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % steps.length;
      show(Number(slider.value));
    }, Math.max(180, Math.min(700, 6000 / steps.length)));
  });
  for (const button of all("#history-controls [data-direction]")) {
    button.addEventListener("click", () => {
      direction = button.dataset.direction;
      all("#history-controls [data-direction]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      build();
    });
  }
  byId("history-controls").hidden = steps.length < 2 && Object.keys(directions).length < 2;
  play.hidden = slider.parentElement.hidden = steps.length < 2;
  build();
})();
