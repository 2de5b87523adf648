"use strict";
// The page of a report. It reads the data in the page, draws one panel after the other, and keeps the state of the view
// in the address. Texts reach the page as text nodes only; nothing is loaded and nothing is evaluated.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const LEVELS = 10;
  const FEW_WORDS = 24;
  const LONG_TEXT = 400; // words from which on the text scrolls by itself
  const reports = data.second ? [data, data.second] : [data]; // of one model, or of two on the same inputs
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // --- elements --------------------------------------------------------------------------------------------------

  function make(namespace, tag, attributes, children) {
    const element = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
      else if (name === "css") for (const [key, entry] of Object.entries(value)) element.style.setProperty(key, entry);
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat(4)) {
      if (child !== null && child !== undefined && child !== false) element.append(child);
    }
    return element;
  }
  const h = (tag, attributes, ...children) => make(null, tag, attributes, children);
  const s = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, children);
  const button = (label, act, attributes) => h("button", { type: "button", on: { click: act }, ...attributes }, label);

  function switcher(label, options, current, choose) {
    const buttons = options.map(([value, name]) =>
      button(name, () => choose(value), { "aria-pressed": String(value === current) }));
    return h("span", { class: "switch", role: "group", "aria-label": label }, buttons);
  }

  // --- numbers and colors ----------------------------------------------------------------------------------------

  const digits = (x, n) => String(Number(x.toPrecision(n)));
  const number = (x, n = 3) => (x === null || x === undefined ? "none" : digits(x, n).replace("-", "\u2212"));
  const score = (x) => (x === null ? "NaN" : x > 0 ? `+${number(x, 4)}` : number(x, 4));
  function aligned(values) { // writes signed numbers with the same decimals, four digits for the largest
    const most = largest(values), places = most > 0 ? Math.max(0, Math.min(9, 3 - Math.floor(Math.log10(most)))) : 0;
    return (x) => (x === null ? "NaN" : `${x > 0 ? "+" : ""}${x.toFixed(places).replace("-", "\u2212")}`);
  }
  const percent = (x, n = 1) => (x === null ? "" : `${(100 * x).toFixed(n)}\u202f%`);
  const share = (x) => `${Math.round(100 * x)}\u202f%`;
  const quoted = (text) => `\u201c${text}\u201d`;
  const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const sum = (values) => values.reduce((total, x) => total + (x || 0), 0);
  const largest = (values) => values.reduce((most, x) => Math.max(most, Math.abs(x || 0)), 0);

  function level(x, scale, linked = true) { // CSS class of a score's color; weights without a class have their own
    if (x === null) return "u";
    if (x === 0 || scale <= 0) return "z";
    const step = Math.round(LEVELS * Math.max(-1, Math.min(1, x / scale)));
    return step === 0 ? "z" : `${step > 0 ? (linked ? "p" : "q") : "n"}${Math.abs(step)}`;
  }
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = (color) => [1, 3, 5].map((i) => parseInt((color.length === 4
    ? `#${[...color.slice(1)].map((x) => x + x).join("")}` : color).slice(i, i + 2), 16));
  const between = (from, to, t) => from.map((x, i) => Math.round(x + (to[i] - x) * t));
  const contrast = (color) => {
    const [r, g, b] = color.map((x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05 >= Math.sqrt(1.05 * 0.05) ? "#000" : "#fff";
  };

  // --- state -----------------------------------------------------------------------------------------------------

  const defaults = { input: 0, model: 0, view: 0, unit: "words", scale: "own", word: null, layer: null, head: null, row: null };
  const state = { ...defaults };
  const report = () => reports[state.model];
  const item = () => report().items[state.input];
  const shown = () => item().explanations[state.view] || item().explanations[0];

  function readAddress() {
    const query = new URLSearchParams(location.hash.slice(1));
    Object.assign(state, defaults);
    for (const name of Object.keys(defaults)) {
      if (!query.has(name)) continue;
      const text = query.get(name);
      state[name] = typeof defaults[name] === "string" ? text : /^\d+$/.test(text) ? Number(text) : defaults[name];
    }
    state.input = Math.max(0, state.input - (query.has("input") ? 1 : 0));
    if (!data.items[state.input]) state.input = 0;
    if (!reports[state.model]) state.model = 0;
    if (!item().explanations[state.view]) state.view = 0;
    if (state.unit !== "tokens") state.unit = "words";
    if (state.scale !== "shared") state.scale = "own";
    if (!item().words[state.word]) state.word = null;
    if (!headAt(state.layer, state.head)) state.layer = state.head = null;
    if (state.row !== null && state.row >= item().tokens.length) state.row = null;
  }
  function writeAddress() {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) {
      if (value !== defaults[name] && value !== null) query.set(name, name === "input" ? value + 1 : value);
    }
    const text = query.toString();
    try { // a frame without an address of its own has nothing to keep it in
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    } catch { /* the view works without */ }
  }
  function set(changes, names) {
    Object.assign(state, changes);
    writeAddress();
    draw(names);
  }
  function choose(input) {
    set({ ...defaults, input, model: state.model, unit: state.unit, scale: state.scale });
    document.getElementById("said").textContent = `Input ${input + 1}: ${item().sentence.target}`;
    scrollTo(0, 0);
  }

  // --- the floating label ----------------------------------------------------------------------------------------

  const tip = document.getElementById("tip");
  function showTip(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(x + 12, innerWidth - box.width - 6))}px`;
    tip.style.top = `${y + 20 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
  }
  const hideTip = () => { tip.hidden = true; };
  function tipped(text) { // events of an element that has a label; `text` is called when it is needed
    return {
      pointerenter: (event) => showTip(text(), event.clientX, event.clientY),
      pointermove: (event) => showTip(text(), event.clientX, event.clientY),
      pointerleave: hideTip,
      focus: (event) => {
        const box = event.target.getBoundingClientRect();
        if (event.target.matches(":focus-visible")) showTip(text(), box.left, box.bottom - 10);
      },
      blur: hideTip,
    };
  }
  // Arrow keys move between the members of a group, of which one can be reached by the tabulator.
  function roving(group, members, columns = 1) {
    members.forEach((one, i) => one.setAttribute("tabindex", i === 0 ? "0" : "-1"));
    group.addEventListener("keydown", (event) => {
      const here = members.indexOf(document.activeElement);
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      const next = event.key === "Home" ? 0 : event.key === "End" ? members.length - 1 : here + (step || 0);
      if (here < 0 || next === here || !members[next]) return;
      event.preventDefault();
      members[here].setAttribute("tabindex", "-1");
      members[next].setAttribute("tabindex", "0");
      members[next].focus();
    });
  }

  // --- panels ----------------------------------------------------------------------------------------------------

  let numbering = 0;
  function panel(title, meaning, controls, ...content) {
    const id = `meaning-${++numbering}`;
    const text = meaning && h("p", { class: "meaning", id, hidden: true }, meaning);
    const ask = meaning && button("?", () => {
      text.hidden = !text.hidden;
      ask.setAttribute("aria-expanded", String(!text.hidden));
    }, { class: "what", "aria-expanded": "false", "aria-controls": id, "aria-label": `What is this: ${title}` });
    return [h("div", { class: "head" }, h("h2", null, title), ask, h("span", { class: "grow" }), controls, text), content];
  }
  const note = (text) => h("p", { class: "soft small" }, text);

  function sentence(one) { // the prediction and the words that made it
    const summary = one.sentence, main = one.explanations[0], scale = largest(main.wordScores);
    const words = summary.because.map((i, place) => [
      place > 0 ? (place === summary.because.length - 1 ? " and " : ", ") : "",
      h("span", { class: `because ${level(main.wordScores[i], scale, main.classLinked)}` }, one.words[i][0]),
    ]);
    const text = [h("strong", null, summary.target)];
    if (summary.probability !== null) text.push(`, ${percent(summary.probability)}`);
    if (!summary.classLinked) return [text, `; ${summary.method} puts most weight on `, words.length ? words : "no word", "."];
    return [text, words.length ? [", because of ", words] : "; no word speaks for it", "."];
  }
  const modelName = (i) => reports[i].info.model || `model ${i + 1}`;

  function verdict() {
    const one = item(), last = data.items.length - 1, tags = [];
    if (one.label !== null) {
      const verdict = one.correct === null ? "" : one.correct ? ": correct" : ": the prediction is wrong";
      tags.push(h("span", { class: `tag ${one.correct === null ? "" : one.correct ? "good" : "bad"}` },
        `gold label ${one.label}${verdict}`));
    }
    if (one.prediction !== null && one.prediction !== one.sentence.target) {
      tags.push(h("span", { class: "tag" }, `the model predicts ${one.prediction}`));
    }
    const pages = last > 0 && h("span", { class: "row" },
      button("\u2190 previous", () => choose(state.input - 1), { class: "quiet", disabled: state.input === 0 }),
      h("span", { class: "meta" }, `input ${state.input + 1} of ${last + 1}`),
      button("next \u2192", () => choose(state.input + 1), { class: "quiet", disabled: state.input === last }));
    const models = reports.length > 1
      ? switcher("Model", reports.map((_, i) => [i, modelName(i)]), state.model, (model) => set({ ...defaults, input: state.input, model, unit: state.unit, scale: state.scale }))
      : h("b", null, modelName(0));
    const other = reports.length > 1 && h("p", { class: "other" }, h("span", { class: "meta" }, `${modelName(1 - state.model)}: `), sentence(reports[1 - state.model].items[state.input]));
    return [
      h("div", { class: "row meta" }, h("span", null, "Model ", models), h("span", null, "method ", h("b", null, one.explanations[0].method)),
        h("span", null, plural(one.tokens.length, "token")), h("span", { class: "grow" }), pages),
      h("h1", null, sentence(one)), other, tags.length > 0 && h("div", { class: "row" }, tags),
    ];
  }

  // --- the three claims: which words, which attention weights, how that is known ---------------------------------

  function goTo(id) { // the keyboard goes on from there
    const section = document.getElementById(id);
    section.setAttribute("tabindex", "-1");
    section.scrollIntoView({ block: "start" });
    section.focus({ preventScroll: true });
  }
  const listed = (parts) => parts.map((part, i) => [i === 0 ? "" : i === parts.length - 1 ? " and " : ", ", part]);
  function aloneAndRest(found, what) { // a set against everything else, as two bars
    return h("div", { class: "bars" }, [[`${what} alone`, found.pSet], ["all the rest", found.pRest]].map(([name, p]) =>
      [h("span", { class: "name" }, name), bar([[0, p, name === "all the rest" ? "plain" : "for"]], true), h("span", { class: "value" }, percent(p))]));
  }
  const restOf = (found) => (found.strict ? "All the rest together changes the prediction." : `All the rest together keeps less than ${share(found.keep)} of its probability.`);
  function wordsClaim(one, main) {
    const found = one.tokenSet, part = one.media ? "parts" : "words";
    if (found && found.outcome !== "nothing to certify" && found.words.length <= FEW_WORDS) {
      const few = found.words.length > 8, names = found.words.slice(0, few ? 7 : 8).map((word) => h("b", null, quoted(word)));
      return ["tokenset", [few ? [names.flatMap((name) => [name, ", "]), `and ${found.words.length - 7} more`] : listed(names),
        ` ${found.words.length === 1 ? "is" : "are"} enough for ${found.target}. ${restOf(found)}`], aloneAndRest(found, found.words.length === 1 ? "this word" : `these ${part}`)];
    }
    const seen = new Set(); // each word once, and no punctuation, as in the sentence above
    const order = main.wordScores.map((x, i) => [x, i]).filter(([x]) => x > 0).sort((a, b) => b[0] - a[0]).filter(([, i]) => {
      const name = one.words[i][0].toLowerCase(), fresh = /[^\p{P}\s]/u.test(name) && !seen.has(name);
      seen.add(name);
      return fresh;
    }).slice(0, 3);
    const text = order.length ? [listed(order.map(([x, i]) => [h("b", null, quoted(one.words[i][0] || "(blank)")), ` (${score(x)})`])), ` ha${order.length === 1 ? "s" : "ve"} the highest score${order.length === 1 ? "" : "s"} ${main.classLinked ? `for ${main.name}` : `by ${main.method}`}.`] : [`No score is above zero ${main.classLinked ? `for ${main.name}` : ""}.`];
    return ["text", text, note(found ? found.reason : `No minimal set of ${part} was searched.`)];
  }
  function weightsClaim(one, main) {
    const found = one.subgraph, heads = byContribution().slice(0, 3);
    if (found && found.edges.length) {
      return ["subgraph", [h("b", null, `${found.size.toLocaleString("en")} of ${found.total.toLocaleString("en")}`), ` attention weights ${found.size === 1 ? "is" : "are"} enough for ${found.target}. ${restOf(found)}`], aloneAndRest(found, found.size === 1 ? "this weight" : "these weights")];
    }
    if (found) return ["subgraph", [found.outcome === "does not hold" && "No set was found. ", found.reason], null];
    const text = heads.length ? ["The heads that add most to ", main.name, ": ", listed(heads.map((x) => [h("b", null, `layer ${one.layers[x.layer].layer} head ${x.head}`), ` (${score(x.contribution)})`])), "."]
      : ["What each head contributes was not computed."];
    return ["attention", text, note("Which single weights are enough was not searched.")];
  }
  function checks(one, main) { // [passed: true, false, or null where there is nothing to check; a sentence]
    const rows = [], sets = [one.tokenSet, one.subgraph].filter((x) => x && x.outcome !== "nothing to certify" && (x.edges || x.indices).length);
    rows.push(main.gap === null ? [null, `The scores of ${main.method} are not meant to add up.`]
      : [main.gap <= 1e-3, `The scores add up to the output: they miss ${main.gap < 1e-4 ? "less than 0.01\u202f%" : percent(main.gap, 2)} of it.`]);
    if (sets.length) rows.push([sets.every((x) => x.outcome === "holds"), sets.every((x) => x.outcome === "holds") ? "The model was run with each set alone, with the rest alone, and without each single member."
      : "The model was run with each set alone and with the rest alone; that no member can go was not shown."]);
    const certificate = one.certificate;
    if (certificate) rows.push([{ holds: true, "does not hold": false }[certificate.outcome] ?? null, { holds: `${certificate.changed === certificate.rows ? "All" : `${certificate.changed.toLocaleString("en")} of`} ${certificate.rows.toLocaleString("en")} attention rows were replaced by rows of few keys with the same head output: the prediction stayed.`,
      "does not hold": "That the prediction stands on few keys in each row could not be shown." }[certificate.outcome] || "Too few tokens for a certificate: every weight has an effect here."]);
    return rows;
  }
  function claims() {
    const one = item(), main = one.explanations[0];
    const card = (title, [to, text, more]) => h("div", { class: "claim" }, h("h2", null, title), h("p", null, text), more,
      h("p", null, button("See it \u2193", () => goTo(to), { class: "see", "aria-label": `${title} See it` })));
    const list = h("ul", { class: "checks" }, checks(one, main).map(([passed, text]) => h("li", { class: passed === null ? "" : passed ? "good" : "bad" },
      h("span", { "aria-hidden": "true" }, passed === null ? "\u2013" : passed ? "\u2713" : "\u2717"), h("span", null, h("span", { class: "unseen" }, passed === null ? "Not checked: " : passed ? "Holds: " : "Does not hold: "), text))));
    return [card(one.media ? "Which parts?" : "Which words?", wordsClaim(one, main)), card("Which attention weights?", weightsClaim(one, main)),
      h("div", { class: "claim" }, h("h2", null, "How is that known?"), list, h("p", null, button("Ten questions \u2193", () => goTo("questions"), { class: "see" })))];
  }

  const unitScores = (explanation) => (state.unit === "words" ? explanation.wordScores : explanation.scores);
  const unitTokens = (one, i) => (state.unit === "words" ? one.words[i].slice(1) : [i]);
  const unitName = (one, i) => (state.unit === "words" ? one.words[i][0] || "(blank)" : one.tokens[i]);
  function unitScale() {
    const chosen = shown();
    if (state.scale === "own") return largest(ordinary(chosen));
    return Math.max(...report().items.flatMap((one) => one.explanations)
      .filter((one) => one.method === chosen.method).map((one) => largest(unitScores(one))));
  }
  const ordinary = (explanation) =>
    (state.unit === "words" ? explanation.wordScores : explanation.scores.filter((_, i) => !item().special.includes(i)));
  const wordOf = (token) => item().words.findIndex((word) => word.indexOf(token, 1) > 0);

  function textPanel() {
    const one = item(), chosen = shown(), scale = unitScale(), values = unitScores(chosen);
    const inSet = new Set(one.tokenSet ? one.tokenSet.indices : []);
    const members = [], anchors = new Set(one.anchors);
    chips = new Map();
    function describe(i) {
      const tokens = unitTokens(one, i);
      const place = tokens.length > 1 ? `tokens ${tokens[0]} to ${tokens[tokens.length - 1]}` : `token ${tokens[0]}`;
      const where = state.unit === "words" ? `word ${i + 1}, ${place}` : place;
      const member = tokens.some((t) => inSet.has(t)) ? "\nin the minimal token set" : "";
      const anchor = tokens.some((t) => anchors.has(t)) ? "\nthe output is read here" : "";
      return `${unitName(one, i)}\u2002${score(values[i])}\n${where}${member}${anchor}`;
    }
    function chip(text, i) {
      const tokens = unitTokens(one, i);
      const marks = [level(values[i], scale, chosen.classLinked), tokens.some((t) => inSet.has(t)) && "in", !text.trim() && "e", tokens.some((t) => anchors.has(t)) && "at"];
      const element = h("span", {
        class: `w ${marks.filter(Boolean).join(" ")}`, role: "button", "data-i": i,
        "aria-label": `${unitName(one, i)}: ${score(values[i])}${marks[1] ? ", in the minimal token set" : ""}`,
        "aria-pressed": "false",
      }, text);
      members.push(element);
      chips.set(i, element);
      return element;
    }
    const rows = one.media ? [] : (state.unit === "words" ? one.pieces : one.tokenPieces).map((pieces) =>
      pieces.map((piece) => (typeof piece === "string" ? piece : chip(piece[0] || unitName(one, piece[1]), piece[1]))));
    const long = one.words.length > LONG_TEXT ? " long" : "";
    const texts = rows.map((pieces, i) =>
      h("div", { class: `text${long}`, dir: "auto", role: "group", tabindex: long ? "0" : null,
        "aria-label": rows.length > 1 ? `Text ${i + 1}` : "The text, each word with its score" }, pieces));
    const cell = (i, shape, attributes) => { // a patch of an image or a stretch of a recording
      const chipped = chip("", i), x = values[i] || 0;
      const element = s(shape, { ...attributes, fill: css(x < 0 ? "--against" : chosen.classLinked ? "--for" : "--share1"), "fill-opacity": scale > 0 ? (0.78 * Math.min(1, Math.abs(x) / scale)).toFixed(3) : 0 });
      for (const { name, value } of chipped.attributes) element.setAttribute(name, value);
      members[members.length - 1] = element;
      chips.set(i, element);
      return element;
    };
    if (one.media) texts.push(one.media.grid ? picture(one, cell) : recording(one, cell));
    const group = h("div", null, texts);
    roving(group, members);
    // One listener for all words: a long text has thousands.
    const at = (event) => { const found = event.target.closest(".w"); return found && Number(found.dataset.i); };
    group.addEventListener("pointermove", (event) => {
      const i = at(event);
      if (i === null) hideTip(); else showTip(describe(i), event.clientX, event.clientY);
    });
    group.addEventListener("pointerleave", hideTip);
    group.addEventListener("focusin", (event) => {
      const i = at(event), box = event.target.getBoundingClientRect();
      if (i !== null && event.target.matches(":focus-visible")) showTip(describe(i), box.left, box.bottom - 10);
    });
    group.addEventListener("focusout", hideTip);
    const pick = (event) => {
      const i = at(event);
      if (i === null) return;
      const word = state.unit === "words" ? i : wordOf(i);
      members.forEach((member) => { if (member.tabIndex === 0) member.tabIndex = -1; });
      chips.get(i).setAttribute("tabindex", "0");
      if (word >= 0) pickWord(word === state.word ? null : word);
    };
    group.addEventListener("click", pick);
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(event); }
    });
    const outside = one.special.map((t) => [t, chosen.scores[t]]);
    const special = outside.length > 0 && h("p", { class: "meta" }, "Special tokens, not in the text: ",
      outside.slice(0, 6).map(([t, x], i) => [i > 0 ? ", " : "", one.tokens[t], " ", h("b", { class: "nums" }, score(x))]));
    const views = one.explanations.length > 1 && h("select", { class: "quiet", "aria-label": "Which scores are shown",
      on: { change: (event) => set({ view: Number(event.target.value) }, ["text", "classes", "waterfall", "methods"]) } },
      one.explanations.map((view, i) => h("option", { value: i, selected: i === state.view }, viewName(view))));
    const controls = [views,
      !one.media && switcher("Unit", [["words", "words"], ["tokens", "tokens"]], state.unit, (unit) => set({ unit }, ["text"])),
      switcher("Scale", [["own", "own scale"], ["shared", "shared"]], state.scale, (x) => set({ scale: x }, ["text"])),
      menu(one.media ? [["CSV", exportCsv]] : [["SVG", exportSvg], ["PNG", exportPng], ["CSV", exportCsv], ["LaTeX", exportLatex]])];
    return panel(one.media ? (one.media.duration ? "The recording" : "The image") : "The words", meaningOfScores(chosen), controls, group, legend(chosen, scale, inSet.size > 0, anchors.size > 0), special, secondText(),
      h("div", { id: "links" }), markWord);
  }
  let chips = new Map(); // the elements of the words or tokens of the text, by their numbers
  function pickWord(word) { // the text stays as it is: a long one has thousands of elements
    set({ word, row: word === null ? state.row : item().words[word][1] }, ["attention"]);
    markWord();
  }
  function markWord() { // the chosen word, and the words that it attends to
    const one = item(), holder = document.getElementById("links");
    const mark = (tokens, name) => tokens.forEach((t) => {
      const chip = chips.get(state.unit === "words" ? wordOf(t) : t);
      if (chip) chip.classList.add(name);
    });
    for (const chip of document.querySelectorAll("#text .w.on, #text .w.to")) chip.classList.remove("on", "to");
    for (const chip of document.querySelectorAll("#text .w[aria-pressed=true]")) chip.setAttribute("aria-pressed", "false");
    if (state.word !== null) {
      mark(one.words[state.word].slice(1), "on");
      if (one.attention) mark(linksOf(state.word, "keys").map(([token]) => token), "to");
    }
    for (const chip of document.querySelectorAll("#text .w.on")) chip.setAttribute("aria-pressed", "true");
    holder.replaceChildren(...(state.word === null ? [] : [links()]));
  }
  function secondText() { // the same text by the other model, on its own scale
    if (reports.length < 2) return null;
    const one = reports[1 - state.model].items[state.input], main = one.explanations[0], scale = largest(main.wordScores);
    const chip = ([text, i]) => h("span", { class: `w ${level(main.wordScores[i], scale, main.classLinked)}`, on: tipped(() => `${one.words[i][0]}\u2002${score(main.wordScores[i])}`) }, text || one.words[i][0]);
    return h("div", { id: "second" }, h("h3", null, `The same text by ${modelName(1 - state.model)}: ${main.name}`),
      one.pieces.map((pieces) => h("div", { class: "text", dir: "auto" }, pieces.map((piece) => (typeof piece === "string" ? piece : chip(piece))))));
  }
  const viewName = (view) => (view.method === item().explanations[0].method ? `${view.method}: ${view.name}` : view.method);

  function picture(one, cell) { // the image with a translucent map; a spectrogram has its low frequencies below
    const { grid: [rows, columns], uri, height, width, seconds } = one.media;
    const [high, wide] = uri ? [height, width] : seconds ? [rows * 14, columns * 14] : [rows, columns];
    const cells = one.words.map((_, i) => cell(i, "rect", { x: i % columns, y: seconds && !uri ? rows - 1 - Math.floor(i / columns) : Math.floor(i / columns), width: 1, height: 1 }));
    const figure = h("div", { class: "picture", css: { "aspect-ratio": `${wide} / ${high}`, "max-width": `${Math.round(Math.min(520, (520 * wide) / high))}px` } },
      uri && h("img", { src: uri, alt: "The image as the model sees it" }), s("svg", { viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: "none" }, cells));
    return h("div", { class: "pictured" }, figure, largestParts(one));
  }
  function largestParts(one) { // the patches with the largest scores, beside the image
    const values = shown().wordScores, linked = shown().classLinked;
    const order = one.words.map((_, i) => i).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a])).slice(0, 10);
    const most = largest(order.map((i) => values[i])), written = aligned(order.map((i) => values[i]));
    return h("div", null, h("h3", null, "The largest scores"), h("div", { class: "bars" }, order.map((i) => [h("span", { class: "name" }, one.words[i][0]),
      bar([[0, Math.abs(values[i] || 0) / (most || 1), !linked ? "plain" : values[i] >= 0 ? "for" : "against"]]), h("span", { class: "value" }, written(values[i]))])));
  }
  function recording(one, cell) { // a band for each position, and over it the waveform with its time axis
    const { duration, seconds, envelope } = one.media, width = 1000, height = 150, most = largest(envelope.flat()) || 1;
    const x = (t) => (width * Math.min(t, duration)) / (duration || 1);
    const cells = one.words.map((word, i) => { const [start, end] = seconds[word[1]]; return cell(i, "rect", { x: x(start), y: 0, width: Math.max(x(end) - x(start), 1), height }); });
    const at = (i) => (width * (i + 0.5)) / envelope.length, up = (v) => height / 2 - (v / most) * (height / 2 - 4);
    const outline = envelope.length ? s("path", { d: `M${[...envelope.map((v, i) => `${at(i).toFixed(1)} ${up(v[1]).toFixed(1)}`), ...envelope.map((v, i) => `${at(i).toFixed(1)} ${up(v[0]).toFixed(1)}`).reverse()].join("L")}Z`, fill: css("--soft"), "pointer-events": "none" }) : null;
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((t) => s("text", { x: width * t, y: height + 18, class: "soft", "text-anchor": t === 0 ? "start" : t === 1 ? "end" : "middle" }, `${number(t * duration)} s`));
    return s("svg", { viewBox: `0 0 ${width} ${height + 24}`, class: "fan", role: "group", "aria-label": "The recording, each stretch with its score" }, cells, outline, ticks);
  }
  function meaningOfScores(one) {
    const unit = one.method.startsWith("attnlrp") || one.method === "relevance"
      ? "The unit is the logit of the class minus the mean of the other logits."
      : "Scores of different methods have different units, so compare their order and not their size.";
    return one.classLinked
      ? `The number of a word says how much it adds to the model\u2019s output for ${one.name} (blue) or takes away from it (orange). ${unit}`
      : `The number of a word is the attention or weight that it receives by ${one.method}; it knows no class, so color does not mean for or against. ${unit}`;
  }

  function legend(one, scale, underlined, boxed) {
    const steps = [];
    for (let i = -LEVELS; i <= LEVELS; i += 1) steps.push(h("span", { class: level(i, LEVELS, one.classLinked) }));
    const negative = unitScores(one).some((x) => x < 0);
    const left = one.classLinked ? `against ${one.name}` : "less than zero", right = one.classLinked ? `for ${one.name}` : "more weight";
    return h("div", { class: "legend" },
      (one.classLinked || negative) && [h("span", { class: "nums" }, `${left} ${score(-scale)}`)],
      h("span", { class: "ramp", "aria-hidden": "true" }, one.classLinked || negative ? steps : steps.slice(LEVELS)),
      h("span", { class: "nums" }, `${score(scale)} ${right}`),
      !one.classLinked && h("span", null, "\u00b7 knows no class"),
      underlined && h("span", null, "\u00b7 ", h("span", { class: "underlined" }, "underlined"), ": minimal token set"),
      boxed && h("span", null, "\u00b7 ", h("span", { class: "at" }, "boxed"), ": where the output is read"));
  }

  function linksOf(word, direction) { // tokens that the word's tokens attend to, or that attend to them
    const found = new Map();
    for (const token of item().words[word].slice(1)) {
      for (const [other, weight] of item().attention[direction][token]) {
        found.set(other, Math.max(found.get(other) || 0, weight));
      }
    }
    return [...found].sort((a, b) => b[1] - a[1]).slice(0, 8);
  }
  function links() {
    const one = item();
    if (!one.attention) return note(`What this word attends to is not on the page. ${one.notes.attention || ""}`);
    const list = (title, direction) => {
      const found = linksOf(state.word, direction), most = largest(found.map((x) => x[1]));
      return h("div", null, h("h3", null, title), h("div", { class: "bars" }, found.map(([token, weight]) => [
        h("span", { class: "name" }, tokenName(token)), bar([[0, weight / most, "plain"]]),
        h("span", { class: "value" }, weight.toFixed(3))])));
    };
    const name = quoted(one.words[state.word][0]);
    return h("div", { class: "links" }, list(`${name} attends to`, "keys"), list(`What attends to ${name}`, "queries"),
      h("p", { class: "soft small" }, "Mean of the attention over all layers and heads. ",
        button("clear", () => pickWord(null), { class: "quiet" })));
  }
  function tokenName(token) {
    if (item().tokens[token] === undefined) return `position ${token}`;
    return item().special.includes(token) ? item().tokens[token] : item().tokens[token].replace(/^(##|\u0120|\u2581)/, "");
  }

  function bar(parts, base) { // parts: [from, to, class] from 0 to 1
    return h("span", { class: `track${base ? " base" : ""}` }, parts.map(([from, to, kind]) =>
      h("i", { class: kind, css: { left: `${100 * Math.min(from, to)}%`, width: `${100 * Math.abs(to - from)}%` } })));
  }

  function classes() {
    const one = item(), views = one.explanations.filter((x) => x.method === one.explanations[0].method);
    if (!one.classes.length) {
      if (views.length < 2) return null;
      return panel("What is explained", "Each name is a part of the output: an entity, an answer or a choice. Choose one to see the words that speak for and against it.", null,
        h("div", { class: "bars" }, views.map((view, i) => [button(view.name, () => set({ view: i }, ["text", "classes", "waterfall", "methods"]), { class: "name", "aria-pressed": String(i === state.view) }),
          bar([[0, view.probability || 0, i === state.view ? "for" : "plain"]], true), h("span", { class: "value" }, percent(view.probability))])));
    }
    const explained = new Map(one.explanations.map((x, i) => [x.method === one.explanations[0].method ? x.target : null, i]));
    const ordered = [...one.classes].sort((a, b) => b[3] - a[3]);
    const first = ordered.slice(0, 8), rest = ordered.slice(8);
    const tall = first.some((x) => x[1].length > 18) ? " tall" : ""; // long names have a line of their own
    const probable = first.some((x) => x[2] !== null), most = largest(first.map((x) => x[3]));
    const rows = first.map(([target, name, probability, value]) => {
      const view = explained.get(target);
      const chosen = view === state.view;
      const label = view === undefined ? h("span", { class: "name" }, name)
        : button(name, () => set({ view }, ["text", "classes", "waterfall", "methods"]), { class: "name", "aria-pressed": String(chosen), "data-class": target });
      const width = probability === null ? Math.abs(value) / (most || 1) : probability;
      return [label, bar([[0, width, chosen ? "for" : "plain"]], true),
        h("span", { class: "value" }, probability === null ? number(value) : percent(probability))];
    });
    const more = rest.length > 0 && note(`${plural(rest.length, "further class")}`.replace("classs", "classes") +
      (probable ? `, together ${percent(sum(rest.map((x) => x[2])))}.` : "."));
    return panel("The classes", "The bar of a class is the probability that the model gives to it. Choose a class whose name is a button to see the words that speak for and against it.",
      null, h("div", { class: `bars${tall}` }, rows), more);
  }

  function waterfall() {
    const one = item(), chosen = shown(), title = one.media ? "From parts to the output" : "From words to the output";
    const place = document.getElementById("waterfall").classList;
    place.toggle("whole", document.getElementById("classes").hidden && !one.tokenSet);
    place.toggle("tall", !document.getElementById("classes").hidden && Boolean(one.tokenSet));
    if (chosen.additive && chosen.value === null) return panel(title, null, null, note("The output for this target was not kept, so there is no sum to show."));
    if (!chosen.additive) {
      return panel(title, null, null, note(`The scores of ${chosen.method} are not meant to add up to the model\u2019s output, so there is no sum to show.`));
    }
    const total = chosen.value, special = sum(one.special.map((t) => chosen.scores[t]));
    const order = one.words.map((_, i) => i).sort((a, b) => Math.abs(chosen.wordScores[b]) - Math.abs(chosen.wordScores[a]));
    const named = order.slice(0, 7).sort((a, b) => a - b), others = order.slice(7);
    const constant = total - sum(chosen.scores);
    const steps = [["bias terms", constant]];
    if (one.special.length) steps.push(["special tokens", special]);
    named.forEach((i) => steps.push([quoted(one.words[i][0] || "(blank)"), chosen.wordScores[i]]));
    if (others.length) steps.push([plural(others.length, item().media ? "other part" : "other word"), sum(others.map((i) => chosen.wordScores[i]))]);
    let at = 0;
    const ends = steps.map(([name, x]) => { const from = at; at += x; return [name, x, from, at]; });
    const low = Math.min(0, ...ends.map((x) => x[3])), high = Math.max(0, ...ends.map((x) => x[3]), total);
    const at01 = (x) => (x - low) / (high - low || 1);
    const zero = () => h("span", { class: "zero", css: { left: `${100 * at01(0)}%` } });
    const written = aligned([...steps.map((step) => step[1]), total]);
    const rows = ends.map(([name, x, from, to]) => {
      const track = bar([[at01(from), at01(to), x >= 0 ? "for" : "against"]]);
      track.append(zero());
      return [h("span", { class: "name" }, name), track, h("span", { class: "value" }, written(x))];
    });
    const last = bar([[at01(0), at01(total), "total"]]);
    last.append(zero());
    return panel(title,
      `Each bar starts where the one above ends: bias terms, special tokens and words add up to the output for ${chosen.name} (its logit minus the mean of the others). What they miss is ${number(chosen.gap, 2)} of its size, the completeness gap.`,
      null, h("div", { class: "bars", id: "sums" }, rows, h("span", { class: "name sum" }, `output for ${chosen.name}`), last, h("span", { class: "value sum" }, written(total))));
  }

  function leftOut() { // parts that are not on the page, and why
    const names = { token_set: "Minimal token set", certificate: "Certificate", subgraph: "Attention subgraph" };
    const lines = Object.entries(item().notes).filter(([name]) => names[name]).map(([name, why]) => h("p", null, h("b", null, names[name]), `: ${why}`));
    return lines.length ? lines : null;
  }

  const TONES = { holds: "good", "does not hold": "bad", "nothing to certify": "neutral" };
  function tokenSetPanel() {
    const found = item().tokenSet;
    const meaning = "These words alone keep the prediction, the rest alone does not, and without any one of them that is no longer true. It is locally minimal: there may be a smaller set elsewhere.";
    if (!found) return null;
    const words = found.words.map((word, i) => [i > 0 ? ", " : "", h("b", null, word)]);
    const box = found.outcome === "nothing to certify"
      ? ["Nothing to find: ", h("span", null, found.reason)]
      : [`${found.indices.length} of ${plural(found.total, "token")} decide: `, h("span", null, words)];
    const rows = [["all tokens", found.pAll], ["the set alone", found.pSet], ["the rest alone", found.pRest], ["special tokens alone", found.pSpecial]];
    const singles = found.singles.length > 0 && h("details", { class: "fold" }, h("summary", null, "Without one of them"),
      h("div", { class: "scroll" }, h("table", null, h("thead", null, h("tr", null, ["without", "set", "rest", "what fails"].map((x) => h("th", { scope: "col" }, x)))),
        h("tbody", null, found.singles.map(([, text, pSet, pRest, fails]) => h("tr", null, h("td", null, text), h("td", null, number(pSet)), h("td", null, number(pRest)),
          h("td", null, { set: "the set no longer suffices", rest: "the rest is enough", both: "both", "": "nothing: it can go" }[fails])))))));
    return panel("Minimal token set", meaning, null, h("div", { class: `box ${TONES[found.outcome]}` }, box),
      found.outcome === "does not hold" && note(found.reason),
      h("div", { class: "bars" }, rows.filter((x) => x[1] !== null).map(([name, p]) => [h("span", { class: "name" }, name), bar([[0, p, "plain"]], true), h("span", { class: "value" }, percent(p))])),
      h("p", { class: "soft small" }, `Probability of ${found.target}; a set suffices where it keeps ${share(found.keep)} of that of all tokens.`,
        found.jaccard !== null && (found.jaccard === 1 ? " A second search found the same set." : ` A second search found another set (Jaccard index ${number(found.jaccard, 2)}): this one is not the only one.`)), singles);
  }

  function certificatePanel() {
    const found = item().certificate;
    const meaning = "All attention rows were replaced by other rows with few keys and the same head output, and the model was run again. Where the certificate holds, the prediction stands on these few keys; the controls show what other rows do.";
    if (!found) return null;
    const text = {
      holds: ["Holds. ", h("span", null, `${plural(found.changed, "row")} of ${found.rows.toLocaleString("en")} were replaced; the ${found.output} moved by ${number(found.change.relative, 2)} of their size.`)],
      "does not hold": ["Does not hold. ", h("span", null, found.reasons.join(" "))],
      "nothing to certify": ["Nothing to certify. ", h("span", null, "The text has so few tokens that the output of each head determines its attention: no row could be replaced.")],
    }[found.outcome];
    const size = (x) => Math.max(0, Math.min(1, 1 + Math.log10(Math.max(x, 1e-8)) / 8));
    const rows = [["certified rows", found.change], ...found.controls].map(([name, change]) => [
      h("span", { class: "name" }, name), bar([[0, change ? size(change.relative) : 0, name === "certified rows" ? "for" : change && change.kept === false ? "against" : "plain"]], true),
      h("span", { class: "value" }, change ? change.relative.toExponential(0) : "none")]);
    const facts = [`${number(found.support, 3)} of up to ${found.keys} keys have weight in a row, on average; ${share(found.dropped)} of all weights are zero.`];
    if (found.necessity !== null) facts.push(`Of ${plural(found.checked, "checked row")}, each misses its output without any one of its keys.`);
    return panel("Certificate of efficient attention", meaning, null, h("div", { class: `box ${TONES[found.outcome]}` }, text),
      found.outcome !== "nothing to certify" && h("div", { class: "beside" }, h("div", null, h("div", { class: "bars" }, rows),
        h("p", { class: "soft small" }, `Change of the ${found.output}, relative to their size, on a logarithmic scale from 1e\u22128 to 1.${found.controls.some((x) => x[1] && x[1].kept === false) ? " Orange: the prediction changed." : ""}`)), h("div", null, facts.map(note))), found.notes.length > 0 && h("details", { class: "fold" }, h("summary", null, "Notes"), found.notes.map(note)));
  }

  function methods() {
    const one = item(), rows = one.explanations.map((x, i) => [x, i])
      .filter(([x], i) => i === 0 || x.method !== one.explanations[0].method);
    const failed = Object.entries(one.notes).filter(([name]) => !["token_set", "certificate", "attention", "subgraph"].includes(name));
    const verdictText = data.comparison && h("div", { class: "box neutral" }, h("b", null, "compare: "),
      h("span", null, data.comparison.recommendation));
    const meaning = "Each row shows the same words by another method, colored on its own scale. tau is Kendall\u2019s rank agreement with the first row: 1 is the same order, 0 is no relation.";
    if (rows.length < 2) return verdictText || failed.length ? panel("Other methods", meaning, null, verdictText, failed.map(([name, why]) => note(`${name}: ${why}`))) : null;
    const first = one.explanations[0].wordScores;
    const kept = one.words.map((_, i) => i).sort((a, b) => Math.abs(first[b]) - Math.abs(first[a])).slice(0, FEW_WORDS).sort((a, b) => a - b);
    const table = h("table", { class: "strip" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, h("span", { class: "unseen" }, "method")), kept.map((i) => h("th", { scope: "col" }, h("span", null, one.words[i][0] || "\u00b7"))),
        h("th", { scope: "col", class: "tau" }, one.agreement ? "tau" : ""))),
      h("tbody", null, rows.map(([view, i], line) => {
        const scale = largest(view.wordScores);
        const tau = one.agreement && one.agreement[line];
        return h("tr", null, h("th", { scope: "row" }, button(view.method, () => set({ view: i }, ["text", "classes", "waterfall", "methods"]), { "aria-pressed": String(i === state.view) })),
          kept.map((word) => h("td", { class: level(view.wordScores[word], scale, view.classLinked), on: tipped(() => `${view.method}\n${one.words[word][0]}\u2002${score(view.wordScores[word])}`) },
            h("span", { class: "unseen" }, score(view.wordScores[word])))),
          h("td", { class: "tau nums" }, line === 0 ? "" : tau === null || tau === undefined ? "none" : number(tau, 2)));
      })));
    const blind = rows.filter(([x]) => !x.classLinked).map(([x]) => x.method);
    return panel("Do other methods agree?", meaning, null, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Methods and words" }, table),
      note([one.words.length > kept.length ? `The ${kept.length} strongest words of ${one.words.length}.` : "", blind.length ? `${blind.join(", ")}: no class, the color is the size only.` : ""].join(" ")),
      verdictText, failed.map(([name, why]) => note(`${name}: ${why}`)));
  }

  // --- attention -------------------------------------------------------------------------------------------------

  const allHeads = (one) => (one.attention ? one.attention.heads
    : one.layers.flatMap((layer, place) => layer.rank.map((_, head) => ({ layer: place, head }))));
  const headAt = (layer, head) => allHeads(item()).find((x) => x.layer === layer && x.head === head) || null;
  const byContribution = () => (item().attention ? item().attention.heads.filter((x) => x.contribution !== undefined)
    .sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution)) : []);

  function attention() {
    const one = item();
    const meaning = "The color of a head is the share of its attention that its output cannot see: other weights would give the same output. A dot marks the 8 heads that contribute most to the explained output.";
    if (one.layers.length === 0) return panel("Attention", meaning, null, note("No statistics of attention layers were computed."));
    const strongest = byContribution();
    const strong = new Set(strongest.slice(0, 8));
    const heads = allHeads(one), current = heads.find((x) => x.layer === state.layer && x.head === state.head) || strongest[0] || heads[0];
    const columns = Math.max(...one.layers.map((x) => x.rank.length)), places = new Map(heads.map((x) => [`${x.layer}.${x.head}`, x]));
    const cells = [], from = rgb(css("--share0")), to = rgb(css("--share1"));
    const grid = h("div", { class: "heads", role: "group", "aria-label": "Layers and heads", css: { "grid-template-columns": `max-content repeat(${columns}, max-content)` } },
      h("span", { class: "label" }, "head"), Array.from({ length: columns }, (_, i) => h("span", { class: "label top" }, i)),
      one.layers.map((layer, place) => [h("span", { class: "label", title: layer.name }, `layer ${layer.layer}`), layer.rank.map((_, head) => {
        const x = layer.invisible ? layer.invisible[head] : null, detail = places.get(`${place}.${head}`) || null;
        const color = x === null ? null : between(from, to, x);
        const chosen = detail !== null && detail === current;
        const label = `Layer ${layer.layer}, head ${head}: ${x === null ? "not computed" : `${share(x)} invisible to the output`}${detail && detail.contribution !== undefined ? `\ncontribution ${score(detail.contribution)}` : ""}`;
        const cell = button(x === null ? "\u00b7" : Math.round(100 * x), () => set({ layer: place, head, row: null }, ["attention"]), {
          class: `${x === null ? "none" : ""}${strong.has(detail) ? " strong" : ""}`, "aria-pressed": String(chosen), "aria-label": label, "data-head": `${place}.${head}`,
          disabled: detail === null, on: { click: () => detail && set({ layer: place, head, row: null }, ["attention"]), ...tipped(() => label) },
          css: color ? { "background-color": `rgb(${color})`, color: contrast(color) } : null });
        cells.push(cell);
        return cell;
      }), Array.from({ length: columns - layer.rank.length }, () => h("span"))]));
    roving(grid, cells, columns);
    const ramp = Array.from({ length: 22 }, (_, i) => h("span", { css: { "background-color": `rgb(${between(from, to, i / 21)})`, flex: "1" } }));
    const left = h("div", null, h("div", { class: "scroll" }, grid), h("div", { class: "legend", css: { "margin-top": "10px" } }, "0\u202f%", h("span", { class: "ramp share", "aria-hidden": "true" }, ramp), "100\u202f% invisible to the output"),
      h("p", { class: "soft small", css: { "max-width": "52ch" } }, one.identifiability), current && headFacts(current, strongest));
    const missing = one.attention ? one.attention.leftOut : one.notes.attention;
    return panel("Attention: which part can have an effect", meaning, null,
      h("div", { class: `attention${columns > 12 ? " stacked" : ""}` }, left, h("div", { id: "head" }, current ? headPanel(current) : null, missing && note(missing),
        one.attention && one.attention.contributionNote && note(one.attention.contributionNote))));
  }

  function headFacts(detail, strongest) {
    const one = item(), layer = one.layers[detail.layer], rank = strongest.indexOf(detail) + 1;
    const facts = [];
    if (detail.contribution !== undefined) facts.push(["contribution", `${score(detail.contribution)} to the output for ${one.explanations[0].name}, number ${rank} of ${strongest.length}`]);
    if (layer.invisible) facts.push(["invisible", `${share(layer.invisible[detail.head])} of the norm of its attention`]);
    facts.push(["rank", `${layer.rank[detail.head]} of ${plural(layer.n, "token")}${layer.rank[detail.head] >= layer.n ? ": its output determines its attention" : ""}`]);
    facts.push(["entropy", `${number(layer.entropy[detail.head])} nats of at most ${number(Math.log(layer.n))}`]);
    const most = largest(strongest.map((x) => x.contribution)), written = aligned(strongest.map((x) => x.contribution));
    const bars = strongest.length > 1 && [h("h3", null, "The heads that contribute most"), h("div", { class: "bars", id: "strongest" }, strongest.slice(0, 8).map((x) => [
      button(`layer ${one.layers[x.layer].layer} head ${x.head}`, () => set({ layer: x.layer, head: x.head, row: null }, ["attention"]), { class: "name", "aria-pressed": String(x === detail) }),
      bar([[0, Math.abs(x.contribution) / (most || 1), x.contribution >= 0 ? "for" : "against"]], true), h("span", { class: "value" }, written(x.contribution))]))];
    return [h("h3", null, `Layer ${layer.layer}, head ${detail.head}`), h("dl", { class: "facts", id: "facts" }, facts.map(([name, text]) => [h("dt", null, name), h("dd", null, text)])), bars];
  }
  function headPanel(detail) {
    const holder = h("div");
    if (!detail.raw) {
      return [item().attention && note(`The matrices of layer ${item().layers[detail.layer].layer}, head ${detail.head} are not on the page.`),
        detail.intervals && [h("h3", null, `What ${quoted(tokenName(detail.query))} attends to`), fan(detail, null, detail.query)]];
    }
    drawHead(holder, detail);
    return holder;
  }

  const unpacked = new Map();
  async function unpack(text) { // zlib in base64 -> signed bytes
    if (!unpacked.has(text)) {
      const bytes = Uint8Array.from(atob(text), (x) => x.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      unpacked.set(text, new Int8Array(await new Response(stream).arrayBuffer()));
    }
    return unpacked.get(text);
  }
  const KINDS = ["raw", "effective", "efficient"];
  const KIND_MEANINGS = { raw: "as computed", effective: "what has an effect", efficient: "same output, few keys" };
  async function matrices(detail) {
    const all = await Promise.all(KINDS.map((kind) => unpack(detail[kind])));
    return Object.fromEntries(KINDS.map((kind, i) => [kind, { steps: all[i], at: (row, key) => (all[i][row * item().tokens.length + key] * detail.scale) / 127 }]));
  }

  async function drawHead(holder, detail) {
    const found = await matrices(detail), n = item().tokens.length;
    const rowOf = (query) => (detail.rows ? detail.rows.indexOf(query) : query);
    let row = state.row !== null && rowOf(state.row) >= 0 ? state.row : detail.query ?? 0;
    if (rowOf(row) < 0) row = detail.rows[0];
    holder.replaceChildren();
    if (!detail.rows) {
      const maps = KINDS.map((kind) => mapFigure(kind, found[kind], detail, row, n));
      const crosses = maps.map((x) => x.cross);
      const move = (event, map) => {
        const box = map.getBoundingClientRect();
        const key = Math.min(n - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * n)));
        const query = Math.min(n - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * n)));
        crosses.forEach((cross) => cross(query, key));
        showTip(`${tokenName(query)} \u2192 ${tokenName(key)}\n${KINDS.map((kind) => `${kind} ${number(found[kind].at(query, key))}`).join("\n")}`, event.clientX, event.clientY);
        return query;
      };
      maps.forEach(({ map }) => {
        map.addEventListener("pointermove", (event) => move(event, map));
        map.addEventListener("pointerleave", () => { hideTip(); crosses.forEach((cross) => cross(null)); });
        map.addEventListener("click", (event) => set({ row: move(event, map), layer: detail.layer, head: detail.head }, ["attention"]));
      });
      holder.append(h("div", { class: "maps" }, maps.map((x) => x.figure)));
      holder.append(note(`Rows are queries, columns are keys; blue is above zero, orange below. One scale for all three: full color is ${number(detail.scale)}, and color grows with the square root. Weights are kept in steps of ${number(detail.scale / 127, 2)}. Click a row to see its weights.`));
    }
    const rows = Object.fromEntries(KINDS.map((kind) => [kind, (key) => found[kind].at(rowOf(row), key)]));
    holder.append(rowChoice(detail, row), fan(detail, rows, row));
  }

  function rowChoice(detail, row) {
    const one = item();
    const which = row === detail.query ? "the row that contributes most" : "the chosen row";
    const pick = !detail.rows && h("select", { class: "quiet", "aria-label": "Row (query)", css: { "max-width": "8.5em" }, on: { change: (event) => set({ row: Number(event.target.value), layer: detail.layer, head: detail.head }, ["attention"]) } },
      one.tokens.map((token, i) => h("option", { value: i, selected: i === row }, `${i}: ${token}`)));
    return h("div", { class: "row", css: { "margin-top": "16px" } }, h("div", { class: "grow" }, h("h3", { css: { margin: 0 } }, `What ${quoted(tokenName(row))} attends to`), h("span", { class: "meta" }, which)), pick,
      menu([...(detail.rows ? [] : [["PNG of the maps", () => exportMaps(detail)]]), ["SVG of this row", () => exportFigure("fan", "attention-row")], ["CSV of the weights", () => exportMatrix(detail)]]));
  }

  function colorTable() { // 255 colors for steps -127 to 127
    const zero = rgb(css("--card")), plus = rgb(css("--for")), minus = rgb(css("--against"));
    return Array.from({ length: 255 }, (_, i) => between(zero, i >= 127 ? plus : minus, Math.sqrt(Math.abs(i - 127) / 127)));
  }
  function mapFigure(kind, matrix, detail, row, n) {
    const canvas = h("canvas", { width: n, height: n, role: "img", "aria-label": `${kind} attention of the head, ${n} by ${n} weights` });
    const context = canvas.getContext("2d"), image = context.createImageData(n, n), colors = colorTable();
    matrix.steps.forEach((step, i) => {
      const color = colors[step + 127];
      image.data.set([color[0], color[1], color[2], 255], 4 * i);
    });
    context.putImageData(image, 0, 0);
    const place = (i) => ({ top: `${(100 * i) / n}%`, height: `${100 / n}%` });
    const fixed = h("span", { class: "h fixed", css: place(row) });
    const across = h("span", { class: "h", hidden: true }), down = h("span", { class: "v", hidden: true });
    const cross = (query, key) => {
      across.hidden = down.hidden = query === null;
      if (query === null) return;
      Object.assign(across.style, place(query));
      Object.assign(down.style, { left: `${(100 * key) / n}%`, width: `${100 / n}%` });
    };
    const map = h("div", { class: "map" }, canvas, fixed, across, down);
    return { map, cross, figure: h("figure", null, h("figcaption", null, h("b", null, kind), ` ${KIND_MEANINGS[kind]}`), map) };
  }

  // The row of one query: lines to its keys, the weights by the three kinds, and the intervals where they are known.
  function fan(detail, rows, query) {
    const one = item(), n = one.tokens.length;
    const intervals = new Map(query === detail.query && detail.intervals ? detail.intervals.map((x) => [x[0], x]) : []);
    const weight = (key) => (rows ? rows.raw(key) : (intervals.get(key) || [0, 0])[1]);
    const size = (key) => (rows ? Math.max(...KINDS.map((kind) => Math.abs(rows[kind](key)))) : weight(key));
    const all = one.tokens.map((_, i) => i);
    const keys = [...new Set([...all.sort((a, b) => size(b) - size(a)).slice(0, 14), ...intervals.keys()])].filter((key) => size(key) > 0).sort((a, b) => a - b);
    const line = 21, top = 26, height = top + keys.length * line + 6, narrow = innerWidth < 560;
    const [width, from, name, left, right] = narrow ? [360, 74, 138, 226, 348] : [640, 108, 210, 320, 620], most = narrow ? 11 : 14;
    const high = Math.max(...keys.map(size), ...[...intervals.values()].map((x) => x[3]), 1e-9);
    const low = Math.min(0, ...(rows ? keys.map((key) => rows.effective(key)) : [0]));
    const x = (value) => left + ((value - low) / (high - low)) * (right - left);
    const middle = top + (keys.length * line) / 2;
    const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);
    const parts = [s("text", { x: from - 8, y: middle + 4, "text-anchor": "end" }, cut(tokenName(query), most)),
      s("line", { x1: x(0), x2: x(0), y1: top - 6, y2: height - 4, stroke: css("--line") }),
      s("text", { x: x(0), y: 13, "text-anchor": "middle", class: "soft" }, "0"), s("text", { x: x(high), y: 13, "text-anchor": "end", class: "soft" }, number(high))];
    if (x(0) - x(low) > 44) parts.push(s("text", { x: x(low), y: 13, "text-anchor": "middle", class: "soft" }, number(low)));
    keys.forEach((key, i) => {
      const y = top + i * line + line / 2;
      const w = weight(key), interval = intervals.get(key);
      parts.push(s("path", { d: `M${from} ${middle} C${(from + name) / 2} ${middle} ${(from + name) / 2} ${y} ${name - 6} ${y}`, fill: "none", stroke: css("--for"), "stroke-opacity": 0.75, "stroke-width": Math.max(0.4, (6 * w) / high) }));
      parts.push(s("text", { x: name, y: y + 4 }, cut(tokenName(key), most)));
      if (interval) {
        parts.push(s("line", { x1: x(interval[2]), x2: x(interval[3]), y1: y, y2: y, stroke: css("--faint"), "stroke-width": 5, "stroke-opacity": 0.45, "stroke-linecap": "round", class: "interval" }));
      }
      if (rows) {
        const effective = x(rows.effective(key)), efficient = rows.efficient(key);
        parts.push(s("path", { d: `M${effective} ${y - 5}V${y + 5}`, stroke: css("--ink"), "stroke-width": 2 }));
        parts.push(s("circle", { cx: x(w), cy: y, r: 4.6, fill: css("--card"), stroke: css("--for"), "stroke-width": 1.8 }));
        if (efficient > 0) parts.push(s("path", { d: `M${x(efficient)} ${y - 3.4}l3.4 3.4l-3.4 3.4l-3.4 -3.4z`, fill: css("--share1") }));
      } else {
        parts.push(s("circle", { cx: x(w), cy: y, r: 4.6, fill: css("--card"), stroke: css("--for"), "stroke-width": 1.8 }));
      }
      const label = [`${tokenName(query)} \u2192 ${tokenName(key)}`, ...(rows ? KINDS.map((kind) => `${kind} ${number(rows[kind](key))}`) : [`weight ${number(w)}`]),
        interval ? `this weight can lie between ${number(interval[2], 2)} and ${number(interval[3], 2)} without a change of the head\u2019s output` : "interval not computed"].join("\n");
      parts.push(s("rect", { x: name - 10, y: y - line / 2, width: width - name + 10, height: line, fill: "transparent", "data-key": key, on: tipped(() => label) }, s("title", null, label)));
    });
    const support = rows ? detail.support[detail.rows ? detail.rows.indexOf(query) : query] : null;
    const legendLine = h("p", { class: "soft small" }, "\u25cb weight of the model", rows && ["  \u00b7  \u2503 effective  \u00b7  ", h("span", { css: { color: "var(--share1)" } }, "\u25c6"), " efficient"],
      intervals.size > 0 ? "  \u00b7  grey bar: where the weight can lie with the same output (of the 5 largest weights)." : "  \u00b7  intervals: not computed for this row.",
      support !== null && ` Efficient attention keeps ${support} of ${n} keys of this row${keys.length < n ? `; the ${keys.length} largest are shown` : ""}.`);
    const figure = s("svg", { viewBox: `0 0 ${width} ${height}`, class: "fan", role: "img", id: "fan", "aria-label": `Weights of the row of ${tokenName(query)}: ${keys.map((key) => `${tokenName(key)} ${number(weight(key), 2)}`).join(", ")}` }, parts);
    return h("div", null, figure, legendLine);
  }

  // --- the attention subgraph ------------------------------------------------------------------------------------

  const FAILS = { set: "the set no longer suffices", rest: "the rest is enough", both: "both conditions fail", "": "it can be left out" };
  // Tokens are rows, layers are columns; a line is an attention weight of the set, from its key to its query.
  function subgraph() {
    const one = item(), found = one.subgraph;
    if (!found) return null;
    const meaning = "Only these attention weights were kept, in all layers at once, and the model was run: they keep the prediction, all others together do not, and without any single one of them that is no longer true. The set is locally minimal and not the only one.";
    const box = found.outcome === "nothing to certify"
      ? ["Needs no attention. ", h("span", null, found.reason)]
      : !found.edges.length ? ["No set was found. ", h("span", null, found.reason)]
      : [`${found.size.toLocaleString("en")} of ${found.total.toLocaleString("en")} attention weights ${found.size === 1 ? "carries" : "carry"} the prediction ${quoted(found.target)}. `, h("span", null, found.outcome === "holds" ? "None of them can be left out." : found.reason)];
    const bars = [["all weights", found.pAll], ["the set alone", found.pSet], ["the rest alone", found.pRest], ["no attention", found.pNone]].filter((x) => x[1] !== null);
    const top = h("div", { class: `box ${TONES[found.outcome]}` }, box);
    const probabilities = h("div", { class: "bars" }, bars.map(([name, p]) => [h("span", { class: "name" }, name), bar([[0, p, "plain"]], true), h("span", { class: "value" }, percent(p))]));
    if (!found.edges.length) return panel("The attention weights that carry the prediction", meaning, null, top, h("div", { class: "carry" }, probabilities));
    const figure = flow(found);
    const rows = found.edges.map((edge, i) => [edge, i]).sort((a, b) => Math.abs(b[0].contribution) - Math.abs(a[0].contribution));
    const table = h("details", { class: "fold" }, h("summary", null, "The weights as a table"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Weights of the set" }, h("table", null,
      h("thead", null, h("tr", null, ["weight of", "weight", "contribution", "set without it", "rest with it", "what fails", found.sets > 1 && "in the sets"].filter((x) => x).map((x) => h("th", { scope: "col" }, x)))),
      h("tbody", null, rows.map(([edge]) => h("tr", null, h("td", null, edgeName(found, edge)), h("td", null, number(edge.weight)), h("td", null, score(edge.contribution)), h("td", null, number(edge.pSet)), h("td", null, number(edge.pRest)), h("td", null, FAILS[edge.fails] || ""), found.sets > 1 && h("td", null, share(edge.member))))))));
    const checks = found.removals.map(([name, pSet, pRest, stands]) => note(`With removal ${quoted(name)}: the set has ${percent(pSet)}, the rest ${percent(pRest)}; the set ${stands ? "stands" : "does not stand"}.`));
    return panel("The attention weights that carry the prediction", meaning, menu([["SVG", () => exportFigure("flow", "subgraph")], ["PNG", () => exportFigurePng("flow", "subgraph")], ["JSON", () => download(JSON.stringify(found, null, 1), fileName("subgraph", "json"), "application/json")]]),
      top, h("div", { class: "carry" }, probabilities, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Flow of the weights" }, figure)),
      h("p", { class: "soft small" }, "Each line goes from the token that is attended to, one layer up to the token that attends. Blue adds to the output, orange takes away; the thicker, the more. Faint lines: every token also keeps its own state.",
        found.sets > 1 && ` The fainter a line, the fewer of the ${found.sets} sets that were found contain it; ${found.core || "no"} weight${found.core === 1 || !found.core ? " is" : "s are"} in all of them.`, " Choose a line to see its head."),
      found.size > found.edges.length && note(`The page holds the ${found.edges.length.toLocaleString("en")} weights of the largest contribution; ${(found.size - found.edges.length).toLocaleString("en")} more of the set are left out. minimal_attention returns all.`), checks, table);
  }
  const edgeName = (found, edge) => `layer ${found.modules[edge.call].layer}, head ${edge.head}: ${tokenName(edge.query)} \u2190 ${tokenName(edge.key)}`;
  function flow(found) {
    const tokens = [...new Set(found.edges.flatMap((edge) => [edge.query, edge.key]))].sort((a, b) => a - b);
    const row = new Map(tokens.map((token, i) => [token, i])), layers = found.modules.length;
    const narrow = innerWidth < 560, line = 24, top = 34, left = narrow ? 76 : 118;
    const beside = innerWidth > 900 ? 336 : 0, inner = document.getElementById("panels").clientWidth - (innerWidth < 560 ? 30 : 50) - beside;
    const name = narrow ? 124 : 150, gap = Math.max(narrow ? 34 : 56, Math.min(170, (inner - left - name) / layers)); // as wide as the panel, if that can be
    const right = left + layers * gap, width = right + name, height = top + tokens.length * line + 8;
    const x = (column) => left + column * gap, y = (token) => top + row.get(token) * line + line / 2;
    const most = largest(found.edges.map((edge) => edge.contribution));
    const longest = narrow ? 9 : 15, cut = (text) => (text.length > longest ? `${text.slice(0, longest - 1)}\u2026` : text);
    const last = found.edges.filter((edge) => edge.call === layers - 1).map((edge) => edge.query);
    const readers = [...new Set(last.length ? last : found.edges.map((edge) => edge.query))];
    const middle = readers.reduce((total, token) => total + y(token), 0) / readers.length;
    const parts = [];
    found.modules.forEach(({ layer }, i) => parts.push(s("text", { x: x(i) + gap / 2, y: 16, "text-anchor": "middle", class: "soft" }, `layer ${layer}`)));
    tokens.forEach((token) => {
      parts.push(s("text", { x: left - 10, y: y(token) + 4, "text-anchor": "end" }, cut(tokenName(token))));
      parts.push(s("line", { x1: left, x2: right, y1: y(token), y2: y(token), stroke: css("--line"), "stroke-width": 1 }));
    });
    readers.forEach((token) => parts.push(s("path", { d: `M${right} ${y(token)} C${right + 22} ${y(token)} ${right + 22} ${middle} ${right + 40} ${middle}`, fill: "none", stroke: css("--faint"), "stroke-width": 1.2 })));
    parts.push(s("text", { x: right + 46, y: middle + 4, "font-weight": 600 }, cut(found.target)));
    const seen = new Map(), lines = [];
    [...found.edges].sort((a, b) => Math.abs(a.contribution) - Math.abs(b.contribution)).forEach((edge) => {
      const place = `${edge.call}.${edge.query}.${edge.key}`, again = seen.get(place) || 0; // heads with the same ends lie beside each other
      seen.set(place, again + 1);
      const bend = edge.query === edge.key ? -10 - 7 * again : again % 2 ? -6 * Math.ceil(again / 2) : 6 * (again / 2);
      const [x0, x1, y0, y1] = [x(edge.call), x(edge.call + 1), y(edge.key), y(edge.query)];
      const without = edge.fails === null ? [] : [`without it: set ${percent(edge.pSet)}, rest ${percent(edge.pRest)}`, FAILS[edge.fails]];
      const label = [edgeName(found, edge), `weight ${number(edge.weight)}, contribution ${score(edge.contribution)}`, ...without, ...(found.sets > 1 ? [`in ${share(edge.member)} of ${found.sets} sets`] : [])].join("\n");
      const path = s("path", { d: `M${x0} ${y0} C${x0 + gap * 0.5} ${y0 + bend} ${x1 - gap * 0.5} ${y1 + bend} ${x1} ${y1}`, fill: "none", stroke: css(edge.contribution >= 0 ? "--for" : "--against"),
        "stroke-width": 1 + 6 * Math.abs(edge.contribution) / (most || 1), "stroke-opacity": 0.25 + 0.65 * (found.sets > 1 ? edge.member : 0.8), "stroke-linecap": "round", class: "edge", role: "button", "aria-label": label.replaceAll("\n", "; "),
        "data-edge": `${edge.call}.${edge.head}.${edge.query}.${edge.key}`, on: { ...tipped(() => label), click: () => openEdge(found, edge), keydown: (event) => { if (event.key === "Enter") openEdge(found, edge); } } });
      lines.push(path);
      parts.push(path);
    });
    tokens.forEach((token) => { for (let i = 0; i <= layers; i += 1) parts.push(s("circle", { cx: x(i), cy: y(token), r: 2.2, fill: css("--faint") })); });
    const figure = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "fan flow", id: "flow", role: "group", "aria-label": `${found.edges.length} attention weights from the tokens to ${found.target}` }, parts);
    roving(figure, lines.reverse());
    return figure;
  }
  function openEdge(found, edge) {
    const { place } = found.modules[edge.call], there = headAt(place, edge.head) !== null;
    set({ layer: there ? place : null, head: there ? edge.head : null, row: edge.query }, ["attention"]);
    document.getElementById("attention").scrollIntoView({ block: "nearest" });
  }

  // --- information -----------------------------------------------------------------------------------------------

  function information() {
    const one = item(), found = one.information;
    if (!found) return null;
    const meaning = "How much one state of a layer tells about the model\u2019s output, in nats, over the texts of the profile; the dashed line is the most that is possible. Lower and upper bounds hold for any distribution, each with 97.5\u202f% confidence; the estimate has its 95\u202f% interval. The table shows for each token of this text how far its state alone moves the prediction.";
    const sites = [...new Set(found.layers.flatMap((x) => Object.keys(x.mi)))];
    const width = 420, height = 170, left = 44, bottom = 28;
    const high = Math.max(found.ceiling || 0, ...found.layers.flatMap((x) => Object.values(x.mi).map((y) => Math.max(y[2] || y[0] || 0, y[4] || 0))), 1e-9);
    const last = Math.max(1, found.layers.length - 1);
    const x = (i) => left + 14 + (i / last) * (width - left - 40), y = (v) => 10 + (1 - Math.max(0, v) / high) * (height - bottom - 10);
    const strokes = ["--for", "--orange", "--good", "--share1"];
    const parts = [s("line", { x1: left, x2: width - 10, y1: y(0), y2: y(0), stroke: css("--line") })];
    if (found.ceiling !== null) parts.push(s("line", { x1: left, x2: width - 10, y1: y(found.ceiling), y2: y(found.ceiling), stroke: css("--soft"), "stroke-dasharray": "4 4" }), s("text", { x: left - 6, y: y(found.ceiling) + 4, "text-anchor": "end", class: "soft" }, number(found.ceiling, 2)));
    parts.push(s("text", { x: left - 6, y: y(0) + 4, "text-anchor": "end", class: "soft" }, "0"));
    const upper = Math.max(...found.layers.flatMap((layer) => Object.values(layer.mi).map((v) => v[4] ?? -Infinity)));
    if (Number.isFinite(upper)) parts.push(s("line", { x1: left, x2: width - 10, y1: y(upper), y2: y(upper), stroke: css("--faint"), "stroke-dasharray": "8 3 2 3", class: "upper" }, s("title", null, `upper bound ${number(upper)} nats`)));
    found.layers.forEach((layer, i) => parts.push(s("text", { x: x(i), y: height - 8, "text-anchor": "middle", class: "soft" }, layer.layer)));
    sites.forEach((site, k) => {
      const color = css(strokes[k % strokes.length]);
      const points = found.layers.map((layer, i) => [i, layer.mi[site]]).filter((p) => p[1]);
      parts.push(s("path", { d: points.map(([i, v], j) => `${j ? "L" : "M"}${x(i)} ${y(v[0])}`).join(""), fill: "none", stroke: color, "stroke-width": 1.5 }));
      if (points.every(([, v]) => v[3] !== null)) parts.push(s("path", { d: points.map(([i, v], j) => `${j ? "L" : "M"}${x(i)} ${y(v[3])}`).join(""), fill: "none", stroke: color, "stroke-width": 1.2, "stroke-dasharray": "1.5 3", class: "lower" }));
      points.forEach(([i, v]) => parts.push(s("line", { x1: x(i), x2: x(i), y1: y(v[1]), y2: y(v[2]), stroke: color, "stroke-opacity": 0.5, "stroke-width": 3 }),
        s("circle", { cx: x(i), cy: y(v[0]), r: 3.5, fill: color, on: tipped(() => `layer ${found.layers[i].layer}, ${site}\n${number(v[0])} nats, interval ${number(v[1])} to ${number(v[2])}${v[3] === null ? "" : `\nat least ${number(v[3])}, at most ${number(v[4])}: holds for any distribution`}`) })));
    });
    const first = one.explanations[0].wordScores;
    const kept = one.words.map((_, i) => i).sort((a, b) => Math.abs(first[b]) - Math.abs(first[a])).slice(0, FEW_WORDS).sort((a, b) => a - b);
    const kl = (layer, word) => Math.max(...one.words[word].slice(1).map((t) => layer.kl[t]));
    const most = largest(found.layers.flatMap((layer) => kept.map((word) => kl(layer, word))));
    const table = h("table", { class: "strip" }, h("thead", null, h("tr", null, h("th", { scope: "col" }, h("span", { class: "unseen" }, "layer")), kept.map((i) => h("th", { scope: "col" }, h("span", null, one.words[i][0] || "\u00b7"))))),
      h("tbody", null, found.layers.map((layer) => h("tr", null, h("th", { scope: "row" }, `layer ${layer.layer}`), kept.map((word) =>
        h("td", { class: level(kl(layer, word), most, false), on: tipped(() => `${one.words[word][0]}, layer ${layer.layer}\n${number(kl(layer, word))} nats`) }, h("span", { class: "unseen" }, number(kl(layer, word)))))))));
    return panel("Information about the output, layer by layer", meaning, null, h("div", { class: "row", css: { "align-items": "flex-start", gap: "24px" } },
      h("div", null, s("svg", { viewBox: `0 0 ${width} ${height}`, width, class: "fan", role: "img", "aria-label": "Mutual information of each layer with the output" }, parts),
        h("p", { class: "soft small" }, sites.map((site, k) => [k > 0 ? " \u00b7 " : "", h("span", { css: { color: `var(${strokes[k % strokes.length]})` } }, "\u25cf"), ` ${site}`]), ` \u00b7 dashed: ceiling${Number.isFinite(upper) ? " \u00b7 dotted: lower bounds \u00b7 dash-dotted: upper bound" : ""} \u00b7 ${plural(found.n, "text")}`)),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Information of the words" }, table)));
  }

  // --- questions and provenance ----------------------------------------------------------------------------------

  function carried(one) { // which attention weights, and if they were not searched, which heads
    const found = one.subgraph, heads = byContribution().slice(0, 3);
    const list = heads.map((x) => `layer ${one.layers[x.layer].layer} head ${x.head} (${score(x.contribution)})`).join(", ");
    const strongest = heads.length ? ` The heads that add most to ${one.explanations[0].name} are ${list}; dots in the grid mark the first eight.` : "";
    if (!found) return `The weights were not searched for this input: ${one.notes.subgraph || "minimal_attention does it."}${strongest}`;
    if (!found.edges.length) return `${found.reason}${strongest}`;
    const largestEdges = [...found.edges].sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution)).slice(0, 3);
    return `${found.size.toLocaleString("en")} of ${found.total.toLocaleString("en")} weights ${found.size === 1 ? "carries" : "carry"} ${found.target}; the largest ${found.size === 1 ? "is" : "are"} ${largestEdges.map((edge) => edgeName(found, edge)).join("; ")}. The panel of the flow shows all of them.${strongest}`;
  }
  function evidence(one, main) { // every claim of the page with the check behind it
    const parts = [main.gap === null ? `The scores of ${main.method} are not checked by a sum.` : `The scores and bias terms were added up: they miss the output by ${number(main.gap, 2)} of its size.`];
    const set = one.tokenSet, found = one.subgraph, certificate = one.certificate;
    if (set && set.outcome !== "nothing to certify") parts.push(`The underlined words were run alone (${percent(set.pSet)}), all others alone (${percent(set.pRest)})${set.outcome === "holds" ? ", and each single removal breaks one of the two" : "; that no word can go was not shown"}.`);
    if (found && found.edges.length) parts.push(`The attention weights of the set were run alone (${percent(found.pSet)}) and all others alone (${percent(found.pRest)})${found.outcome === "holds" ? ", and each single removal breaks one of the two" : "; that none can go was not shown"}.`);
    if (!certificate) parts.push("No certificate was computed.");
    else if (certificate.outcome === "holds") parts.push(`Other attention rows with the same head output were put in place of ${certificate.changed.toLocaleString("en")} rows: the output moved by ${number(certificate.change.relative, 2)} of its size, and the prediction stayed.`);
    else if (certificate.outcome === "nothing to certify") parts.push("On a text this short the output of each head determines its attention, so every weight has an effect and no row can be replaced.");
    else parts.push(`The certificate does not hold: ${certificate.reasons[0]}`);
    return parts.join(" ");
  }

  function questions() {
    const one = item(), main = one.explanations[0];
    const order = one.words.map((_, i) => i).sort((a, b) => main.wordScores[b] - main.wordScores[a]);
    const best = order[0], worst = order[order.length - 1];
    const name = (i) => quoted(one.words[i][0] || "(blank)");
    const classNames = one.classes.filter((x) => x[1] !== main.name).sort((a, b) => b[3] - a[3]);
    const list = [
      ["Why is this word blue, and that one orange?", main.classLinked
        ? `Blue words add to the output for ${main.name}, orange ones take away from it. Here ${name(best)} adds ${score(main.wordScores[best])}${main.wordScores[worst] < 0 ? ` and ${name(worst)} takes away ${number(Math.abs(main.wordScores[worst]), 4)}` : ""}.`
        : `${main.method} knows no class: a strong color is a large weight, and means neither for nor against ${main.name}.`],
      ["Is the prediction certain?", main.probability === null ? "The model gives a value and no probability here." : `The model gives ${percent(main.probability)} to ${main.name}. That is the model\u2019s own number: it says nothing about whether the model is right.`],
      ["What is the other class?", classNames.length ? `The next is ${classNames[0][1]}${classNames[0][2] === null ? "" : ` with ${percent(classNames[0][2])}`}. Choose it in the panel of classes, and the text shows what speaks for it.` : "This output has no other class."],
      ["Are the scores complete?", main.gap === null ? `The scores of ${main.method} are not meant to add up; read their order.` : `Scores and bias terms miss the output by ${number(main.gap, 2)} of its size. Up to about 0.001 that is rounding; above, a part of the model is not followed.`],
      ["What do the underlined words mean?", one.tokenSet ? (one.tokenSet.outcome === "nothing to certify" ? "There are none here: the special tokens alone already give this answer." : `They are a minimal token set: alone they give ${percent(one.tokenSet.pSet)} to ${one.tokenSet.target}, and all the others together only ${percent(one.tokenSet.pRest)}.`) : "A minimal token set was not computed for this input."],
      ["Is that the only explanation?", one.tokenSet && one.tokenSet.jaccard !== null ? (one.tokenSet.jaccard === 1 ? "A second search from another order found the same set. Other sets may exist all the same: minimal means that no single token can go." : "No: a second search from another order found another set that also suffices.") : "No explanation is the only one: several sets of words can each be enough. The panel of methods shows where methods disagree."],
      ["What is the attention that the output cannot see?", "A head mixes the values of the tokens by its weights. With more tokens than the rank of the values, many weights give the same mixture; what differs between them has no effect."],
      ["Which attention weights made it?", carried(one)],
      ["How is that known?", evidence(one, main)],
      ["Can I trust one method?", one.agreement ? `Compare them: here the rank agreement (tau) with ${main.method} is ${one.agreement.slice(1).map((x, i) => `${number(x, 2)} for ${one.explanations.filter((y, j) => j === 0 || y.method !== main.method)[i + 1].method}`).join(", ")}. Which one follows the model best on your texts, \`compare\` measures.` : "Which method follows the model best on your texts, `compare` measures."],
    ];
    return panel("Questions about this page", null, null, h("div", { class: "questions" }, list.map(([ask, answer]) => h("details", null, h("summary", null, ask), h("p", null, answer)))));
  }

  function provenance() {
    const one = item(), main = one.explanations[0];
    const facts = Object.entries(report().info).filter(([, value]) => !Array.isArray(value) || value.length).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : typeof value === "number" ? number(value) : value]);
    facts.push(["reference", main.reference], ["versions", Object.entries(report().versions).map(([name, version]) => `${name} ${version}`).join(", ")]);
    const warnings = [...report().warnings, ...one.explanations.flatMap((x) => x.warnings)];
    return panel("How it was computed", null, null, h("dl", { class: "facts" }, facts.map(([name, text]) => [h("dt", null, name), h("dd", null, text)])),
      [...new Set(warnings)].map((text) => note(`Warning: ${text}`)));
  }

  // --- index of many inputs --------------------------------------------------------------------------------------

  const filter = { text: "", label: "", which: "", sort: "order" };
  function index() {
    const holder = document.getElementById("index");
    if (data.items.length < 2) return;
    holder.hidden = false;
    const list = h("ol");
    const count = h("p", { class: "meta", role: "status" });
    const confidence = (one) => (one.sentence.probability === null ? 1 : one.sentence.probability);
    const tests = { "": () => true, right: (one) => one.correct === true, wrong: (one) => one.correct === false,
      unsure: (one) => confidence(one) < 0.7, sure: (one) => confidence(one) >= 0.9 };
    function fill() {
      const wanted = filter.text.toLowerCase();
      const kept = data.items.map((one, i) => [one, i]).filter(([one]) => tests[filter.which](one)
        && (!filter.label || one.sentence.target === filter.label) && (!wanted || one.texts.join(" ").toLowerCase().includes(wanted)));
      const orders = { order: (a, b) => a[1] - b[1], sure: (a, b) => confidence(b[0]) - confidence(a[0]), unsure: (a, b) => confidence(a[0]) - confidence(b[0]), long: (a, b) => b[0].tokens.length - a[0].tokens.length };
      kept.sort(orders[filter.sort]);
      list.replaceChildren(...kept.map(([one, i]) => h("li", null, button([h("span", { class: one.correct === false ? "wrong" : "" }, `${one.sentence.target}${one.sentence.probability === null ? "" : ` ${percent(one.sentence.probability)}`}${one.correct === false ? ` \u00b7 label ${one.label}` : ""}`),
        h("span", { class: "snippet" }, one.texts.join(" | ").slice(0, 160) || one.tokens.slice(0, 20).join(" "))], () => choose(i), { "data-input": i, "aria-current": String(i === state.input) }))));
      count.textContent = `${kept.length} of ${plural(data.items.length, "input")}`;
    }
    const select = (label, name, options) => h("select", { "aria-label": label, on: { change: (event) => { filter[name] = event.target.value; fill(); } } }, options.map(([value, text]) => h("option", { value, selected: filter[name] === value }, text)));
    const labels = [...new Set(data.items.map((one) => one.sentence.target))].sort();
    const gold = data.items.some((one) => one.label !== null);
    const which = [["", "all inputs"], ["unsure", "below 70 %"], ["sure", "90 % and more"], ...(gold ? [["wrong", "wrong"], ["right", "correct"]] : [])];
    holder.replaceChildren(h("input", { type: "search", placeholder: "Search the texts", "aria-label": "Search the texts", value: filter.text, on: { input: (event) => { filter.text = event.target.value; fill(); } } }),
      h("div", { class: "pair" }, select("Explained class", "label", [["", "every class"], ...labels.map((x) => [x, x])]), select("Which inputs", "which", which)),
      select("Order", "sort", [["order", "in order"], ["unsure", "least certain first"], ["sure", "most certain first"], ["long", "longest first"]]), count, list);
    fill();
  }
  function markIndex() {
    for (const one of document.querySelectorAll("#index li button")) one.setAttribute("aria-current", String(Number(one.dataset.input) === state.input));
  }

  // --- export ----------------------------------------------------------------------------------------------------

  function menu(entries) {
    const box = h("details", { class: "menu" }, h("summary", null, "Export"), h("div", null, entries.map(([name, act]) => button(name, () => { box.open = false; act(); }))));
    box.addEventListener("toggle", () => { // stays inside a narrow window
      const list = box.lastElementChild;
      list.classList.toggle("left", list.getBoundingClientRect().left < 0);
    });
    box.addEventListener("focusout", (event) => { if (!box.contains(event.relatedTarget)) box.open = false; });
    return box;
  }
  function download(content, name, type) {
    const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    const link = h("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  const fileName = (what, suffix) => `${what}-${state.input + 1}.${suffix}`;
  const csvCell = (x) => { const text = String(x ?? ""); return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  const csv = (rows) => `${rows.map((row) => row.map(csvCell).join(",")).join("\r\n")}\r\n`;
  function exportCsv() {
    const one = item(), views = one.explanations;
    const names = state.unit === "words" ? one.words.map((x) => x[0]) : one.tokens;
    download(csv([[state.unit === "words" ? "word" : "token", ...views.map((x) => `${x.method}:${x.name}`)], ...names.map((name, i) => [name, ...views.map((x) => unitScores(x)[i])])]), fileName("scores", "csv"), "text/csv");
  }
  const latexText = (text) => text.replace(/[\\{}$&#_%~^]/g, (x) => ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" }[x] || `\\${x}`));
  function exportLatex() {
    const one = item(), scale = unitScale(), values = unitScores(shown());
    const inSet = new Set(one.tokenSet ? one.tokenSet.indices : []);
    const piece = (x) => {
      if (typeof x === "string") return latexText(x);
      const value = values[x[1]], strength = scale > 0 ? Math.round((100 * Math.abs(value)) / scale) : 0;
      const text = unitTokens(one, x[1]).some((t) => inSet.has(t)) ? `\\underline{${latexText(x[0])}}` : latexText(x[0]);
      return strength < 1 ? text : `\\colorbox{${value > 0 ? "for" : "against"}!${strength}}{${strength > 60 ? `\\textcolor{white}{${text}}` : text}}`;
    };
    const rows = one.media ? [] : (state.unit === "words" ? one.pieces : one.tokenPieces).map((row) => row.map(piece).join(""));
    download(`% \\usepackage{xcolor}\n\\definecolor{for}{RGB}{33,102,172}\\definecolor{against}{RGB}{205,74,20}\n{\\setlength{\\fboxsep}{1pt}%\n${rows.join("\\par\n")}}\n`, fileName("words", "tex"), "text/x-tex");
  }
  function textSvg() { // the words as they stand on the page, with their colors
    const group = document.querySelector("#text .text").parentElement, box = group.getBoundingClientRect();
    const style = getComputedStyle(group.querySelector(".text"));
    const parts = [];
    const walker = document.createTreeWalker(group, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const range = document.createRange(), around = getComputedStyle(node.parentElement);
      const marked = node.parentElement.classList.contains("w");
      for (const part of node.data.matchAll(/\S+/g)) {
        range.setStart(node, part.index);
        range.setEnd(node, part.index + part[0].length);
        const place = range.getClientRects()[0];
        if (!place) continue;
        const [left, top] = [place.left - box.left + 4, place.top - box.top + 4];
        if (marked) parts.push(s("rect", { x: left - 2, y: top + 2, width: place.width + 4, height: place.height - 4, rx: 3, fill: around.backgroundColor }));
        parts.push(s("text", { x: left, y: top + place.height * 0.76, fill: around.color, "font-family": style.fontFamily, "font-size": style.fontSize, "text-decoration": node.parentElement.classList.contains("in") ? "underline" : null }, part[0]));
      }
    }
    return s("svg", { xmlns: "http://www.w3.org/2000/svg", width: Math.ceil(box.width) + 8, height: Math.ceil(box.height) + 8 }, s("rect", { width: "100%", height: "100%", fill: css("--card") }), parts);
  }
  const serialized = (figure) => new XMLSerializer().serializeToString(figure);
  const exportSvg = () => download(serialized(textSvg()), fileName("words", "svg"), "image/svg+xml");
  const exportPng = () => png(textSvg(), fileName("words", "png"));
  function png(figure, name) {
    const image = new Image(), width = Number(figure.getAttribute("width")), height = Number(figure.getAttribute("height"));
    const url = URL.createObjectURL(new Blob([serialized(figure)], { type: "image/svg+xml" }));
    image.onload = () => {
      const canvas = h("canvas", { width: 2 * width, height: 2 * height }), context = canvas.getContext("2d");
      context.drawImage(image, 0, 0, 2 * width, 2 * height);
      URL.revokeObjectURL(url);
      canvas.toBlob((blob) => download(blob, name));
    };
    image.src = url;
  }
  function standalone(id) { // a figure of the page with what its style sheet gives it
    const figure = document.getElementById(id).cloneNode(true);
    for (const text of figure.querySelectorAll("text")) {
      text.setAttribute("font-size", "12");
      text.setAttribute("font-family", "sans-serif");
      text.setAttribute("fill", css(text.classList.contains("soft") ? "--soft" : "--ink"));
    }
    const [, , width, height] = figure.getAttribute("viewBox").split(" ");
    for (const [name, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height })) figure.setAttribute(name, value);
    figure.prepend(s("rect", { width: "100%", height: "100%", fill: css("--card") }));
    return figure;
  }
  const exportFigure = (id, name) => download(serialized(standalone(id)), fileName(name, "svg"), "image/svg+xml");
  const exportFigurePng = (id, name) => png(standalone(id), fileName(name, "png"));
  function exportMaps(detail) {
    const canvases = [...document.querySelectorAll("#head canvas")], n = canvases[0].width, zoom = Math.max(1, Math.floor(400 / n));
    const side = n * zoom, gap = 16, top = 34;
    const out = h("canvas", { width: 3 * side + 4 * gap, height: side + top + gap }), context = out.getContext("2d");
    context.fillStyle = css("--card");
    context.fillRect(0, 0, out.width, out.height);
    context.imageSmoothingEnabled = false;
    context.font = "16px sans-serif";
    canvases.forEach((canvas, i) => {
      const left = gap + i * (side + gap);
      context.fillStyle = css("--ink");
      context.fillText(KINDS[i], left, top - 10);
      context.strokeStyle = css("--line");
      context.strokeRect(left - 0.5, top - 0.5, side + 1, side + 1);
      context.drawImage(canvas, left, top, side, side);
    });
    out.toBlob((blob) => download(blob, fileName(`layer${item().layers[detail.layer].layer}-head${detail.head}`, "png")));
  }
  async function exportMatrix(detail) {
    const found = await matrices(detail), tokens = item().tokens, queries = detail.rows || tokens.map((_, i) => i);
    const rows = queries.flatMap((query, row) => tokens.map((token, key) => [query, tokens[query], key, token, ...KINDS.map((kind) => number(found[kind].at(row, key)).replace("\u2212", "-"))]));
    download(csv([["query", "query_token", "key", "key_token", ...KINDS], ...rows]), fileName(`layer${item().layers[detail.layer].layer}-head${detail.head}`, "csv"), "text/csv");
  }

  // --- drawing ---------------------------------------------------------------------------------------------------

  const PANELS = [["verdict", verdict, "bare"], ["claims", claims, "claims"], ["text", textPanel, ""], ["classes", classes, "narrow"], ["waterfall", waterfall, "wide"],
    ["tokenset", tokenSetPanel, "narrow"], ["subgraph", subgraph, ""], ["certificate", certificatePanel, ""], ["leftout", leftOut, "left"], ["attention", attention, ""], ["methods", methods, ""],
    ["information", information, ""], ["questions", questions, ""], ["provenance", provenance, ""]];
  const holder = document.getElementById("panels");
  for (const [name, , kind] of PANELS) holder.append(h("section", { id: name, class: kind === "left" ? kind : `panel ${kind}` }));

  let drawing = 0;
  function draw(names) { // the panels above the fold at once, the others one by one, so that no step takes long
    const turn = ++drawing;
    hideTip();
    markIndex();
    const chosen = PANELS.filter(([name]) => !names || names.includes(name));
    const step = (i) => {
      if (i >= chosen.length || (turn !== drawing && !names)) return;
      const [name, build] = chosen[i];
      const section = document.getElementById(name);
      let content;
      try {
        content = build();
      } catch (error) { // one panel that fails does not take the others with it
        content = note(`This panel could not be drawn: ${error.message}`);
        reportError(error);
      }
      section.hidden = content === null;
      const parts = [content].flat(4).filter((x) => x);
      section.replaceChildren(...parts.filter((x) => typeof x !== "function"));
      parts.filter((x) => typeof x === "function").forEach((act) => act());
      if (names || i < 2) step(i + 1); else setTimeout(() => step(i + 1), 0);
    };
    step(0);
  }

  readAddress();
  index();
  draw();
  addEventListener("hashchange", () => {
    if (document.getElementById(location.hash.slice(1))) return; // a place on the page, and no state of the view
    readAddress();
    draw();
  });
  dark.addEventListener("change", () => draw());
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
    if (event.target.closest("input, select, textarea, .text, .heads") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j" && data.items[state.input + 1]) choose(state.input + 1);
    if (event.key === "k" && state.input > 0) choose(state.input - 1);
  });
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], .menu)")];
    folded.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));
  document.documentElement.dataset.ready = "true";
})();
