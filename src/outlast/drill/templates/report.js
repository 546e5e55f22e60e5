(() => {
  "use strict";
  const d = document, $ = id => d.getElementById(id), raw = $("json").textContent;
  d.documentElement.classList.add("on");
  const R = JSON.parse(raw), S = R.series, stage = $("stage"), end = +stage.dataset.end;
  const cross = stage.querySelector(".cross"), said = $("said");
  const outs = [...stage.querySelectorAll("output[data-kind]")];
  const row = stage.querySelector(".row");
  const num = v => v.toLocaleString("en", { maximumFractionDigits: 0 });
  const ms = v => v < 1 ? v.toFixed(2) + " ms" : v < 9.95 ? v.toFixed(1) + " ms"
    : v < 999.5 ? v.toFixed(0) + " ms" : (v / 1000).toFixed(2) + " s";
  const points = new Map(S.latency.map(p => [Math.round(p.at / S.step) + p.kind, p]));
  const total = (counts, i) => Object.values(counts).reduce((a, v) => a + (v[i] || 0), 0);
  const value = (o, i) => {
    const { kind, name } = o.dataset;
    if (kind === "ok") return S.ok[name] ? num((S.ok[name][i] || 0) / S.step) : "–";
    if (kind === "fail" || kind === "info") return num(total(S[kind], i) / S.step);
    const p = points.get(i + name);
    return p && p.count ? ms(p[kind + "_ms"]) : "–";
  };
  let now = null;
  const show = t => {
    now = t;
    cross.hidden = t === null;
    stage.classList.toggle("reading", t !== null);
    if (t === null) {
      outs.forEach(o => { o.textContent = ""; });
      said.textContent = "";
      return;
    }
    const i = Math.floor(t / S.step);
    cross.style.left = 100 * t / end + "%";
    cross.firstChild.textContent = t.toFixed(1) + " s";
    outs.forEach(o => { o.textContent = value(o, i); });
    const parts = [t.toFixed(1) + " s"];
    R.faults.forEach((f, n) => { if (f.start <= t && t <= f.end) parts.push(n + 1 + " " + f.name); });
    const by = {};
    R.spans.forEach(s => { if (s.start <= t && t < s.end) (by[s.state] ||= []).push(s.node); });
    ["leader", "candidate", "down", "paused", "cut"].forEach(s => {
      if (by[s]) parts.push(s + " " + by[s].join(", "));
    });
    said.textContent = parts.join(" · ");
  };
  const move = e => {
    const box = row.getBoundingClientRect(), t = (e.clientX - box.left) / box.width * end;
    show(t < 0 || t > end ? null : t);
  };
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerdown", move);
  stage.addEventListener("pointerleave", e => { if (e.pointerType === "mouse") show(null); });
  stage.tabIndex = 0;
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", "Charts over time; arrow keys read values");
  stage.addEventListener("keydown", e => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[e.key];
    if (e.key === "Escape") show(null);
    else if (e.key === "Home") show(0);
    else if (e.key === "End") show(end);
    else if (by) show(Math.min(end, Math.max(0, (now ?? 0) + by * S.step)));
    else return;
    e.preventDefault();
  });
  d.addEventListener("click", async e => {
    const b = e.target.closest("[data-copy]");
    if (!b) return;
    const from = $(b.dataset.copy);
    try {
      await navigator.clipboard.writeText(from.textContent);
      b.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(from);
      b.textContent = "Selected";
    }
  });
  $("save").addEventListener("click", e => {
    const a = d.createElement("a");
    a.href = URL.createObjectURL(new Blob([raw], { type: "application/json" }));
    a.download = e.target.dataset.file;
    a.click();
    URL.revokeObjectURL(a.href);
  });
})();
