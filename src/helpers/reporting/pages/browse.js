"use strict";
// Texts of rows reach the page as textContent alone: whatever they hold stays text.
const PER_PAGE = 25, SIDE_BY_SIDE = 50; // rows
const at = id => document.getElementById(id);
const make = (tag, text = "", facts = {}) => Object.assign(document.createElement(tag), { textContent: text, ...facts });
let rows = [], sizes = new Map(), folded = null, hits = [], page = 1;

// As the suite normalises Bengali: NFC, joiners and control characters gone, one space, digits in one script.
const UNSEEN = /(?![\t\n\r])[\p{Cc}\p{Cf}]/gu, DIGITS = "০১২৩৪৫৬৭৮৯";
const fold = text => text.normalize("NFC").replace(UNSEEN, "").replace(/\s+/g, " ")
  .replace(/[০-৯]/g, digit => DIGITS.indexOf(digit)).toLowerCase();
const textOf = row => [row.topic, row.title, ...row.turns.map(turn => turn[1])].join("\n");
const words = text => new Set(fold(text).match(/[\p{L}\p{M}\p{N}]+/gu) ?? []);

async function unpack() {
  const packed = atob(at("packed").textContent), bytes = new Uint8Array(packed.length);
  for (let place = 0; place < packed.length; place++) bytes[place] = packed.charCodeAt(place);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function filter() {
  const query = fold(at("search").value).trim(), group = at("group").value.trim().toLowerCase();
  const [part, rule, least, most] = ["part", "rule", "least", "most"].map(id => at(id).value);
  if (query) folded ??= rows.map(row => fold(textOf(row)));
  hits = [...rows.keys()].filter(place => {
    const row = rows[place];
    return (!part || row.part === part) && (!rule || row.rule === rule) && (!group || row.group.startsWith(group))
      && (!at("several").checked || sizes.get(row.group) > 1) && (!least || row.tokens >= least)
      && (!most || (row.tokens !== null && row.tokens <= most)) && (!query || folded[place].includes(query));
  });
  if (at("order").value === "tokens") hits.sort((a, b) => (rows[b].tokens ?? -1) - (rows[a].tokens ?? -1));
  if (at("order").value === "group") hits.sort((a, b) => (rows[a].group || "~") < (rows[b].group || "~") ? -1 : rows[a].group === rows[b].group ? 0 : 1);
  show(1);
}

function show(number) {
  const pages = Math.max(1, Math.ceil(hits.length / PER_PAGE)), first = () => (page - 1) * PER_PAGE;
  page = Math.min(Math.max(1, Math.trunc(number) || 1), pages);
  const places = hits.slice(first(), first() + PER_PAGE), query = pattern(at("search").value);
  at("list").replaceChildren(...places.map(place => renderRow(rows[place], "h2", (cell, text) => mark(cell, text, query))));
  at("page").value = page;
  at("page").max = pages;
  [at("before").disabled, at("after").disabled] = [page === 1, page === pages];
  const range = `${(first() + 1).toLocaleString("en")}–${(first() + places.length).toLocaleString("en")} of `;
  at("shown").textContent = `${places.length ? range : ""}${hits.length.toLocaleString("en")} rows, page ${page} of ${pages}`;
}

// A query as it may stand in a text: joiners between letters, either script of digits, any space.
function pattern(text) {
  const query = [...fold(text).trim()].map(sign => /\d/.test(sign) ? `[${sign}${DIGITS[sign]}]`
    : sign === " " ? "\\s+" : sign.replace(/[\\^$.*+?()[\]{}|/-]/u, "\\$&"));
  return query.length ? new RegExp(query.join("[\\u200c\\u200d]*"), "giu") : null;
}

function mark(cell, text, query) {
  let end = 0;
  for (const match of query ? text.matchAll(query) : []) {
    cell.append(text.slice(end, match.index), make("mark", match[0]));
    end = match.index + match[0].length;
  }
  cell.append(text.slice(end));
}

function renderRow(row, heading, write, shared = "") {
  const article = make("article"), facts = make("p", "", { className: "facts" }), list = make("dl", "", { className: "pair" });
  const title = make(heading);
  title.append(`Row ${row.number.toLocaleString("en")}`);
  if (row.topic || row.title) title.append(" · ", make("span", [row.topic, row.title].filter(Boolean).join(" · "), { lang: "bn" }));
  facts.append(make("span", row.rule ? `dropped: ${row.rule}` : row.part, { className: row.rule ? "dropped" : "" }));
  facts.append(make("span", row.tokens === null ? "tokens not counted" : `${row.tokens.toLocaleString("en")} tokens`), make("span", `id ${row.id}`));
  if (row.group) facts.append(make("span", `group ${row.group}`));
  if (shared) facts.append(make("span", shared));
  for (const [role, text] of row.turns) {
    const cell = make("dd", "", { lang: "bn" });
    write(cell, text || "—", role);
    list.append(make("dt", role), cell);
  }
  article.append(title, facts, list);
  if (heading === "h2" && sizes.get(row.group) > 1) {
    const button = make("button", `Side by side: ${sizes.get(row.group)} rows of this group`, { type: "button" });
    button.addEventListener("click", () => compare(row));
    article.append(button);
  }
  return article;
}

// The row first, then the others of its group, each with the share of words in both of the words in either.
function compare(row) {
  const side = role => other => words(other.turns.filter(turn => turn[0] === role).map(turn => turn[1]).join("\n"));
  const known = words(textOf(row)), roles = [...new Set(row.turns.map(turn => turn[0]))];
  const similar = other => roles.map(role => {
    const [a, b] = [side(role)(row), side(role)(other)], both = [...a].filter(word => b.has(word)).length;
    return `${role} ${(both / Math.max(1, a.size + b.size - both)).toFixed(2)}`;
  }).join(", ");
  const write = (cell, text) => {
    for (const piece of text.split(/([\p{L}\p{M}\p{N}\u200c\u200d]+)/u))
      cell.append([...words(piece)].some(word => !known.has(word)) ? make("mark", piece) : piece);
  };
  const others = rows.filter(other => other.group === row.group && other !== row).slice(0, SIDE_BY_SIDE - 1);
  at("side-note").textContent = `${others.length + 1} of the group's ${sizes.get(row.group)} rows. In common: of the words of `
    + "this row and the first, the share that both have, 0 to 1. Words that the first row does not have are marked.";
  at("rows").replaceChildren(renderRow(row, "h3", write), ...others.map(other => renderRow(other, "h3", write, `in common: ${similar(other)}`)));
  at("side").showModal();
}

function listen() {
  let wait = 0;
  document.querySelector("form").addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(filter, 150); });
  document.querySelector("form").addEventListener("submit", event => { event.preventDefault(); filter(); });
  document.querySelector("form").addEventListener("reset", () => setTimeout(filter));
  at("before").addEventListener("click", () => show(page - 1));
  at("after").addEventListener("click", () => show(page + 1));
  at("page").addEventListener("change", () => show(at("page").valueAsNumber));
  at("close").addEventListener("click", () => at("side").close());
}

unpack().then(unpacked => {
  rows = unpacked;
  for (const row of rows) if (row.group) sizes.set(row.group, (sizes.get(row.group) ?? 0) + 1);
  listen();
  at("reader").hidden = false;
  filter();
}).catch(problem => {
  at("why").textContent = problem.message;
  at("plain").hidden = false;
});
