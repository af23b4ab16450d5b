"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const hover = JSON.parse(document.getElementById("hover")?.textContent ?? '{"choices": [], "trials": []}');
  const touch = matchMedia("(pointer: coarse)").matches;
  const modeBarButtons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
  const LONGEST_LINE = 52; // characters, which a telephone has room for

  // Plotly reads tags in what it shows.
  const escape = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  function wrapped(text) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const last = lines.length - 1;
      if (lines[last] && lines[last].length + word.length >= LONGEST_LINE) lines.push(word);
      else lines[last] += (lines[last] && " ") + word;
    }
    return lines.map(escape).join("<br>");
  }

  function describe(position) {
    const [head, options] = hover.trials[position];
    const places = new Map();
    options.forEach((option, i) => {
      if (option < 0) return; // the choice is closed in this trial
      const [place, what, words] = hover.choices[i];
      const taken = `${what} ${words[option] ?? "option " + option}`.trim();
      places.set(place, [...(places.get(place) ?? []), taken]);
    });
    const lines = [...places].map(([place, taken]) => wrapped((place && place + ": ") + taken.join(", ")));
    return [`<b>${escape(head[0])}</b>`, ...head.slice(1).filter(Boolean).map(wrapped), ...lines].join("<br>");
  }

  const texts = hover.trials.map((_, position) => describe(position));

  // `var(--name)` is what the style sheet in force says.
  function coloured(value, style) {
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
    }
    const name = typeof value === "string" && value.match(/^var\((--[\w-]+)\)$/);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--text") };
    for (const { id, figure } of figures) {
      const data = figure.data.map(({ customdata, ...trace }) => ({
        ...coloured(trace, style),
        ...(customdata && { hovertext: customdata.map((i) => texts[i]), hovertemplate: "%{hovertext}<extra></extra>" }),
      }));
      const layout = {
        ...coloured(figure.layout, style),
        font,
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: 8, r: 12, t: 36, b: 8 },
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
        hoverlabel: { align: "left", bgcolor: colour("--card"), bordercolor: colour("--line"), font },
        hovermode: "closest",
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: colour("--accent") },
        dragmode: touch ? false : "zoom", // a finger that moves over a plot scrolls the page
      };
      const config = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover", modeBarButtons };
      Plotly.react(id, data, layout, config);
    }
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
