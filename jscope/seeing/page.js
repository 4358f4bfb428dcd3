"use strict";
// The sharing picture: places that read on the left, scopes as nested boxes on the right, an edge for each read.
// The page holds its data as JSON, and builds only what is unfolded. Texts are set as text: no name becomes markup.

const ROWS = 40;       // unfolded at first, at most
const STEP = 200;      // rows of one scope at a time
const MATCHES = 300;   // rows that a search shows
const PLACES = 40;     // more places than this stand together by file
const DEEPEST = 16;    // scopes one inside the other; what lies deeper keeps the rest of its name
const GAP = 26;        // pixels from one place to the next
const FOLLOWING = 2000; // edges that follow when the page is scrolled; more would be slow

const data = JSON.parse(document.getElementById("data").textContent);
const picture = document.getElementById("picture");
const boxes = document.getElementById("boxes");
const rail = document.getElementById("places");
const edges = document.getElementById("edges");

// Variables and scopes --------------------------------------------------------------------------------------------

const variables = data.variables.map(([name, type, bytes, size, frozen, initializer, reads, near, more]) => ({
  name, type, bytes, size, frozen, initializer, reads, near, more,
  count: reads.reduce((sum, [, times]) => sum + times, 0),
  text: [name, ...reads.map(([place]) => data.places[place].full)].join(" ").toLowerCase(),
}));
const isShared = (variable) => variable.count > 1;
const largest = variables.reduce((most, variable) => Math.max(most, variable.bytes), 1);

function newScope(path, label) {
  return { path, label, variables: [], scopes: new Map(), all: [], bytes: 0, size: "", open: false, limit: STEP };
}

const root = newScope("", "");
root.open = true;
for (const variable of variables) {
  let scope = root;
  scope.all.push(variable);
  const parts = variable.name.split("/");
  const scopes = parts.slice(0, Math.min(parts.length - 1, DEEPEST));
  variable.label = parts.slice(scopes.length).join("/");
  for (const part of scopes) {
    if (!scope.scopes.has(part)) scope.scopes.set(part, newScope(`${scope.path}${part}/`, `${part}/`));
    scope = scope.scopes.get(part);
    scope.all.push(variable);
    scope.bytes += variable.bytes;
  }
  scope.variables.push(variable);
}

// A scope that holds one scope and nothing else shares its box.
function inner(scope) {
  let label = scope.label;
  while (!scope.variables.length && scope.scopes.size === 1) {
    [scope] = scope.scopes.values();
    label += scope.label;
  }
  return [scope, label];
}

const innerScopes = (scope) => [...scope.scopes.values()].map((child) => inner(child));
const rowsOf = (scope) => scope.variables.length + scope.scopes.size;

// What is shared or doubtful is in sight at first; then whole levels, as long as there is room.
function unfoldSome() {
  let room = ROWS - rowsOf(root);
  const opened = (scope) => {
    scope.open = true;
    room -= rowsOf(scope);
  };
  const visit = (scope) => {
    for (const [child] of innerScopes(scope)) {
      const matters = child.variables.some((variable) => isShared(variable) || variable.near);
      const below = child.all.some((variable) => isShared(variable) || variable.near);
      if ((matters || below) && rowsOf(child) <= room) {
        opened(child);
        visit(child);
      }
    }
  };
  let level = innerScopes(root).map(([scope]) => scope);
  if (variables.length <= ROWS) room = Infinity;
  else visit(root);
  if (level.length === 1 && !level[0].open) opened(level[0]); // however much is in it: alone it says nothing
  while (level.length) {
    const folded = level.filter((scope) => !scope.open);
    if (folded.reduce((sum, scope) => sum + rowsOf(scope), 0) > room) break;
    folded.forEach(opened);
    level = level.flatMap((scope) => innerScopes(scope).map(([child]) => child));
  }
}

// What is looked for ----------------------------------------------------------------------------------------------

const find = document.getElementById("find");
const onlyShared = document.getElementById("only-shared");
let chosen = null; // the set of variables that are shown; null: all
let words = [];

function choose() {
  words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const sharedOnly = onlyShared.getAttribute("aria-pressed") === "true";
  const found = document.getElementById("found");
  chosen = null;
  found.textContent = "";
  if (words.length || sharedOnly) {
    const matches = variables.filter(
      (variable) => (!sharedOnly || isShared(variable)) && words.every((word) => variable.text.includes(word)),
    );
    chosen = new Set(matches.slice(0, MATCHES));
    const first = matches.length > MATCHES ? `, the first ${MATCHES} shown` : "";
    found.textContent = `${matches.length.toLocaleString("en")} of ${variables.length.toLocaleString("en")}${first}`;
  }
  draw();
}

