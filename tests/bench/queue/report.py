"""report: what was seen, as Markdown and JSON."""
from gauges import medians

PRODUCERS = (1, 16, 128)
FLOOR = "disk: append 4 KiB and fdatasync, growing file"


class Report:
    def __init__(self, say):
        self.rows, self.asked, self.skipped, self.about, self.say_ = [], {}, [], {}, say

    # ---- noted while it runs --------------------------------------------------------------------

    def say(self, text):
        self.say_(text)

    def row(self, system, producers, figures):
        self.rows.append({"system": system, "producers": producers, **figures})
        device = figures.get("device_bytes")
        self.say(f"{system}: {producers} producers: {figures['rate']:.0f}/s, p50 {ms(figures['p50_us'])} p99 "
                 f"{ms(figures['p99_us'])} ms, {figures['cpu_us']:.1f} µs, {device or 0:.0f} bytes")

    def once(self, question, **answer):
        self.asked.setdefault(question, []).append(answer)
        if question not in ("store", "strace", "refused"):
            self.say(f"{question}: " + ", ".join(f"{k} {short(v)}" for k, v in answer.items()))

    def skip(self, what, why):
        self.skipped.append(f"{what}: {why}")
        self.say(f"SKIPPED {what}: {why}")

    # ---- told at the end ------------------------------------------------------------------------

    def figures(self):
        cells = {}
        for row in self.rows:
            cells.setdefault((row["system"], row["producers"]), []).append(row)
        return {key: medians(rows) for key, rows in cells.items()}

    def json(self):
        medians_ = [{"system": system, **figures} for (system, _), figures in self.figures().items()]
        return {"about": self.about, "medians": medians_, "asked": self.asked, "targets": self.targets(),
                "skipped": self.skipped, "rows": self.rows}

    def markdown(self):
        lines = [f"{self.about.get('when')}, commit {self.about.get('commit')}, {self.about.get('rounds')} rounds of "
                 f"{self.about.get('seconds')} s, disk {self.about.get('disk')}; load average before "
                 f"{self.about.get('load')}, busy with other things before each round {self.about.get('busy')}.", ""]
        lines += ["| accepts of 1 KiB per second | 1 producer | 16 | 128 | p50 / p99 ms at 1 | at 16 | at 128 "
                  "| CPU µs/message at 1 | at 128 | the load's at 128 | device bytes/message at 1 | at 128 | MiB |", "|---" * 13 + "|"]
        figures = self.figures()
        for system in dict.fromkeys(system for system, _ in figures):
            cells = {p: figures.get((system, p)) for p in PRODUCERS}
            at = lambda p, text: text(cells[p]) if cells[p] else "-"
            largest = [cell["rss_mib"] for cell in cells.values() if cell and "rss_mib" in cell]
            row = [system, *(at(p, lambda c: f"{c['rate']:,.0f}") for p in PRODUCERS),
                   *(at(p, lambda c: f"{ms(c['p50_us'])} / {ms(c['p99_us'])}") for p in PRODUCERS),
                   *(at(p, lambda c: f"{c['cpu_us']:.1f}") for p in (1, 128)),
                   at(128, lambda c: f"{c['client_cpu_us']:.1f}" if "client_cpu_us" in c else "-"),
                   *(at(p, lambda c: f"{c['device_bytes']:,.0f}" if "device_bytes" in c else "-") for p in (1, 128)),
                   f"{max(largest):.0f}" if largest else "-"]
            lines.append("| " + " | ".join(row) + " |")
        for question in ("begin", "reopen", "memory", "blocked", "drain"):
            lines += self.answers(question)
        for seen in self.asked.get("strace", []):
            lines += ["", f"A flush ended before the 202 went out: **{'yes' if seen['flushed_before_202'] else 'NO'}**.", "",
                      "```", *seen["calls"], "```"]
        lines += ["", "| target (design.md) | seen | met |", "|---|---|---|"] if self.targets() else []
        lines += [f"| {t['target']} | {t['seen']} | {'yes' if t['met'] else '**no**'} |" for t in self.targets()]
        lines += [""] + [f"SKIPPED {skipped.splitlines()[0]}" for skipped in self.skipped]
        return "\n".join(lines) + "\n"

    def answers(self, question):
        answers = self.asked.get(question)
        if not answers:
            return []
        same = {}
        for answer in answers:
            words = tuple((k, v) for k, v in answer.items() if isinstance(v, str) or k == "producers")
            same.setdefault(words, []).append({k: v for k, v in answer.items() if (k, v) not in words})
        rows = [dict(words) | medians(these) for words, these in same.items()]
        names = list(rows[0])
        return ["", f"| {question}: " + " | ".join(names) + " |", "|---" * len(names) + "|",
                *("| " + " | ".join(short(row.get(name, "-")) for name in names) + " |" for row in rows)]

    def targets(self):
        figures, found = self.figures(), []

        def look(target, value, met, unit=""):
            found.append({"target": target, "seen": short(value) + unit, "met": met})

        def rate(prefix, end, least, words):
            for (system, producers), cell in figures.items():
                if producers == 128 and system.startswith(prefix) and (end in system if end else ", at " not in system):
                    look(f"{words} ≥ {least:,}/s: {system}", cell["rate"], cell["rate"] >= least, "/s")

        rate("sidecar, plain", "", 50_000, "128 producers over HTTP")
        rate("store, plain", ", at ", 100_000, "128 producers in the store")
        rate("store, lane and key", ", at ", 50_000, "128 producers in the store")
        floor = figures.get((FLOOR, 1))
        for system in ("sidecar, plain", "store, plain"):
            cell = figures.get((system, 1))
            if floor and cell:
                times = cell["p50_us"] / floor["p50_us"]
                look(f"p50 of one producer ≤ 1.3 × append and flush: {system}", times, times <= 1.3, " ×")
        for question in ("memory", "blocked"):
            for answer in self.asked.get(question, []):
                what = answer.get("kind", "behind one blocked key")
                look(f"memory with {answer['messages']:,} messages ≤ 64 MiB: {what}", answer["peak_mib"], answer["peak_mib"] <= 64, " MiB")
        for end in ("clean", "killed"):
            slowest = [a["queues_ms"] for a in self.asked.get("reopen", []) if a["end"] == end]
            if slowest:
                look(f"reopen ≤ 1 s, program's start included: after a {end} stop", max(slowest), max(slowest) <= 1000, " ms")
        return found


def ms(microseconds):
    return f"{microseconds / 1000:.2f}"


def short(value):
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
