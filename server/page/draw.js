// Building elements. Whatever comes from a montage enters the page as text or as an attribute's value, never as markup.

const SVG = "http://www.w3.org/2000/svg";
export const WIDTH = 1000;
export const MARGIN = 34;

export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

export function canvas(height, label) {
  return shape("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label });
}

// Seconds to pixels: every drawing of a shot shares this axis.
export function axis(duration) {
  const span = WIDTH - 2 * MARGIN;
  return {
    duration,
    x: (second) => MARGIN + (Math.min(Math.max(second, 0), duration) / duration) * span,
    second: (x) => Math.min(Math.max(((x - MARGIN) / span) * duration, 0), duration),
  };
}

export function seconds(value) {
  return `${Math.round(value * 100) / 100} s`;
}

export function shortened(text, pixels) {
  const fits = Math.max(0, Math.floor(pixels / 6.2));
  return text.length <= fits ? text : fits < 3 ? "" : `${text.slice(0, fits - 1)}…`;
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