const isChosen = (variable) => chosen === null || chosen.has(variable);

// Boxes -----------------------------------------------------------------------------------------------------------

function element(tag, classes, ...children) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  made.append(...children);
  return made;
}

// A name or a part of one; what was looked for is marked. It reads in its own direction, whatever is around it.
function named(label) {
  const bdi = document.createElement("bdi");
  const word = words.find((each) => label.toLowerCase().includes(each));
  if (word === undefined) {
    bdi.textContent = label;
  } else {
    const at = label.toLowerCase().indexOf(word);
    bdi.append(label.slice(0, at), element("mark", "", label.slice(at, at + word.length)), label.slice(at + word.length));
  }
  return element("span", "name", bdi);
}

const bytesText = (count) => {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (count < 1000) return `${Number(count.toPrecision(4))} ${unit}`;
    count /= 1000;
  }
  return `${Number(count.toPrecision(4))} TB`;
};

// What edges end at: {element, reads: Map of place -> times, shared}, in order from the top.
let targets = [];
const targetOf = new WeakMap();

function addTarget(end, reads, shared) {
  const target = { element: end, reads, shared };
  targets.push(target);
  targetOf.set(end, target);
}

function drawLeaf(variable) {
  const leaf = element("button", "leaf");
  leaf.type = "button";
  leaf.setAttribute("aria-expanded", "false");
  leaf.classList.toggle("shared", isShared(variable));
  leaf.classList.toggle("frozen", variable.frozen);
  leaf.classList.toggle("doubt", Boolean(variable.near));
  const unit = window.innerWidth <= 640 ? 30 : 42; // of the largest variable; areas are in proportion to bytes
  const side = Math.max(3, unit * Math.sqrt(variable.bytes / largest));
  const size = element("span", "size");
  size.style.width = size.style.height = `${side}px`;
  leaf.style.minHeight = `${Math.max(27, side + 6)}px`;
  const badges = element("span", "badges");
  if (isShared(variable)) badges.append(element("span", "badge reads", `read ×${variable.count}`));
  if (variable.frozen) badges.append(element("span", "badge", "frozen"));
  if (variable.near) badges.append(element("span", "badge doubt", "near ", named(variable.near)));
  leaf.append(
    size, named(variable.label), element("span", "type", variable.type), element("span", "bytes", bytesText(variable.bytes)),
    element("span", "initializer", variable.initializer), badges,
  );
  leaf.title = variable.name;
  leaf.addEventListener("click", () => toggleDetails(leaf, variable));
  addTarget(leaf, new Map(variable.reads), isShared(variable));
  return leaf;
}

function toggleDetails(leaf, variable) {
  const open = leaf.getAttribute("aria-expanded") === "true";
  leaf.setAttribute("aria-expanded", String(!open));
  if (open) {
    leaf.nextElementSibling.remove();
  } else {
    const list = document.createElement("dl");
    const say = (what, ...texts) => texts.forEach((text, i) => {
      const value = document.createElement("bdi");
      value.textContent = text;
      list.append(element("dt", "", i ? "" : what), element("dd", "", value));
    });
    say("name", variable.name);
    say("type", `${variable.type}, ${variable.size} elements, ${bytesText(variable.bytes)}`);
    if (variable.initializer) say("initializer", variable.initializer);
    for (const [what, text] of Object.entries(variable.more)) say(what, text);
    if (variable.near) say("near", `${variable.near}: read once under AUTO_REUSE, where a misspelt name makes a new variable`);
    say("read at", ...variable.reads.map(([place, times]) => data.places[place].full + (times > 1 ? `  ×${times}` : "")));
    leaf.after(element("div", "details", list));
  }
  drawEdges();
}

function drawScope(scope, label) {
  const box = element("section", "scope");
  const head = element("button", "head");
  head.type = "button";
  const share = element("span", "share", element("i"));
  share.title = "share of all bytes";
  share.firstChild.style.width = `${(100 * scope.bytes) / Math.max(1, data.bytes)}%`;
  const count = scope.all.length;
  const totals = `${count.toLocaleString("en")} variable${count === 1 ? "" : "s"}, ${bytesText(scope.bytes)}`;
  head.append(named(label), element("span", "totals", totals));
  const shared = scope.all.filter(isShared).length;
  if (shared) head.append(element("span", "badge shared", `${shared.toLocaleString("en")} shared`));
  const doubts = scope.all.filter((variable) => variable.near).length;
  if (doubts) head.append(element("span", "badge doubt", `${doubts.toLocaleString("en")} doubtful`));
  head.append(share);
  head.title = scope.path;
  head.addEventListener("click", () => {
    scope.open = !scope.open;
    const again = drawScope(scope, label);
    box.replaceWith(again);
    targets = [...boxes.querySelectorAll(".leaf, .head")].map((end) => targetOf.get(end)).filter(Boolean);
    again.querySelector(".head").focus({ preventScroll: true });
    drawEdges();
  });
  const open = scope.open || chosen !== null;
  head.setAttribute("aria-expanded", String(open));
  box.append(head);
  if (open) {
    box.append(element("div", "inside", ...drawInside(scope)));
  } else {
    const reads = new Map();
    for (const variable of scope.all) {
      for (const [place, times] of variable.reads) reads.set(place, (reads.get(place) || 0) + times);
    }
    addTarget(head, reads, shared > 0);
  }
  return box;
}

