// The measured report as plots over the shot's own seconds, so that they line up with the timeline.

import { MARGIN, WIDTH, axis, canvas, element, seconds, shape } from "./draw.js";

const HEIGHT = 84;
const FLOOR = HEIGHT - 6;
const CEILING = 12;
const EXACT_DB = 99; // what the report says of equal pixels
const VISIBLE = 3; // a seam rougher than this shows

export function drawReport(place, report) {
  const scale = axis(report.duration_s);
  const graded = report.anchors.filter((anchor) => anchor.strength === 1);
  const plots = [
    plot("Anchors", "how exactly the delivered frame is the pinned one, dB; hollow: through the autoencoder alone",
      scale, levels(report.anchors.map((a) => a.psnr_db)), (chart) => {
        report.anchors.forEach((a) => {
          chart.stem(a.snapped_s, a.psnr_db, `${a.label}: ${a.psnr_db.toFixed(1)} dB, ${offset(a)}`);
          if (a.reference_psnr_db !== null) chart.ring(a.snapped_s, a.reference_psnr_db);
        });
      }),
    plot("Sharpness", "between the anchors, in shares of theirs; 1 is equal", scale,
      levels([1.2, ...report.intervals.map((i) => i.sharpness_vs_anchors)]), (chart) => {
        chart.rule(1);
        chart.steps(report.intervals.map((i) => [i.start_s, i.end_s, i.sharpness_vs_anchors]));
      }),
    plot("Motion", "widths per second; bars along the floor: share of frames that stand still", scale,
      levels([0.1, ...report.intervals.map((i) => i.motion)]), (chart) => {
        chart.steps(report.intervals.map((i) => [i.start_s, i.end_s, i.motion]));
        report.intervals.forEach((i) => chart.still(i.start_s, i.end_s, i.static_share));
      }),
    plot("Seams and cuts", "roughness, above 3 it shows; hollow: with what the camera does there; red: a suspected cut",
      scale, levels([VISIBLE, ...report.seams.map((s) => worse(s))]), (chart) => {
        chart.rule(VISIBLE);
        report.seams.forEach((s) => {
          const own = s.fault === null ? worse(s) : Math.min(worse(s), s.fault);
          const words = `step ${s.step_ratio.toFixed(2)}, jerk ${s.jerk_ratio.toFixed(2)}, own ${own.toFixed(2)}`;
          chart.stem(s.at_s, own, words);
          chart.ring(s.at_s, worse(s));
        });
        report.cuts.forEach((c) => chart.cut(c.at_s, `${c.detector}: ${c.score.toFixed(2)}`));
        if (!report.seams.length && !report.cuts.length) chart.say("one segment, no seam; no cut found");
      }),
  ];
  const late = graded.filter((a) => a.best_offset_frames !== 0).length;
  const facts = `${graded.length - late} of ${graded.length} pinned anchors on time; ${report.frames} frames at ` +
    `${report.fps} fps, ${report.width}×${report.height}; model ${report.model}, seed ${report.seed}; ` +
    `${seconds(report.timing.total_s)} of work, ${Math.round(report.peak_memory_bytes / 2 ** 20)} MiB`;
  place.replaceChildren(element("p", { class: "faint" }, facts), ...plots, notes(report.notes));
}

function notes(found) {
  const lines = found.map((note) => element("li", { class: note.severity },
    `${seconds(note.at_s)}: ${note.what} ${note.suggestion}`));
  return element("ol", { class: "notes", "aria-label": "Notes" }, ...lines);
}

function offset(anchor) {
  const off = anchor.best_offset_frames;
  return off === 0 ? "on time" : `fits best ${Math.abs(off)} frames ${off > 0 ? "later" : "earlier"}`;
}

function worse(seam) {
  return Math.max(seam.step_ratio, seam.jerk_ratio);
}

function levels(values) {
  return Math.max(1e-6, ...values) * 1.08;
}

function plot(title, meaning, scale, top, paint) {
  const svg = canvas(HEIGHT, `${title}: ${meaning}`);
  const y = (value) => FLOOR - (Math.min(Math.max(value, 0), top) / top) * (FLOOR - CEILING);
  svg.append(
    shape("line", { class: "rule", x1: MARGIN, x2: WIDTH - MARGIN, y1: FLOOR, y2: FLOOR }),
    shape("text", { x: 0, y: CEILING + 4 }, String(Number((top / 1.08).toPrecision(2)))),
    shape("text", { x: 0, y: FLOOR }, "0"));
  paint({
    rule: (value) => svg.append(
      shape("line", { class: "one", x1: MARGIN, x2: WIDTH - MARGIN, y1: y(value), y2: y(value) })),
    steps: (parts) => parts.forEach(([from, to, v]) => {
      const [x, end] = [scale.x(from), scale.x(to)];
      svg.append(shape("g", {}, shape("title", {}, v.toFixed(2)),
        shape("rect", { class: "area", x, y: y(v), width: end - x, height: FLOOR - y(v) }),
        shape("line", { class: "curve", x1: x, x2: end, y1: y(v), y2: y(v) })));
    }),
    stem: (at, value, words) => {
      const x = scale.x(at);
      svg.append(shape("g", {}, shape("title", {}, words),
        shape("line", { class: "stem", x1: x, x2: x, y1: FLOOR, y2: y(value) }),
        shape("circle", { class: "dot", cx: x, cy: y(value), r: 4 }),
        shape("text", { class: "ink", x: x + (x > WIDTH / 2 ? -8 : 8), y: y(value) + 4,
          "text-anchor": x > WIDTH / 2 ? "end" : "start" }, value >= EXACT_DB ? "exact" : value.toFixed(1))));
    },
    ring: (at, value) => svg.append(shape("circle", { class: "ring", cx: scale.x(at), cy: y(value), r: 4 })),
    still: (from, to, share) => svg.append(shape("rect",
      { class: "keep", x: scale.x(from), y: FLOOR - 3, width: (scale.x(to) - scale.x(from)) * share, height: 3 })),
    cut: (at, words) => svg.append(shape("g", {}, shape("title", {}, words),
      shape("line", { class: "cut", x1: scale.x(at), x2: scale.x(at), y1: CEILING, y2: FLOOR }))),
    say: (words) => svg.append(shape("text", { x: WIDTH / 2, y: FLOOR - 8, "text-anchor": "middle" }, words)),
  });
  return element("figure", { class: "plot" }, element("h3", {}, `${title} `, element("span", {}, meaning)), svg);
}
