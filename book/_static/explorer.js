/* The explorer: shows one case of those that the run computed, chosen by radio buttons or by the address.
   No library, no network: numbers come from explorer-data.js, pictures from the sheets beside it. */
(function () {
  "use strict";
  const root = document.querySelector("[data-explorer]");
  const data = window.xaicoreExplorer;
  if (!root || !data) return;

  const images = Object.entries(data.subjects).flatMap(([subject, each]) =>
    each.images.map((image) => ({ ...image, id: image.key, subject })));
  images.forEach((image, k) => { /* a class that both subjects have */
    if (images.findIndex((other) => other.id === image.id) < k) image.id = `${image.subject}-${image.key}`;
  });
  const KINDS = { attack: "the attack", noise: "noise of its size" };
  const EXPLAINED = { answer: "what the network answers", true: "the true class" };
  const MEASURES = [
    ["nissim", "NISSIM", "0: the same map"],
    ["cosine", "cosine", "1: the same map"],
    ["rank", "rank correlation", "1: the same order"],
    ["iou", "overlap of masks", "1: the same region"],
    ["entropy", "entropy, change in bits", "0: as spread out"],
  ];
  let state = {};
  const sheets = new Map();

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }
  const title = (name) => data.titles[name] || name;
  const digits = (value) => {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1)
      : size >= 0.01 ? value.toFixed(3) : value.toPrecision(2);
    return text.replace(/e([+-]?)0*(\d+)$/, " · 10^$1$2").replaceAll("-", "−");
  };
  const percent = (share) => share >= 0.9995 ? "100 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
  const sizeTitle = (size) => size === "smallest" ? "the smallest it finds" : `ε = ${size}`;

  /* What is chosen, checked against what there is. */
  const imageOf = (id) => images.find((image) => image.id === id);
  function choices(chosen) {
    const image = imageOf(chosen.image) || images[0];
    const subject = data.subjects[image.subject];
    const attacks = Object.keys(subject.attacks);
    const attack = attacks.includes(chosen.attack) ? chosen.attack : attacks[0];
    return {
      image: images.map((each) => each.id),
      attack: attacks,
      size: subject.attacks[attack],
      kind: Object.keys(KINDS),
      explanation: subject.explanations,
      explained: Object.keys(EXPLAINED),
    };
  }
  function settle(wanted) {
    const settled = {}, missing = [];
    for (const name of ["image", "attack", "size", "kind", "explanation", "explained"]) {
      const there = choices(settled)[name];
      const fallback = there.includes(state[name]) ? state[name]
        : name === "size" ? there[Math.floor((there.length - 1) / 2)] : there[0];
      settled[name] = there.includes(wanted[name]) ? wanted[name] : fallback;
      if (wanted[name] !== undefined && settled[name] !== wanted[name]) missing.push(`${name} “${wanted[name]}”`);
    }
    return [settled, missing];
  }
  function fromAddress() {
    const wanted = {};
    for (const part of location.hash.slice(1).split("&")) {
      const [name, value] = part.split("=");
      if (value === undefined) continue;
      try { wanted[name === "eps" ? "size" : name] = decodeURIComponent(value); } catch { /* not ours */ }
    }
    return wanted;
  }
  const toAddress = () => "#" + Object.entries(state).map(([name, value]) => `${name}=${encodeURI(value)}`).join("&");

  /* The form: groups of radio buttons, through which the arrow keys walk. */
  const labels = {
    image: (id) => imageOf(id).class,
    attack: title,
    size: sizeTitle,
    kind: (kind) => KINDS[kind],
    explanation: title,
    explained: (explained) => EXPLAINED[explained],
  };
  const legends = {
    image: "Image", attack: "Attack", size: "Size", kind: "Show", explanation: "Explanation", explained: "Explain",
  };
  const groups = {};
  const form = element("form", { class: "explorer-form" });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("keydown", (event) => event.stopPropagation()); /* arrows choose here, they do not turn pages */
  for (const [name, legend] of Object.entries(legends)) {
    groups[name] = element("div", { class: "explorer-options" });
    form.append(element("fieldset", { class: `explorer-${name}` }, element("legend", {}, legend), groups[name]));
  }
  form.addEventListener("change", (event) => choose({ ...state, [event.target.name]: event.target.value }, []));

  function refreshForm() {
    for (const [name, there] of Object.entries(choices(state))) {
      const group = groups[name];
      if (group.dataset.there !== there.join("\n")) {
        group.dataset.there = there.join("\n");
        group.replaceChildren(...there.map((value) => element("label", {},
          element("input", { type: "radio", name, value }), element("span", {}, labels[name](value)))));
      }
      for (const input of group.querySelectorAll("input")) input.checked = input.value === state[name];
    }
  }

  /* The pictures. */
  function figure(name) {
    const canvas = element("canvas", { role: "img", "aria-label": "" });
    const caption = element("figcaption");
    return { canvas, caption, box: element("figure", { class: `explorer-${name}` }, canvas, caption) };
  }
  const panels = Object.fromEntries(["clean", "changed", "perturbation", "before", "after", "difference"]
    .map((name) => [name, figure(name)]));
  const stage = element("div", { class: "explorer-stage" }, ...Object.values(panels).map((panel) => panel.box));

  function load(file) {
    if (!sheets.has(file)) {
      sheets.set(file, new Promise((resolve, reject) => {
        const sheet = new Image();
        sheet.onload = () => resolve(sheet);
        sheet.onerror = () => { sheets.delete(file); reject(new Error(file)); };
        sheet.src = root.dataset.explorer + file;
      }));
    }
    return sheets.get(file);
  }
  async function draw(panel, sheet, place, caption, description) {
    const [width, height] = data.subjects[imageOf(state.image).subject].tile;
    const { canvas } = panel;
    panel.caption.textContent = caption;
    canvas.setAttribute("aria-label", description);
    const wanted = canvas.dataset.wanted = `${sheet.file}|${place}`;
    let loaded;
    try { loaded = await load(sheet.file); } catch { panel.caption.textContent = "This picture could not be loaded."; return; }
    if (canvas.dataset.wanted !== wanted) return; /* something else was chosen meanwhile */
    canvas.width = width;
    canvas.height = height;
    canvas.style.imageRendering = width < 100 ? "pixelated" : "auto";
    const position = sheet.places[place];
    const left = (position % sheet.columns) * width, top = Math.floor(position / sheet.columns) * height;
    canvas.getContext("2d").drawImage(loaded, left, top, width, height, 0, 0, width, height);
    canvas.dataset.shown = wanted;
  }

  /* The numbers. */
  const said = element("p", { class: "explorer-said", role: "status", "aria-live": "polite" });
  const classTable = element("table"), measureTable = element("table"), foot = element("p", { class: "explorer-about" });
  const link = element("a", {}, "Link to this case");
  const row = (tag, cells) => element("tr", {}, ...cells.map((cell, k) =>
    element(tag, k ? {} : { scope: tag === "th" ? "col" : "row" }, cell)));
  function fill(table, caption, head, rows) {
    const first = (cells) => {
      const made = row("td", cells);
      made.replaceChild(element("th", { scope: "row" }, ...made.firstChild.childNodes), made.firstChild);
      return made;
    };
    table.replaceChildren(element("caption", {}, caption), element("thead", {}, row("th", head)),
      element("tbody", {}, ...rows.map(first)));
  }

  function show(missing) {
    const image = imageOf(state.image), subject = data.subjects[image.subject];
    const attack = image.attacks[state.attack];
    const at = `${state.size}|${state.kind}`, now = attack.cases[at];
    const kinds = Object.keys(KINDS).map((kind) => attack.cases[`${state.size}|${kind}`]);
    const shift = (each) => {
      const shifts = each.shifts[state.explanation];
      return shifts[state.explained] || shifts.answer;
    };
    const key = now.shifts[state.explanation][state.explained] ? state.explained : "answer";
    const what = state.kind === "attack" ? title(state.attack) : `noise as large as ${title(state.attack)}`;
    const version = `${what}, ${sizeTitle(state.size)}`;
    const likely = now.classes.find((each) => each[0] === now.answer);
    const sure = likely ? `, ${percent(likely[2])}` : "";
    const target = key === "true" ? image.class : now.answer;
    const factor = now.factor ? `× ${digits(now.factor)}` : "none";
    const map = title(state.explanation);

    draw(panels.clean, image.picture, "clean", `clean: “${image.class}”, ${percent(image.confidence)}`,
      `The clean image, ${image.class}.`);
    draw(panels.changed, attack.pictures, at, `${what}: “${now.answer}”${sure}`,
      `The image after ${version}, taken for ${now.answer}.`);
    draw(panels.perturbation, attack.pictures, `${at}|change`, `what was added, ${factor}, on grey`,
      `The perturbation by ${version}, amplified ${factor}.`);
    draw(panels.before, image.maps, state.explanation, `clean: why “${image.class}”`,
      `${map} of the clean image for ${image.class}.`);
    const place = `${at}|${state.explanation}|${key}`;
    draw(panels.after, attack.maps, place, `now: why “${target}”`, `${map} after ${version} for ${target}.`);
    draw(panels.difference, attack.maps, `${place}|difference`, "now less clean",
      `The second map less the first. Cosine of the two: ${digits(shift(now).cosine)}.`);

    fill(classTable, "Likeliest classes", ["class", "clean", "now"],
      now.classes.map(([name, before, after]) => [name, percent(before), percent(after)]));
    fill(measureTable, `Size and shift of ${map}`, ["", ...Object.values(KINDS)], [
      ["answer", ...kinds.map((each) => each.answer)],
      ["L2", ...kinds.map((each) => digits(each.l2))],
      ["L∞", ...kinds.map((each) => digits(each.linf))],
      ...MEASURES.map(([name, text, hint]) =>
        [element("span", { title: hint }, text), ...kinds.map((each) => digits(shift(each)[name]))]),
    ]);
    measureTable.dataset.kind = state.kind;
    foot.textContent = subject.about;
    said.textContent = (missing.length ? `This edition has no ${missing.join(", ")}. ` : "")
      + `“${image.class}”, ${version}: the network ${now.fooled ? `now answers “${now.answer}”` : "still answers right"}${sure}. `
      + `${map} for “${target}”: cosine ${digits(shift(now).cosine)} with the map of the clean image.`;
    link.href = toAddress();
  }

  function choose(wanted, missing) {
    [state] = settle(wanted);
    refreshForm();
    show(missing);
    history.replaceState(null, "", toAddress());
  }
  function follow() {
    const wanted = fromAddress();
    const [settled, missing] = settle(wanted);
    state = settled;
    refreshForm();
    show(missing);
    if (Object.keys(wanted).length) root.scrollIntoView();
    return wanted;
  }

  const scale = element("p", { class: "explorer-scale" },
    element("span", { class: "explorer-bar explorer-bar-map" }), " against … for the class",
    element("span", { class: "explorer-bar explorer-bar-difference" }), " less … more than before");
  const numbers = element("div", { class: "explorer-numbers" },
    element("div", {}, classTable), element("div", {}, measureTable));
  root.replaceChildren(form, said, stage, scale, numbers, element("p", {}, link), foot);
  window.addEventListener("hashchange", follow);
  const linked = Object.keys(follow()).length;
  // what is above may still grow until all is loaded
  if (linked && document.readyState !== "complete") window.addEventListener("load", () => root.scrollIntoView(), { once: true });
})();
