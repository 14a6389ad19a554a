// Keeps a page as it is now: parts of it arrive as server-sent events. Without this file, reload.
(() => {
  "use strict";
  const live = document.getElementById("live");
  const text = document.getElementById("live-text");
  let source = null;

  const say = (word) => {
    text.hidden = false;
    text.textContent = word;
    live.dataset.state = word.toLowerCase();
  };

  // The same words as wording.py.
  const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
  const seconds = (time) => {
    for (const [size, unit, part, smaller] of units) {
      if (time < size) continue;
      const rest = Math.floor((time % size) / part);
      return `${Math.floor(time / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
    }
    return `${Math.max(0, Math.floor(time))} s`;
  };
  const tick = () => {
    for (const each of document.querySelectorAll("[data-since]")) {
      each.textContent = seconds(Date.now() / 1000 - Number(each.dataset.since));
    }
  };

  const replace = ({ id, html, digest }) => {
    const part = document.getElementById(id);
    if (!part || part.dataset.digest === digest) return;
    // What a person has opened, written, focused and scrolled to stays.
    const opened = [...part.querySelectorAll("details[open]")].map((each) => each.id);
    const written = [...part.querySelectorAll("input, select")].map((each) => [each.id, each.value]);
    const scrolled = [...part.querySelectorAll(".wide")].map((each) => [each.scrollLeft, each.scrollTop]);
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const place = focused ? [...part.querySelectorAll(focused.tagName)].indexOf(focused) : -1;
    part.innerHTML = html;
    part.dataset.digest = digest;
    for (const name of opened) document.getElementById(name)?.setAttribute("open", "");
    for (const [name, value] of written) if (name && document.getElementById(name)) document.getElementById(name).value = value;
    part.querySelectorAll(".wide").forEach((each, index) => { each.scrollTo(...(scrolled[index] || [0, 0])); });
    if (focused) {
      const same = (focused.id && document.getElementById(focused.id)) || part.querySelectorAll(focused.tagName)[place];
      same?.focus({ preventScroll: true });
    }
    tick();
  };

  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(live.dataset.events);
    source.addEventListener("open", () => say("Live"));
    // A refusal ends it; anything else is tried again.
    source.addEventListener("error", () => say(source?.readyState === EventSource.CLOSED ? "Not live: load the page again" : "Reconnecting"));
    source.addEventListener("fragments", (event) => JSON.parse(event.data).forEach(replace));
  };
  const close = () => {
    source?.close();
    source = null;
  };

  document.addEventListener("submit", (event) => {
    // A second press would send the form a second time.
    if (event.submitter?.hasAttribute("data-once")) {
      event.submitter.setAttribute("aria-disabled", "true");
      if (event.submitter.dataset.sent) event.preventDefault();
      event.submitter.dataset.sent = "yes";
    }
  });
  tick();
  setInterval(tick, 1000);
  if (live) {
    // A page that is not seen is not kept up.
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    addEventListener("pagehide", close);
    addEventListener("pageshow", open);
    open();
  }
})();
