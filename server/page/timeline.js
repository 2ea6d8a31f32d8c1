// The timeline: a ruler, the anchors with their pictures, the beats, the segments, and where the video is now.

import { MARGIN, WIDTH, axis, canvas, seconds, shape, shortened } from "./draw.js";

const RULER = 18;
const PICTURE = { width: 112, height: 63 };
const ROW = PICTURE.height + 24;
const BEAT = 22;
const SEGMENT = 18;

// Draws into `place`; returns a function that moves the playhead to a second. `seek` is called with a clicked second.
export function drawTimeline(place, view, thumbnails, seek) {
  const scale = axis(view.plan.duration_s);
  const rows = rowsOf(view.plan.anchors, scale);
  const lanes = lanesOf(view.beats);
  const top = RULER + 6;
  const beatsAt = top + Math.max(1, rows.count) * ROW + 8;
  const segmentsAt = beatsAt + Math.max(1, lanes.count) * (BEAT + 3) + 6;
  const height = segmentsAt + SEGMENT + 6;
  const svg = canvas(height, `Timeline of ${seconds(view.plan.duration_s)}`);
  svg.append(...ruler(scale, height));
  view.plan.segments.forEach((segment) => svg.append(segmentBar(segment, scale, segmentsAt)));
  view.beats.forEach((beat, i) => svg.append(beatBar(beat, scale, beatsAt + lanes.of[i] * (BEAT + 3))));
  view.plan.anchors.forEach((anchor, i) => {
    svg.append(anchorMark(anchor, scale, top + rows.of[i] * ROW, segmentsAt + SEGMENT, view, thumbnails));
  });
  const head = shape("line", { class: "head", x1: MARGIN, x2: MARGIN, y1: RULER, y2: height });
  svg.append(head);
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    seek(scale.second(((event.clientX - box.left) / box.width) * WIDTH));
  });
  place.replaceChildren(svg);
  return (second) => {
    head.setAttribute("x1", scale.x(second));
    head.setAttribute("x2", scale.x(second));
  };
}

function ruler(scale, height) {
  const step = [0.5, 1, 2, 5, 10, 30, 60].find((s) => scale.duration / s <= 16) ?? 120;
  const marks = [];
  for (let at = 0; at <= scale.duration + 1e-6; at += step) {
    const x = scale.x(at);
    marks.push(shape("line", { class: "rule", x1: x, x2: x, y1: RULER - 4, y2: height }));
    marks.push(shape("text", { x, y: 10, "text-anchor": "middle" }, `${at} s`));
  }
  return marks;
}

function anchorMark(anchor, scale, y, bottom, view, thumbnails) {
  const at = scale.x(anchor.start_s);
  const left = pictureLeft(anchor, scale);
  const pinned = anchor.strength === 1;
  const name = anchor.label || view.names[anchor.media_id] || anchor.id;
  const group = shape("g", { class: "anchor", "data-id": anchor.id });
  const asked = Math.abs(anchor.requested_s - anchor.start_s) > 5e-4 ? `, asked ${seconds(anchor.requested_s)}` : "";
  const strength = pinned ? "" : `, strength ${anchor.strength}`;
  const by = anchor.by ? `, by ${anchor.by}` : "";
  group.append(shape("title", {}, `${anchor.id} ${name} at ${seconds(anchor.start_s)}${asked}${strength}${by}`));
  if (anchor.kind === "clip") {
    const width = Math.max(0, scale.x(anchor.end_s) - at);
    group.append(shape("rect", { class: "clip-range", x: at, y, width, height: bottom - y }));
  }
  const words = shortened(`${seconds(anchor.start_s)}  ${name}`, PICTURE.width + 8);
  const kind = pinned ? "pin" : "soft-pin";
  group.append(shape("line", { class: kind, x1: at, x2: at, y1: y + PICTURE.height + 18, y2: bottom }));
  const box = { x: left, y, width: PICTURE.width, height: PICTURE.height };
  const picture = thumbnails[anchor.media_id];
  if (picture) group.append(shape("image", { ...box, href: picture, preserveAspectRatio: "xMidYMid slice" }));
  group.append(shape("rect", { ...box, class: kind, rx: 2 }));
  group.append(shape("text", { class: "ink", x: left, y: y + PICTURE.height + 13 }, words));
  return group;
}

function beatBar(beat, scale, y) {
  const [x, end] = [scale.x(beat.start_s), scale.x(beat.end_s)];
  const words = [beat.prompt, beat.camera && `(${beat.camera})`].filter(Boolean).join(" ") || beat.id;
  const span = `${seconds(beat.start_s)} to ${seconds(beat.end_s)}`;
  return shape("g", { class: "beat-bar", "data-id": beat.id },
    shape("title", {}, [beat.id, span, beat.by, words].filter(Boolean).join(", ")),
    shape("rect", { class: "beat", x, y, width: Math.max(2, end - x), height: BEAT, rx: 3 }),
    shape("text", { class: "ink", x: x + 6, y: y + 15 }, shortened(words, end - x - 12)));
}

function segmentBar(segment, scale, y) {
  const [x, end] = [scale.x(segment.start_s), scale.x(segment.end_s)];
  const made = segment.action === "render";
  const width = Math.max(1, end - x - 2);
  const words = `${made ? "to render" : "kept"}: ${segment.reason}`;
  return shape("g", { class: "segment", "data-action": segment.action },
    shape("title", {}, `${seconds(segment.start_s)} to ${seconds(segment.end_s)}, ${words}; seam: ${segment.seam}`),
    shape("rect", { class: made ? "make" : "keep", x: x + 1, y, width, height: SEGMENT, rx: 2 }),
    shape("text", { class: "ink", x: x + 6, y: y + 13 }, shortened(made ? "to render" : "kept", end - x - 12)));
}

// A still's picture stands over its second, a clip's begins there.
function pictureLeft(anchor, scale) {
  const left = scale.x(anchor.start_s) - (anchor.kind === "clip" ? 0 : PICTURE.width / 2);
  return Math.min(Math.max(left, 0), WIDTH - PICTURE.width);
}

// Pictures that would cover each other go to further rows, at most three.
function rowsOf(anchors, scale) {
  const free = [];
  const of = anchors.map((anchor) => {
    const left = pictureLeft(anchor, scale);
    let row = free.findIndex((end) => end <= left);
    if (row < 0) row = free.length < 3 ? free.length : free.indexOf(Math.min(...free));
    free[row] = left + PICTURE.width + 6;
    return row;
  });
  return { of, count: free.length };
}

function lanesOf(beats) {
  const free = [];
  const of = beats.map((beat) => {
    let lane = free.findIndex((end) => end <= beat.start_s + 1e-6);
    if (lane < 0) lane = free.length;
    free[lane] = beat.end_s;
    return lane;
  });
  return { of, count: free.length };
}
