"""The style sheet of a report."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #5a636d; --page: #ffffff; --card: #f4f6f8; --line: #d8dde2;
  --accent: #0072b2; --warn: #9a4a00; --warn-card: #fff4e5; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e6e9ec; --soft: #a3adb7; --page: #14171a; --card: #1f2429; --line: #363d44; --accent: #56b4e9;
    --warn: #ffb866; --warn-card: #33260f; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 75ch; }
.soft { color: var(--soft); font-size: .875rem; }
.verdict { font-size: 1.25rem; line-height: 1.4; margin: 1rem 0; padding: .75rem 1rem; background: var(--card);
  border-left: 4px solid var(--accent); max-width: none; }
.cautions { margin: 1rem 0; padding: .75rem 1rem .75rem 2rem; background: var(--warn-card);
  border-left: 4px solid var(--warn); }
.cautions li { margin: .15rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: normal; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; min-width: 7rem; overflow-wrap: anywhere; }
td .soft { display: block; white-space: nowrap; font-size: .75rem; }
table.settings td { overflow-wrap: anywhere; font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .8rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1rem; }
.figures img { width: 100%; max-width: 720px; height: auto; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 1rem; }
.cards figure { margin: 0; padding: .5rem; background: var(--card); border-radius: 6px; }
.cards img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; }
.cards img.few-pixels { image-rendering: pixelated; }
.cards .no-picture { aspect-ratio: 1; display: grid; place-items: center; color: var(--soft); font-size: .8rem; }
.cards figcaption { font-size: .78rem; line-height: 1.35; }
.cards .soft { font-size: inherit; }
.cards b { display: block; margin: .35rem 0 .15rem; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } .cards figure { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .scroll { overflow: visible; } }
"""
