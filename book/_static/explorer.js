/* The explorer of two groups of classes (book/explorer.md). First the mathematics, then the drawing, then the controls.
   One classic script without dependencies, so that the page works when it is opened as a file. */
(function () {
"use strict";

// The mathematics -------------------------------------------------------------------------------------------------
// As in ncutils/exact/_scalar_equations.py: for a sample of group g (h is the other group) p_o is the probability of each other class
// of g and x = p_x that of each class of h. All is explicit in psi = ln(p_xB/p_xA). Index 0 is A, index 1 is B.

const PHASES = ["distinct", "minority collapse", "minority vanishes", "trivial"];
const ON_THE_LINE = 1e-12; // this close to a threshold counts as on it

/** Zero of an increasing f(x) = [value, slope] in [low, high], or null where f is: Newton's steps, and halving of the
    bracket where such a step leaves it or the steps do not shrink. */
function root(f, low, high, x) {
  let former = high - low;
  for (let count = 0; count < 400; count++) {
    const at = f(x);
    if (at === null) return null;
    const [value, slope] = at;
    if (value === 0) return x;
    if (value < 0) low = x; else high = x;
    let step = -value / slope;
    const newton = x + step > low && x + step < high && Math.abs(step) < former / 2; // false for NaN
    if (!newton) step = (low + high) / 2 - x;
    x += step;
    former = Math.abs(step);
    const size = 1 + Math.abs(x);
    if (newton ? former <= 1e-11 * size : high - low <= 4e-16 * size) break;
  }
  return x;
}

/** What all equations need of the setting {kA, kB, nA, nB, lamZ, lamB}; lamB = Infinity is no bias. */
function problem({kA, kB, nA, nB, lamZ, lamB}) {
  const k = [kA, kB], n = [nA, nB], K = kA + kB, N = kA * nA + kB * nB;
  const logTau = n.map(size => Math.log(lamZ * N) - Math.log(size) / 2);
  const total = logTau.map((log, g) => k[g] > 1 ? Math.exp(Math.min(log, 0)) : 1); // T_g = 1 − p_d + p_o
  const pull = [K * nA / (N * lamB), -K * nB / (N * lamB)]; // b_A − b_B is the sum of pull · p_x
  return {k, n, K, N, lamZ, lamB, level: lamZ * N, logTau, total, pull};
}

/** p_o and 1 − p_d of group g from x = p_x. A group of one class has no p_o: any positive number will do. */
function ownGroup(p, g, x) {
  const other = p.k[g] > 1 ? (p.total[g] - p.k[1 - g] * x) / p.k[g] : 1;
  return [other, (p.k[g] - 1) * other + p.k[1 - g] * x];
}

/** m_g, bias included, and −dm_g/d ln p_x; −Infinity where x leaves the own group no probability. */
function contrast(p, g, x) {
  const [other, rest] = ownGroup(p, g, x), k = p.k[g];
  if (!(other > 0 && rest < 1)) return [-Infinity, NaN];
  return [(Math.log1p(-rest) + (k - 1) * Math.log(other)) / k - Math.log(x),
    1 + p.k[1 - g] * x * (1 / (1 - rest) + (k - 1) / other) / (k * k)];
}

/** p_x of both groups on the ellipse K (K_B n_A p_xA² + K_A n_B p_xB²) = (λ_Z N)², and |d ln p_x/d psi|. */
function crossing(p, psi) {
  const [kA, kB] = p.k, [nA, nB] = p.n, u = kA * Math.exp(2 * psi) * nB / nA;
  const x = Math.exp(p.logTau[0]) / Math.sqrt(p.K * (kB + u));
  return [[x, x * Math.exp(psi)], [u / (kB + u), kB / (kB + u)]];
}

/** p_x of both groups where Z tells the groups apart; null where it does not. */
function told(p) {
  if (!(p.logTau[0] < -ON_THE_LINE)) return null;
  const psi = root(psi => { // M_A e^{psi/2} − M_B e^{−psi/2}, which increases, and its slope
    const [x, turn] = crossing(p, psi), power = [Math.exp(psi / 2), Math.exp(-psi / 2)];
    const beta = p.pull[0] * x[0] + p.pull[1] * x[1];
    const fall = p.pull[0] * x[0] * turn[0] - p.pull[1] * x[1] * turn[1];
    const [[mA, slopeA], [mB, slopeB]] = [contrast(p, 0, x[0]), contrast(p, 1, x[1])];
    const M = [p.k[0] * (mA - beta), p.k[1] * (mB + beta)];
    if (M[0] <= 0 && M[1] <= 0) return null; // then no psi has both positive
    const slopes = [p.k[0] * (slopeA * turn[0] + fall), p.k[1] * (slopeB * turn[1] + fall)];
    return [M[0] * power[0] - M[1] * power[1],
      power[0] * (slopes[0] + Math.max(M[0], 0) / 2) + power[1] * (slopes[1] + Math.max(M[1], 0) / 2)];
  }, -300, 300, 0);
  if (psi === null) return null;
  const [x] = crossing(p, psi);
  return contrast(p, 0, x[0])[0] + contrast(p, 1, x[1])[0] > ON_THE_LINE ? x : null;
}

/** p_x of both groups where minority columns of Z are zero and Z does not tell the groups apart. */
function untold(p) {
  const minority = m => 1 / (p.k[0] + p.k[1] * Math.exp(-m)); // at the logits b alone
  const log = root(y => {
    const x = Math.exp(y), [m, slope] = contrast(p, 0, x), xB = minority(m);
    return [p.pull[0] * x + p.pull[1] * xB - m,
      slope + p.pull[0] * x - p.pull[1] * xB * (1 - p.k[0] * xB) * slope];
  }, -700, 0, -Math.log(p.K));
  const x = Math.exp(log);
  return [x, minority(contrast(p, 0, x)[0])];
}

/** ‖G‖ between the groups over λ_Z, G being the gradient: above 1, Z must tell the groups apart. */
const tension = (p, x) =>
  Math.sqrt(p.K * (p.k[1] * p.n[0] * x[0] ** 2 + p.k[0] * p.n[1] * x[1] ** 2)) / p.level;

/** The values of λ_Z N from which on minority classes merge; at which minority means become zero, cease to be, become zero …,
    ascending; from which on Z = 0. As theory.vanishing_thresholds: S = tension² is T_1 + T_2, and zero means need S ≤ 1. */
function thresholds({kA, kB, nA, nB, lamB}) {
  const K = kA + kB, N = kA * nA + kB * nB, share = kA / kB, low = Math.log(nB) / 2, high = Math.log(nA) / 2;
  const untoldAt = log => { const p = problem({kA, kB, nA, nB, lamB, lamZ: Math.exp(log) / N}); return [p, untold(p)]; };
  const found = vanish => ({collapse: Math.sqrt(nB), vanish, trivial: kA === 1 ? vanish[0] : Math.sqrt(nA)});
  if (nA === nB) return found([Math.sqrt(nA)]);
  if (kA === 1) { const [p, x] = untoldAt(high); return found([tension(p, x) * p.level]); } // x is the same at all levels
  const at = log => { const [p, x] = untoldAt(log); return [ownGroup(p, 0, x[0])[0] / x[0], x[1]]; }; // p_o/p_x, p_y: both rise
  const excess = (log, [y, pY]) => // (T_1 − 1 + T_2) K_B/K_A, in which nothing cancels
    (1 - 2 * y - share * y * y) / (1 + share * y) ** 2 + K * kB * nB * (pY / Math.exp(log)) ** 2;
  const steps = (low, high, atLow, atHigh) => { // [log, S ≤ 1], so close that S = 1 nowhere between, or 1e-5 apart
    const never = excess(high, [atHigh[0], atLow[1]]) > 0 || excess(low, [atLow[0], atHigh[1]]) < 0;
    if (never || high - low <= 1e-5) return [[high, excess(high, atHigh) <= 0]];
    const middle = (low + high) / 2, atMiddle = at(middle);
    return [...steps(low, middle, atLow, atMiddle), ...steps(middle, high, atMiddle, atHigh)];
  };
  const crossing = (low, high, sign) => {
    let former = [NaN, NaN];
    return Math.exp(root(log => { // slopes are the secant's
      const value = sign * excess(log, at(log)), slope = (value - former[1]) / (log - former[0]);
      former = [log, value];
      return [value, slope];
    }, low, high, (low + high) / 2));
  };
  const unique = lamB === Infinity || kB <= Math.E ** 2 * kA || K * nA / (N * lamB) <= Math.E * kA + kB || nA <= Math.E * nB;
  const inner = unique ? [] : steps(low, high, at(low), at(high)).slice(0, -1), edges = [[low, false], ...inner, [high, true]];
  return found(edges.slice(1).flatMap(([end, zero], i) => zero === edges[i][1] ? [] : [crossing(edges[i][0], end, zero ? -1 : 1)]));
}

/** The global optimum of (CVX), its certificate, and all that is shown. */
function solve(setting) {
  const p = problem(setting), {k, n, K, N, lamZ, lamB} = p, groups = [0, 1];
  const separate = told(p), x = separate || untold(p);
  const beta0 = p.pull[0] * x[0] + p.pull[1] * x[1];
  const own = groups.map(g => ownGroup(p, g, x[g]));
  const a = groups.map(g => k[g] > 1 && p.logTau[g] < -ON_THE_LINE // p_d − p_o = 1 − T_g: nothing cancels in a small gap
    ? Math.log1p(-Math.expm1(p.logTau[g]) / own[g][0]) : 0);
  const mean = groups.map(g => contrast(p, g, x[g])[0]), share = groups.map(g => x[g] / k[g]);
  const m = groups.map(g => separate ? (mean[0] + mean[1]) * share[g] / (share[0] + share[1]) : 0);
  const beta = p.pull[0] * x[0] > 1 ? mean[0] - m[0] : beta0; // the better conditioned of two equal values

  const penalty = lamB === Infinity ? 0 : lamB * k[0] * k[1] / K / 2; // (λ_b/2)‖b‖² = penalty · β²
  const s = groups.map(g => m[g] * k[g] * Math.sqrt(k[1 - g] / K * n[g]));
  const nuclear = groups.reduce((sum, g) => sum + (k[g] - 1) * a[g] * Math.sqrt(n[g]), Math.hypot(...s));
  const shrink = 1 / Math.max(1, tension(p, x)); // a point of the dual however the root came out
  const xlogx = q => q > 0 ? q * Math.log(q) : 0;
  let loss = 0, entropy = 0;
  for (const g of groups) {
    const h = 1 - g, z = m[g] + (g ? -beta : beta), [other, rest] = own[g], weight = k[g] * n[g] / N;
    loss += weight * Math.log1p((k[g] - 1) * Math.exp(-a[g]) + k[h] * Math.exp(-z - a[g] * (1 - 1 / k[g])));
    entropy -= weight * ((1 - shrink * rest) * Math.log1p(-shrink * rest)
      + (k[g] - 1) * xlogx(shrink * other) + k[h] * xlogx(shrink * x[g]));
  }
  const objective = loss + lamZ * nuclear + penalty * beta ** 2;
  const dual = entropy - penalty * (shrink * beta0) ** 2;

  const column = g => {
    const middle = k[1 - g] * m[g] / K; // over the own group; a column sums to zero
    return {own: middle + a[g] * (1 - 1 / k[g]), other: k[g] > 1 ? middle - a[g] / k[g] : NaN, cross: 0 - k[g] * m[g] / K};
  };
  const phase = separate ? (k[1] > 1 && a[1] === 0 ? 1 : 0) : (k[0] > 1 && a[0] > 0 ? 2 : 3);
  return {setting, K, N, level: p.level, phase, columns: [column(0), column(1)],
    gaps: groups.map(g => k[g] > 1 ? a[g] : NaN), bias: [k[1] * beta / K, 0 - k[0] * beta / K],
    cosines: {logits: cosines(p, a, m, "logits"), features: cosines(p, a, m, "features"), classifier: cosines(p, a, m, "classifier")},
    objective, gap: (objective - dual) / objective};
}

/** [within A, within B, across] of the columns of Z, the class means or the rows of W; NaN without two nonzero vectors.
    Squared lengths are a part within the group and a part between the groups, up to a factor for each group. */
function cosines({k, n, K}, a, m, of) {
  const s = [0, 1].map(g => m[g] * k[g] * Math.sqrt(k[1 - g] / K * n[g])), size = Math.hypot(...s);
  const shares = [0, 1].map(g => { // of a squared length: within the group, between the groups
    const within = a[g] * (k[g] - 1), far = k[1 - g] / K, weight = Math.sqrt(n[g]);
    const [inner, outer] = of === "logits" ? [a[g] * within / k[g], m[g] ** 2 * k[g] * far]
      : of === "features" ? [within, s[g] ** 2 / ((size || 1) * weight)] : [weight * within, size * far];
    return a[g] > 0 ? [inner / (inner + outer), outer / (inner + outer)] : m[g] > 0 ? [0, 1] : [NaN, NaN];
  });
  const inside = g => k[g] > 1 ? 1 - shares[g][0] * k[g] / (k[g] - 1) : NaN;
  return [inside(0), inside(1), m[0] > 0 ? -Math.sqrt(shares[0][1] * shares[1][1]) : NaN]; // 1 − (1 − f) would cancel
}

// The drawing -------------------------------------------------------------------------------------------------------

const WORDS = [
  ["Distinct", "All class means differ.", "Each class keeps a mean vector of its own, so every class can be told from every other."],
  ["Minority collapse", "All minority classes share one mean vector.",
    "Minority can still be told from majority, but one minority class not from another."],
  ["Minority vanishes", "All minority means are zero.", "Only majority classes are told apart. A minority sample gets the bias alone."],
  ["Trivial", "All class means are zero.", "The penalty is too strong for anything to be learnt. Every sample gets the bias alone."]];
const KINDS = {logits: "logits", features: "features", classifier: "classifiers"};
const GROUPS = ["A", "B", "AB"];
const $ = id => document.getElementById("ex-" + id);

const raised = power => "10" + String(power).replace(/./g, c => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".indexOf(c)]);
/** A number for reading, with about `digits` significant digits and a real minus sign. */
function show(value, digits = 4) {
  const size = Math.abs(value), small = size < 1e-3 || size >= 1e6;
  if (value === 0 || !small) return String(Number(value.toPrecision(digits))).replace("-", "−");
  const [factor, power] = value.toExponential(Math.min(digits, 3) - 1).split("e");
  return `${factor.replace("-", "−")} · ${raised(Number(power))}`;
}
/** A power of ten beside an axis. */
const tick = power => Math.abs(power) > 3 ? raised(power) : String(Number(`1e${power}`));
/** A cosine with three decimals; 1 and 0 only where it is. */
function showCosine(value) {
  const size = Math.abs(value), text = size === 0 || size === 1 ? String(value) : size > 0.9995 ? (value < 0 ? "<" : ">") + value.toFixed(9).slice(0, value < 0 ? 6 : 5)
    : size < 5e-4 ? show(value, 2) : value.toFixed(3);
  return text.replace("-", "−");
}
const html = text => text.replace(/ = |_Z N/g, part => part.replace(/ /g, "\u00a0")).replace(/_(\w)/g, "<sub>$1</sub>");
const plain = text => text.replace(/_/g, " ");
const rich = text => text.replace(/_(\w)/g, '<tspan class="ex-sub" dy="3">$1</tspan><tspan dy="-3">\u200b</tspan>');
const label = (x, y, text, kind = "") => `<text x="${x}" y="${y}" class="${kind}">${rich(text)}</text>`;
const line = (x1, y1, x2, y2, kind) => `<path d="M${x1} ${y1}L${x2} ${y2}" class="${kind}"/>`;
const box = (x, y, width, height, kind, fill = "") =>
  `<rect x="${x}" y="${y}" width="${Math.max(width, 0)}" height="${Math.max(height, 0)}" class="${kind}"${fill && ` fill="${fill}"`}/>`;

/** The group's marker: circle A, square B, triangle across. */
function marker(group, x, y, r = 5) {
  const shape = [`M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
    `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`, `M${x} ${y - r - 1}l${r + 1} ${2 * r}h${-2 * r - 2}z`];
  return `<path class="ex-mark ex-${GROUPS[group]}" d="${shape[group]}"/>`;
}

const STOPS = [[35, 105, 189], [148, 180, 217], [250, 250, 250], [217, 156, 153], [169, 55, 59]]; // blue, white, red
function colour(t) {
  const at = 2 * (Math.min(Math.max(t, -1), 1) + 1), i = Math.min(Math.floor(at), 3);
  return `rgb(${STOPS[i].map((c, j) => Math.round(c + (at - i) * (STOPS[i + 1][j] - c)))})`;
}

function drawMap(result) {
  const {K, columns: [A, B], setting: {kA, kB}} = result, left = 38, top = 34, side = 204, cell = side / K;
  const largest = Math.max(...[A, B].flatMap(Object.values).filter(Number.isFinite).map(Math.abs));
  const bound = [1, 2, 4, 8, 16].find(b => b >= largest) || 32;
  const fill = value => colour(value / bound), a = kA * cell, b = kB * cell;
  const diagonal = (from, to, value) => `<path class="ex-crisp" fill="${fill(value)}" d="${Array.from({length: to - from},
    (_, i) => `M${left + (from + i) * cell} ${top + (from + i) * cell}h${cell}v${cell}h${-cell}z`).join("")}"/>`;
  const grid = K > 25 ? "" : Array.from({length: K - 1}, (_, i) => (i + 1) * cell)
    .map(at => `M${left + at} ${top}v${side}M${left} ${top + at}h${side}`).join("");
  const x = left + side + 14, names = (at, size, group) => label(at + size / 2, top - 6, group, `ex-mid ex-bold ex-text-${group}`);
  const rows = (at, size, group) => label(left - 10, at + size / 2 + 4, group, `ex-mid ex-bold ex-text-${group}`);
  $("map").innerHTML =
    `<defs><linearGradient id="ex-scale" x2="0" y2="1">${[1, .5, 0, -.5, -1].map((t, i) => `<stop offset="${i / 4}" stop-color="${colour(t)}"/>`).join("")}</linearGradient></defs>`
    + box(left, top, a, a, "ex-crisp", kA > 1 ? fill(A.other) : "none") + box(left + a, top, b, a, "ex-crisp", fill(B.cross))
    + box(left, top + a, a, b, "ex-crisp", fill(A.cross)) + box(left + a, top + a, b, b, "ex-crisp", kB > 1 ? fill(B.other) : "none")
    + diagonal(0, kA, A.own) + diagonal(kA, K, B.own) + `<path class="ex-cells" d="${grid}"/>`
    + `<path class="ex-edges" d="M${left + a} ${top}v${side}M${left} ${top + a}h${side}M${left} ${top}h${side}v${side}h${-side}z"/>`
    + names(left, a, "A") + names(left + a, b, "B") + rows(top, a, "A") + rows(top + a, b, "B")
    + label(left + side / 2, 12, "class of the sample (column)", "ex-mid")
    + `<text class="ex-mid" transform="translate(11 ${top + side / 2}) rotate(-90)">logit of class (row)</text>`
    + box(x, top, 12, side, "ex-edge", "url(#ex-scale)")
    + [1, .5, 0, -.5, -1].map((t, i) => line(x + 12, top + i * side / 4, x + 16, top + i * side / 4, "ex-axis")
      + label(x + 20, top + i * side / 4 + 4, show(t * bound))).join("");
  const entry = (c, g) => `majority minority`.split(" ")[g] + ` columns: own class ${show(c.own)}`
    + (Number.isFinite(c.other) ? `, another class of the group ${show(c.other)}` : "") + `, a class of the other group ${show(c.cross)}`;
  $("map").setAttribute("aria-label", `Heat map of Z, ${K} by ${K}. In ${entry(A, 0)}. In ${entry(B, 1)}.`);
}

/** Why a cosine is missing. */
const missing = (result, group) =>
  group < 2 && [result.setting.kA, result.setting.kB][group] === 1 ? "none (one class)" : "none (zero vector)";

function drawCosines(result) {
  const left = 100, right = 258, scale = c => left + (c + 1) / 2 * (right - left), frame = -1 / (result.K - 1), end = 208;
  let out = [-1, -.5, 0, .5, 1].map(c => line(scale(c), 14, scale(c), end, "ex-grid") + label(scale(c), end + 14, show(c), "ex-mid")).join("");
  out += line(scale(frame), 14, scale(frame), end, "ex-frame")
    + label(scale(frame), 10, `ETF ${showCosine(frame)}`, frame < -0.6 ? "" : "ex-mid");
  Object.entries(KINDS).forEach(([of, name], i) => {
    out += label(0, 30 + 66 * i, name, "ex-bold");
    GROUPS.forEach((group, g) => {
      const y = 26 + 66 * i + 18.5 * g, value = result.cosines[of][g];
      out += label(86, y + 4, group, `ex-end ex-bold ex-text-${group}`);
      out += Number.isNaN(value) ? label(316, y + 4, missing(result, g), "ex-end ex-halo")
        : line(scale(frame), y, scale(value), y, `ex-stem ex-${group}`) + marker(g, scale(value), y) + label(316, y + 4, showCosine(value), "ex-end");
    });
  });
  $("cosines").innerHTML = out + label((left + right) / 2, end + 28, "cosine", "ex-mid");
  $("cosines").setAttribute("aria-label", "Cosines within A, within B and across. " + Object.keys(KINDS).map(of => `${KINDS[of]}: `
    + result.cosines[of].map((c, g) => Number.isNaN(c) ? missing(result, g) : showCosine(c)).join(", ")).join("; ") + `. ETF: ${showCosine(frame)}.`);
}

/** The lines that apply: [name, λ_Z N, the phase that begins there]; from every second v on the minority is not zero again. */
function lines(setting, lined) {
  const {kA, kB} = setting, passages = lined.vanish.map((v, i) => ["v", v, i % 2 ? 1 : 2]);
  const all = [["√n_B", lined.collapse, 1], ...passages, ["√n_A", lined.trivial, 3]];
  return all.filter(([name]) => !(name === "√n_B" && kB === 1) && !(name === "√n_A" && kA === 1))
    .map(([name, at, phase]) => [name, at, phase === 2 && kA === 1 ? 3 : phase]);
}

function drawAxis(result, lined) {
  const marks = lines(result.setting, lined), levels = [result.level, ...marks.map(m => m[1])], left = 6, right = 314, top = 60, bottom = 82;
  const low = Math.log(Math.min(...levels) / 2.2), high = Math.log(Math.max(...levels) * 2.2);
  const scale = value => left + (Math.log(value) - low) / (high - low) * (right - left);
  const edges = [left, ...marks.map(m => scale(m[1])), right], late = edges[edges.length - 2] > 170, here = scale(result.level);
  let out = [0, ...marks.map(m => m[2])].map((phase, i) => box(edges[i], top, edges[i + 1] - edges[i], bottom - top, `ex-phase-${phase}`)).join("");
  const names = [...new Set(marks.map(m => m[0]))];
  marks.forEach(([name, value], i) => { // the label's row: no leader crosses another label
    const x = scale(value), row = names.indexOf(name), y = 12 + 18 * (late ? names.length - 1 - row : row);
    const all = marks.filter(m => m[0] === name), text = value === all[0][1] ? `${name} = ${all.map(m => show(m[1])).join(", ")}` : "";
    const back = x > (all.length > 1 ? 160 : late ? 90 : 224);
    out += line(x, text ? y - 9 : top, x, bottom, "ex-axis") + (text && label(back ? x - 4 : x + 4, y, text, back ? "ex-end ex-halo" : "ex-halo"));
  });
  out += box(left, top, right - left, bottom - top, "ex-edge", "none") + `<path class="ex-here" d="M${here} ${top - 3}V${bottom + 4}l5 9h-10l5 -9"/>`
    + label(Math.min(Math.max(here, 54), 266), bottom + 28, `λ_Z N = ${show(result.level)}`, "ex-mid ex-bold");
  const gaps = result.gaps, largest = Math.max(1, ...gaps.filter(Number.isFinite)), bound = [1, 2, 4, 8, 16].find(b => b >= largest) || 32;
  const gapped = g => Number.isNaN(gaps[g]) ? "none (one class)" : gaps[g] === 0 ? "0 (collapsed)" : show(gaps[g]);
  const zero = 36, width = 186, unit = width / bound, base = 204;
  out += label(0, 138, "gap within a group, in nats", "ex-bold");
  for (let t = 0; t <= 4; t++)
    out += line(zero + t * width / 4, 148, zero + t * width / 4, base, "ex-grid") + label(zero + t * width / 4, base + 14, show(t * bound / 4), "ex-mid");
  gaps.forEach((gap, g) => {
    const y = 162 + 28 * g, end = zero + (gap || 0) * unit;
    out += label(28, y + 4, `a_${GROUPS[g]}`, `ex-end ex-bold ex-text-${GROUPS[g]}`) + (Number.isNaN(gap) ? "" : line(zero, y, end, y, `ex-bar ex-${GROUPS[g]}`) + marker(g, end, y, 6))
      + label(316, y + 4, gapped(g), "ex-end ex-halo");
  });
  $("axis").innerHTML = out;
  $("axis").setAttribute("aria-label", `λ_Z N is ${show(result.level)}. Thresholds: ` + marks.map(([name, value]) => `${plain(name)} ${show(value)}`).join(", ")
    + `. Gap within A ${gapped(0)}, within B ${gapped(1)}.`);
}

let curve = {key: ""}; // v(r)/sqrt(n_B), one curve for all that can be entered; changes with K_A, K_B and λ_b only
function vanishingCurve({kA, kB, lamB}, decades) {
  const key = [kA, kB, lamB, decades].join();
  if (curve.key !== key) {
    const points = Array.from({length: 41}, (_, i) => [10 ** (decades * i / 40), 0]);
    points.forEach(point => { [point[1]] = thresholds({kA, kB, lamB, nA: point[0], nB: 1}).vanish; });
    curve = {key, points};
  }
  return curve.points;
}

function drawDiagram(result) {
  const {setting} = result, {kA, kB, nA, nB} = setting, r = nA / nB, height = result.level / Math.sqrt(nB);
  const decades = Math.max(2, Math.ceil(Math.log10(r) + 0.1)), left = 42, right = 310, top = 6, bottom = 196;
  const low = Math.min(-0.6, Math.log10(height) - 0.3), high = Math.max(decades / 2 + 0.5, Math.log10(height) + 0.2);
  const X = value => left + Math.log10(value) / decades * (right - left);
  const Y = value => bottom - (Math.log10(value) - low) / (high - low) * (bottom - top);
  const v = vanishingCurve(setting, decades), at = ([x, y]) => `${X(x).toFixed(1)} ${Y(y).toFixed(1)}`;
  const trivial = kA === 1 ? v : v.map(([x]) => [x, Math.sqrt(x)]), collapse = kB === 1 ? v : v.map(([x]) => [x, 1]);
  const between = (lower, upper, phase) => `<path class="ex-phase-${phase}" d="M${[...lower, ...[...upper].reverse()].map(at).join("L")}Z"/>`;
  const flat = value => v.map(([x]) => [x, 10 ** value]), edge = (points, kind) => `<path class="${kind}" d="M${points.map(at).join("L")}"/>`;
  const spot = X(r) < 190 ? 33 : 14; // names stand away from the ring
  const levels = [low, ...[collapse, v, trivial].map(points => Math.log10(points[spot][1])), high];
  const place = (phase, text) => { // where the region is high enough; the legend names all
    const [from, to] = [Y(10 ** levels[phase]), Y(10 ** levels[phase + 1])];
    return from - to < 16 ? "" : label(X(v[spot][0]) + 40, (from + to) / 2 + 4, text, "ex-end ex-halo");
  };
  let out = between(flat(low), collapse, 0) + between(collapse, v, 1) + between(v, trivial, 2) + between(trivial, flat(high), 3);
  out += (kB > 1 ? edge(collapse, "ex-line") : "") + edge(v, "ex-line ex-dash") + (kA > 1 ? edge(trivial, "ex-line ex-dots") : "");
  out += PHASES.map((name, phase) => place(phase, name)).join("") + box(left, top, right - left, bottom - top, "ex-edge", "none");
  for (let d = 0; d <= decades; d++) out += line(X(10 ** d), bottom, X(10 ** d), bottom + 4, "ex-axis") + label(X(10 ** d), bottom + 16, tick(d), "ex-mid");
  for (let by = Math.ceil((high - low) / 6), d = Math.ceil(low / by) * by; d <= high; d += by)
    out += line(left - 4, Y(10 ** d), left, Y(10 ** d), "ex-axis") + label(left - 6, Y(10 ** d) + 4, tick(d), "ex-end");
  const [x, y] = [X(r), Y(height)];
  $("diagram").innerHTML = out + label((left + right) / 2, bottom + 34, "n_A / n_B", "ex-mid")
    + `<text class="ex-mid" transform="translate(9 ${(top + bottom) / 2}) rotate(-90)">${rich("λ_Z N / √n_B")}</text>`
    + `<path class="ex-ring" d="M${x - 6} ${y}a6 6 0 1 0 12 0a6 6 0 1 0 -12 0M${x - 11} ${y}h5M${x + 6} ${y}h5M${x} ${y - 11}v5M${x} ${y + 6}v5"/>`;
  $("diagram").setAttribute("aria-label", `Phase diagram: the setting has n A / n B = ${show(r)} and λ_Z N / √n B = ${show(height)}, in the phase ${PHASES[result.phase]}.`);
}

/** Where λ_Z N lies, in words. */
function where(result, lined) {
  const marks = lines(result.setting, lined), shown = mark => `${mark[0]} = ${show(mark[1])}`, level = `λ_Z N = ${show(result.level)}`;
  const next = marks.findIndex((mark, i) => (i ? marks[i - 1][2] : 0) === result.phase && result.level < mark[1] * (1 + 1e-9));
  if (next === 0) return `${level} is below ${shown(marks[0])}.`;
  if (next < 0) return `${level} is at or above ${shown(marks[marks.length - 1])}.`;
  return `${level} lies from ${shown(marks[next - 1])} to below ${shown(marks[next])}.`;
}

function drawText(result, lined) {
  const [name, what, meaning] = WORDS[result.phase], {setting, columns: [A, B], gaps, bias} = result, place = where(result, lined);
  $("name").textContent = name;
  $("what").textContent = what;
  const said = setting.lamB === Infinity ? meaning.replace("the bias alone", "the same probability for every class") : meaning;
  $("meaning").innerHTML = `${said} ${html(place)}`;
  $("swatch").setAttribute("class", `ex-phase-${result.phase}`);
  const cell = (value, why = "none (one class)") => Number.isNaN(value) ? why : String(Number(value.toPrecision(6)));
  const row = (head, values) => `<tr><th scope="row">${html(head)}</th>${values.map(v => `<td>${v}</td>`).join("")}</tr>`;
  $("table-cosines").innerHTML = Object.keys(KINDS).map(of =>
    row(KINDS[of], result.cosines[of].map((c, g) => cell(c, missing(result, g))))).join("");
  $("table-groups").innerHTML = row("gap a", gaps.map(g => cell(g))) + row("logit, own class", [A, B].map(c => cell(c.own)))
    + row("logit, other class of the group", [A, B].map(c => cell(c.other))) + row("logit, class of the other group", [A, B].map(c => cell(c.cross)))
    + row("bias", bias.map(b => setting.lamB === Infinity ? "none" : cell(b)));
  $("table-all").innerHTML = row("phase", [PHASES[result.phase]]) + row("N", [result.N]) + row("λ_Z N", [cell(result.level)])
    + row("minority classes merge from √n_B", [setting.kB === 1 ? "none (one class)" : cell(lined.collapse)]) + row(`minority means are zero from v${lined.vanish.length > 1 ? ", not zero from the next v, …" : ""}`, [lined.vanish.map(v => cell(v)).join(", ")])
    + row("Z = 0 from " + (setting.kA === 1 ? "v" : "√n_A"), [cell(lined.trivial)]) + row("objective", [cell(result.objective)])
    + row("relative duality gap", [result.gap ? result.gap.toExponential(1) : "0"]);
  const cosine = (c, g) => `${["within A", "within B", "across"][g]} ${Number.isNaN(c) ? missing(result, g) : showCosine(c)}`;
  say(`${name}. ${what} ${plain(place)} Cosines of the logits: ${result.cosines.logits.map(cosine).join(", ")}. `
    + `Minority gap: ${Number.isNaN(gaps[1]) ? "none (one class)" : show(gaps[1])}.`);
}

let shown = {kA: 5, kB: 5, nA: 500, nB: 100, lamZ: 0.0027, lamB: 0.02}; // the last valid setting
function draw() {
  const result = solve(shown), lined = thresholds(shown);
  drawMap(result);
  drawCosines(result);
  drawAxis(result, lined);
  drawDiagram(result);
  drawText(result, lined);
}

// The controls --------------------------------------------------------------------------------------------------------

/** Round numbers from low to high, about equally far apart on a logarithmic scale; `whole` ones only if asked. */
function roundNumbers(low, high, whole) {
  const digits = [];
  for (let d = 100; d < 1000; d += d < 200 ? 2 : d < 500 ? 5 : 10) digits.push(d);
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const d of digits) values.push(Number(`${d}e${power - 2}`));
  return values.filter(value => value >= low && value <= high && (!whole || Number.isInteger(value)));
}
const field = (key, short, name, low, high, whole, values) => ({key, short, name, low, high, whole, values});
const CLASSES = Array.from({length: 50}, (_, i) => i + 1), SAMPLES = roundNumbers(1, 1e6, true);
const FIELDS = [field("kA", "ka", "K_A", 1, 50, true, CLASSES), field("kB", "kb", "K_B", 1, 50, true, CLASSES),
  field("nA", "na", "n_A", 1, 1e6, true, SAMPLES), field("nB", "nb", "n_B", 1, 1e6, true, SAMPLES),
  field("lamZ", "lz", "λ_Z", 1e-7, 1, false, roundNumbers(1e-7, 1)), field("lamB", "lb", "λ_b", 1e-4, 10, false, roundNumbers(1e-4, 10))];
const NUMBER = /^\+?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
let timers = {};
function later(name, delay, act) {
  clearTimeout(timers[name]);
  timers[name] = setTimeout(act, delay);
}
const say = text => later("say", 600, () => { $("live").textContent = text; });
const address = setting => "#" + FIELDS.map(f => `${f.short}=${setting[f.key] === Infinity ? "none" : setting[f.key]}`).join("&");

/** The settings in the fields, and what is wrong with them: {key: message}. `edited` is the field changed last. */
function read(edited) {
  const setting = {}, errors = {};
  for (const f of FIELDS) {
    const text = $(f.short).value.trim(), value = Number(text), range = `from ${f.low} to ${f.high}`;
    setting[f.key] = f.key === "lamB" && $("nobias").checked ? Infinity : value;
    if (setting[f.key] === Infinity && f.key === "lamB") continue;
    if (!NUMBER.test(text) || value < f.low || value > f.high || (f.whole && !Number.isInteger(value)))
      errors[f.key] = `${f.name} = ${text || "(empty)"}: must be a ${f.whole ? "whole " : ""}number ${range}.`;
  }
  if (!errors.nA && !errors.nB && setting.nA < setting.nB)
    errors[edited === "nA" ? "nA" : "nB"] = edited === "nA" ? `n_A = ${setting.nA}: must be at least n_B = ${setting.nB}, as A is the majority.`
      : `n_B = ${setting.nB}: must be at most n_A = ${setting.nA}, as A is the majority.`;
  return {setting, errors};
}

/** Put the slider of a field where its value is. */
function place(f) {
  const value = Number($(f.short).value), far = v => f.whole && f.high <= 50 ? Math.abs(v - value) : Math.abs(Math.log(v / value));
  let best = 0;
  if (value > 0) f.values.forEach((v, i) => { if (far(v) < far(f.values[best])) best = i; });
  $(f.short + "-slider").value = best;
}

/** Show what the fields say, or what is wrong with them beside the last valid picture. */
let waiting = false;
function update(edited, keep) {
  const {setting, errors} = read(edited), wrong = Object.values(errors), nobias = $("nobias").checked;
  for (const f of FIELDS) {
    const message = errors[f.key] || "", slider = $(f.short + "-slider");
    $(f.short + "-error").innerHTML = html(message.replace(/[<>&]/g, "?"));
    $(f.short).setAttribute("aria-invalid", String(Boolean(message)));
    slider.setAttribute("aria-valuetext", $(f.short).value);
    if (f.key === "lamB") $(f.short).disabled = slider.disabled = nobias;
  }
  $("results").classList.toggle("ex-old", wrong.length > 0);
  $("old").hidden = wrong.length === 0;
  if (wrong.length) $("preset").value = "";
  if (wrong.length) return say(plain(wrong.join(" ")) + " The picture shows the last valid settings.");
  shown = setting;
  $("preset").value = [...$("preset").options].some(o => o.value === address(shown)) ? address(shown) : "";
  if (keep === "push") write("pushState"); else if (keep !== "as is") later("write", 300, () => write("replaceState"));
  if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
  waiting = true;
}

/** Keep the setting in the page's address: dragging rewrites it, a preset adds an entry to go back from. */
function write(how) {
  clearTimeout(timers.write);
  if (location.hash === address(shown)) return;
  try { history[how](null, "", address(shown)); } catch (error) { location.replace(address(shown)); }
}

/** Fill the fields from an address; what it leaves out keeps its first value. Other anchors are let alone. */
function open(hash, keep) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  if (hash && !FIELDS.some(f => given.has(f.short))) return;
  for (const f of FIELDS) {
    const text = given.get(f.short) ?? String(FIRST[f.key]);
    if (f.key === "lamB") $("nobias").checked = text === "none";
    if (text !== "none" || f.key !== "lamB") $(f.short).value = text;
    place(f);
  }
  update("", keep);
}
const FIRST = {...shown};