function drawInside(scope) {
  const items = [
    ...scope.variables.filter(isChosen).map((variable) => () => drawLeaf(variable)),
    ...innerScopes(scope)
      .filter(([child]) => child.all.some(isChosen))
      .map(([child, label]) => () => drawScope(child, label)),
  ];
  const made = items.slice(0, scope.limit).map((item) => item());
  if (items.length > scope.limit) {
    const left = items.length - scope.limit;
    const more = element("button", "more", `${Math.min(STEP, left)} more of ${left.toLocaleString("en")}`);
    more.type = "button";
    more.addEventListener("click", () => {
      scope.limit += STEP;
      draw();
    });
    made.push(more);
  }
  return made;
}

function draw() {
  targets = [];
  const made = drawInside(root);
  if (!made.length) {
    const nothing = element("p", "", variables.length ? "Nothing is found." : "No variables.");
    nothing.id = "nothing";
    made.push(nothing);
  }
  boxes.replaceChildren(...made);
  drawEdges();
}

// Places and edges ------------------------------------------------------------------------------------------------

const openFiles = new Set();
let pinned = null; // the key of a place
let places = []; // as in the rail: {key, place, isFile, ends: Map of target -> times, members, entry}
let lines = []; // {path, place, target}

// A file with its folders: two of one name are two.
const fileOf = (place) => data.places[place].full.slice(0, -data.places[place].line.length);

// The places that read what is drawn. Where there are many, those of one file stand together until it is opened.
function gather() {
  const seen = new Set(targets.flatMap((target) => [...target.reads.keys()]));
  const linesOf = new Map();
  for (const place of seen) linesOf.set(fileOf(place), (linesOf.get(fileOf(place)) || 0) + 1);
  const keyOf = (place) => {
    const file = fileOf(place);
    return seen.size > PLACES && linesOf.get(file) > 1 && !openFiles.has(file) ? `f${file}` : `p${place}`;
  };
  const byKey = new Map();
  for (const target of targets) {
    for (const [place, times] of target.reads) {
      const key = keyOf(place);
      if (!byKey.has(key)) byKey.set(key, { key, place, isFile: key[0] === "f", ends: new Map(), members: new Set() });
      const gathered = byKey.get(key);
      gathered.members.add(place);
      gathered.ends.set(target, (gathered.ends.get(target) || 0) + times);
    }
  }
  return [...byKey.values()];
}

function drawEdges() {
  if (!data.places.length) return;
  const frame = picture.getBoundingClientRect();
  for (const target of targets) {
    const around = target.element.getBoundingClientRect();
    const size = target.element.querySelector(":scope > .size");
    target.x = (size ? size.getBoundingClientRect().left - 3 : around.left) - frame.left;
    target.y = around.top + around.height / 2 - frame.top;
  }
  places = gather();
  for (const place of places) place.entry = drawPlace(place);
  const ordered = places.flatMap((place) => [...place.ends].map(([target, times]) => ({ place, target, times })));
  ordered.sort((a, b) => Number(a.target.shared) - Number(b.target.shared)); // shared ones lie on top
  lines = ordered.map(({ place, target, times }) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    if (target.shared) path.classList.add("shared");
    if (target.shared && times > 1) path.classList.add("many");
    return { path, place, target };
  });
  lay();
  rail.replaceChildren(...places.map((place) => place.entry));
  edges.replaceChildren(...lines.map((line) => line.path));
  light(pinned);
}

