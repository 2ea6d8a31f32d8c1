// The page: asks for the token once, then follows one montage. What it shows comes from GET addresses only.

import { element, seconds } from "./draw.js";
import { drawReport } from "./report.js";
import { drawTimeline } from "./timeline.js";

const API = "/page/api/montages";
const EVERY_MS = 1000;
const LIST_EVERY = 5;
const LINK_LASTS_MS = 3600e3;
const KEPT = "dreamontage-token";
const at = (id) => document.getElementById(id);
const video = at("video");

let chosen = null; // the montage that is shown
let shown = null; // its view
let thumbnails = {};
let moveHead = () => {};
let beats = 0;
let linkedAt = 0;

class Refused extends Error {}

async function ask(address) {
  const answer = await fetch(address, {
    headers: { Authorization: `Bearer ${sessionStorage.getItem(KEPT)}` },
    cache: "no-store",
    credentials: "omit",
  });
  if (answer.status === 401 || answer.status === 403) throw new Refused("This token is not valid here.");
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

async function listMontages() {
  const { montages } = await ask(API);
  if (!montages.some((m) => m.id === chosen)) chosen = montages[0]?.id ?? null;
  at("montages").replaceChildren(...montages.map((m) => {
    const facts = element("small", {}, `${seconds(m.duration_s)}, ${m.anchors} anchors, revision ${m.revision}`);
    const marks = { type: "button", "aria-current": m.id === chosen, "data-id": m.id };
    const button = element("button", marks, m.name, facts);
    button.addEventListener("click", () => choose(m.id));
    return element("li", {}, button);
  }));
  if (!montages.length) at("montages").replaceChildren(element("li", { class: "faint" }, "None yet."));
}

async function choose(id) {
  [chosen, shown, thumbnails] = [id, null, {}];
  await follow(true);
}

// One beat of the page: cheap while nothing happens, a fresh view when something did.
async function follow(listToo) {
  if (listToo) await listMontages();
  at("head").parentElement.hidden = chosen === null;
  if (chosen === null) return;
  const now = await ask(`${API}/${chosen}/pulse`);
  drawJobs(now.jobs);
  if (shown === null || signature(now) !== signature(shown)) await load();
}

function signature(view) {
  const jobs = view.jobs.map((job) => `${job.id}${job.state}${job.progress.segments_done}`);
  return `${view.version} ${jobs.join(" ")}`;
}

async function load() {
  const view = await ask(`${API}/${chosen}`);
  const known = view.plan.anchors.every((anchor) => anchor.media_id in thumbnails);
  if (!known) ({ thumbnails } = await ask(`${API}/${chosen}/thumbnails`));
  const { montage, plan } = view;
  at("name").textContent = montage.name;
  at("facts").textContent = `${montage.id}, revision ${montage.revision}: ${seconds(plan.duration_s)}, ` +
    `${montage.size}, ${montage.fps} fps, model ${montage.model}`;
  at("plan").textContent = plan.problem ?? [outlook(plan), ...plan.warnings].join(" ");
  at("changes").replaceChildren(...view.changes.map((change) => element("li", {},
    `${clock(change.at)} ${change.actor}, revision ${change.revision}: ${change.what}`)));
  moveHead = drawTimeline(at("timeline"), view, thumbnails, (second) => { video.currentTime = second; });
  if (view.video?.id !== shown?.video?.id || shown === null) play(view.video);
  at("age").textContent = view.video && age(view.video, montage.revision);
  shown = view;
}

function outlook(plan) {
  const count = plan.segments.filter((segment) => segment.action === "render").length;
  const kept = plan.segments.length - count;
  return count ? `A ${plan.quality} render would do ${count} of ${plan.segments.length} segments and keep ${kept}.`
    : `Everything is rendered at ${plan.quality} quality.`;
}

function age(film, revision) {
  const behind = film.revision === revision ? "" : `; the montage is at revision ${revision} by now`;
  return `${film.id}: ${film.quality} of revision ${film.revision}${behind}.`;
}

function play(film) {
  video.hidden = !film;
  at("report").parentElement.hidden = !film;
  at("verdict").textContent = film ? film.verdict : "No video yet.";
  if (!film) return video.removeAttribute("src");
  drawReport(at("report"), film.report);
  linkedAt = Date.now();
  video.poster = film.sheet;
  video.src = film.url;
  video.play().catch(() => {}); // a browser may want a click first
}

function drawJobs(jobs) {
  at("jobs").replaceChildren(...jobs.map((job) => {
    const { stage, done, total, seconds_left: left } = job.progress;
    const running = job.state === "running";
    const state = running ? stage : job.state;
    const words = `${job.id}: ${job.quality} of revision ${job.revision} for ${job.actor}, ${state}` +
      (running && left ? `, about ${Math.ceil(left)} s left` : "");
    const line = element("li", { class: job.state, "data-id": job.id }, words);
    if (running) line.append(element("progress", { max: Math.max(total, 1e-9), value: done, "aria-label": "done" }));
    if (job.error) line.append(element("p", {}, job.error));
    return line;
  }));
  if (!jobs.length) at("jobs").replaceChildren(element("li", { class: "faint" }, "None yet."));
}

function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString([], { hour12: false });
}

async function tick() {
  if (sessionStorage.getItem(KEPT) && !document.hidden) {
    try {
      await follow(beats++ % LIST_EVERY === 0);
      say("live", false);
    } catch (error) {
      if (error instanceof Refused) return knock(error.message);
      say(error instanceof TypeError ? "The server does not answer." : error.message, true);
      if (!(error instanceof TypeError)) chosen = null;
    }
  }
  setTimeout(tick, EVERY_MS);
}

function say(words, lost) {
  at("live").textContent = words;
  at("live").classList.toggle("lost", lost);
}

function knock(refusal = "") {
  sessionStorage.removeItem(KEPT);
  at("refusal").textContent = refusal;
  at("door").hidden = false;
  at("studio").hidden = true;
  at("token").focus();
}

function enter(token) {
  sessionStorage.setItem(KEPT, token);
  [chosen, shown, beats] = [null, null, 0];
  at("token").value = "";
  at("door").hidden = true;
  at("studio").hidden = false;
  tick();
}

// A link with an invitation opens the page once; the code is taken out of the address at once.
async function invited() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (!code) return null;
  history.replaceState(null, "", "/");
  const answer = await fetch("/page/session", { method: "POST", body: code, credentials: "omit" });
  const said = await answer.json();
  if (!answer.ok) at("refusal").textContent = said.error;
  return said.token ?? null;
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(at("token").value.trim());
});
at("leave").addEventListener("click", () => location.reload(sessionStorage.removeItem(KEPT)));
video.addEventListener("error", () => { // its link has expired: the next beat brings a new one
  if (Date.now() - linkedAt > LINK_LASTS_MS / 2) shown = null;
});
(function headMoves() {
  moveHead(video.currentTime || 0);
  requestAnimationFrame(headMoves);
})();

const token = (await invited()) ?? sessionStorage.getItem(KEPT);
if (token) enter(token);
else knock(at("refusal").textContent);