async function copyLink() {
  write("replaceState");
  const done = text => { $("copied").textContent = text; later("copied", 4000, () => { $("copied").textContent = ""; }); };
  try {
    await navigator.clipboard.writeText(location.href);
    done("Link copied.");
  } catch (error) { // no permission: offer it to be copied by hand
    $("link").hidden = false;
    $("link").value = location.href;
    $("link").select();
    done("Copy the link from this field.");
  }
}

function start() {
  if (!$("map")) return;
  for (const f of FIELDS) {
    const slider = $(f.short + "-slider");
    slider.max = f.values.length - 1;
    slider.addEventListener("input", () => { $(f.short).value = f.values[slider.value]; update(f.key); });
    $(f.short).addEventListener("input", () => { place(f); update(f.key); });
  }
  $("nobias").addEventListener("change", () => update("lamB"));
  $("controls").addEventListener("submit", event => event.preventDefault());
  $("preset").addEventListener("change", event => { if (event.target.value) open(event.target.value, "push"); });
  $("copy").addEventListener("click", copyLink);
  window.addEventListener("hashchange", () => open(location.hash, "as is"));
  for (const link of document.querySelectorAll(".ex-try a")) link.addEventListener("click", () => {
    open(link.hash, "as is"); // also where the address is this one already
    document.getElementById("explorer").scrollIntoView();
  });
  document.getElementById("explorer").hidden = false;
  open("", "as is");
  draw(); // also where the address is bad or not ours
  if (location.hash) open(location.hash, "as is");
}

window.explorer = {solve, thresholds, PHASES, draw, setting: () => ({...shown}), show: setting => { shown = setting; draw(); }};
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