// Puts each place beside what it reads: beside that part of it which is in sight, if any is.
function lay() {
  const frame = picture.getBoundingClientRect();
  const height = Math.max(boxes.offsetHeight, GAP * places.length);
  const inSight = (target) => target.y + frame.top > 0 && target.y + frame.top < window.innerHeight;
  for (const place of places) {
    const all = [...place.ends];
    const seen = all.filter(([target]) => inSight(target));
    let weight = 0;
    let sum = 0;
    for (const [target, times] of seen.length ? seen : all) {
      const heavy = times * (target.shared ? 4 : 1);
      weight += heavy;
      sum += heavy * target.y;
    }
    place.y = sum / weight;
  }
  places.sort((a, b) => a.y - b.y || a.place - b.place);
  spread(height);
  rail.style.height = `${height}px`;
  for (const place of places) place.entry.style.top = `${place.y - 12}px`;
  const start = rail.offsetLeft + rail.offsetWidth;
  const end = boxes.offsetLeft;
  const middle = (start + end) / 2;
  for (const { path, place, target } of lines) {
    const [from, to] = [place.y.toFixed(1), target.y.toFixed(1)];
    path.setAttribute("d", `M${start} ${from}C${middle} ${from} ${middle} ${to} ${end} ${to}H${target.x.toFixed(1)}`);
  }
}

let asked = false;
window.addEventListener("scroll", () => {
  if (asked || lines.length > FOLLOWING) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    lay();
  });
});

// Moves places apart, so that neighbours have room, within the height that there is.
function spread(height) {
  let least = GAP / 2;
  for (const place of places) {
    place.y = Math.max(place.y, least);
    least = place.y + GAP;
  }
  let most = height - GAP / 2;
  for (const place of [...places].reverse()) {
    place.y = Math.min(place.y, most);
    most = place.y - GAP;
  }
}

function drawPlace(place) {
  const { file, line, full } = data.places[place.place];
  const entry = element("button", "place", element("span", "file", file));
  entry.type = "button";
  entry.append(element("span", "line", place.isFile ? `\u00a0${place.members.size} lines` : line));
  entry.title = place.isFile ? `${file}: ${place.members.size} lines` : full;
  entry.dataset.key = place.key;
  entry.classList.toggle("shared", [...place.ends.keys()].some((target) => target.shared));
  entry.setAttribute("aria-pressed", String(pinned === place.key));
  entry.addEventListener("click", () => {
    if (place.isFile) {
      openFiles.add(fileOf(place.place));
      drawEdges();
    } else {
      pinned = pinned === place.key ? null : place.key;
      for (const each of places) each.entry.setAttribute("aria-pressed", String(each.key === pinned));
      light(pinned);
    }
  });
  return entry;
}

// Lights the edges of a place (its key) or of a leaf or folded scope (its element), and what they lead to.
function light(what) {
  for (const each of [...picture.querySelectorAll(".lit")]) each.classList.remove("lit");
  const key = typeof what === "string" ? what : null;
  const lit = lines.filter(({ place, target }) => (key === null ? target.element === what : place.key === key));
  picture.classList.toggle("focused", lit.length > 0);
  for (const { path, place, target } of lit) {
    for (const each of [path, target.element, place.entry]) each.classList.add("lit");
  }
}

const litBy = (event) => event.target.closest(".place, .leaf, .head[aria-expanded='false']");
for (const [start, stop] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  picture.addEventListener(start, (event) => {
    const source = litBy(event);
    if (source) light(source.dataset.key || source);
  });
  picture.addEventListener(stop, (event) => {
    if (litBy(event)) light(pinned);
  });
}

// Controls --------------------------------------------------------------------------------------------------------

function setAll(open) {
  const visit = (scope) => {
    for (const child of scope.scopes.values()) {
      child.open = open;
      visit(child);
    }
  };
  visit(root);
  draw();
}

function legend() {
  const list = document.getElementById("legend");
  const entries = [["", "a square for each variable, its area in proportion to its bytes", true]];
  entries.push(["shared", "shared: read more than once", variables.some(isShared)]);
  entries.push(["frozen", "frozen: not trainable", variables.some((variable) => variable.frozen)]);
  entries.push(["doubt", "made under AUTO_REUSE, read once, near another name", variables.some((variable) => variable.near)]);
  entries.push(["edge", "from each line that reads it", data.places.length > 0]);
  for (const [kind, text, there] of entries) if (there) list.append(element("li", "", element("i", kind), text));
}

let typed = 0;
find.addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(choose, 80);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== find) {
    event.preventDefault();
    find.focus();
  } else if (event.key === "Escape" && find.value) {
    find.value = "";
    choose();
  }
});
onlyShared.addEventListener("click", () => {
  onlyShared.setAttribute("aria-pressed", String(onlyShared.getAttribute("aria-pressed") !== "true"));
  choose();
});
onlyShared.hidden = !variables.some(isShared);
document.getElementById("unfold").addEventListener("click", () => setAll(true));
document.getElementById("fold").addEventListener("click", () => setAll(false));
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth !== width) {
    width = window.innerWidth;
    draw();
  }
});

picture.classList.toggle("without-places", !data.places.length);
legend();
unfoldSome();
draw();
