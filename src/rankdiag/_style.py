"""The style sheet of pages and notebook views.

Every rule of `VIEW` starts at the class ``rankdiag`` (doubled, so that it outweighs a notebook's own rules), and
every class and variable carries that prefix: nothing leaks into the page around it. `PAGE` is for whole pages.
"""

from __future__ import annotations

__all__ = ["PAGE", "VIEW"]

_LIGHT = """
--rankdiag-paper:#ffffff;--rankdiag-ink:#1b1f24;--rankdiag-muted:#57606a;--rankdiag-faint:#e4e8ec;
--rankdiag-wash:#f6f8fa;--rankdiag-link:#0b5cad;
--rankdiag-ok:#146c43;--rankdiag-warn:#8a4b00;--rankdiag-alert:#b3261e;
--rankdiag-ok-wash:#e3f4ea;--rankdiag-warn-wash:#fff1dc;--rankdiag-alert-wash:#fde9e7;
--rankdiag-1:#0068a8;--rankdiag-2:#c2500c;--rankdiag-3:#007a58;--rankdiag-4:#a34a80;--rankdiag-5:#8a6a00;
--rankdiag-6:#5f6b76;color-scheme:light;
"""
_DARK = """
--rankdiag-paper:#12161b;--rankdiag-ink:#e6e9ed;--rankdiag-muted:#9aa5b1;--rankdiag-faint:#2a323b;
--rankdiag-wash:#1a2027;--rankdiag-link:#79b8f3;
--rankdiag-ok:#6fd39c;--rankdiag-warn:#f2b65c;--rankdiag-alert:#ff9389;
--rankdiag-ok-wash:#15301f;--rankdiag-warn-wash:#362710;--rankdiag-alert-wash:#3d1b19;
--rankdiag-1:#58b0ee;--rankdiag-2:#f08a4b;--rankdiag-3:#35c296;--rankdiag-4:#e293c0;--rankdiag-5:#e0bb45;
--rankdiag-6:#a9b2bb;color-scheme:dark;
"""

# The reader's system decides, unless the notebook around says which theme it shows.
_THEMES = f"""
.rankdiag.rankdiag{{{_LIGHT}}}
@media (prefers-color-scheme:dark){{.rankdiag.rankdiag{{{_DARK}}}}}
body[data-jp-theme-light="true"] .rankdiag.rankdiag,body.vscode-light .rankdiag.rankdiag,
html[theme="light"] .rankdiag.rankdiag{{{_LIGHT}}}
body[data-jp-theme-light="false"] .rankdiag.rankdiag,body.vscode-dark .rankdiag.rankdiag,
html[theme="dark"] .rankdiag.rankdiag{{{_DARK}}}
@media print{{.rankdiag.rankdiag.rankdiag.rankdiag{{{_LIGHT}}}}}
"""

_VIEW = """
.R{background:var(--rankdiag-paper);color:var(--rankdiag-ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;
  overflow-wrap:break-word;text-align:left}
.rankdiag-view.R{padding:.9rem 1.1rem 1.1rem}
.R *{box-sizing:border-box}
.R h1,.R h2,.R h3,.R h4,.R h5,.R h6{font-weight:600;line-height:1.25;margin:0;color:inherit;letter-spacing:-.008em}
.R h1{font-size:1.9rem}
.R h2{font-size:1.4rem}
.R h3{font-size:1.08rem}
.R h4,.R h5,.R h6{font-size:.97rem}
.R figcaption>*{font-size:1rem}
.R .rankdiag-table>h2{font-size:1.15rem}
.R p{margin:.5em 0;max-width:76ch}
.R a{color:var(--rankdiag-link);text-underline-offset:.15em}
.R :focus-visible{outline:2px solid var(--rankdiag-link);outline-offset:2px}
.R .rankdiag-head{display:flex;flex-wrap:wrap;gap:.4rem .8rem;align-items:center}
.R .rankdiag-head>*{min-width:0}
.R .rankdiag-badge{display:inline-block;white-space:nowrap;font-size:.78rem;font-weight:600;line-height:1.5;
  padding:.05em .6em;border-radius:1em;color:var(--rankdiag-muted);background:var(--rankdiag-wash);
  border:1px solid var(--rankdiag-faint)}
.R .rankdiag-ok{color:var(--rankdiag-ok);background:var(--rankdiag-ok-wash);border-color:currentColor}
.R .rankdiag-warn{color:var(--rankdiag-warn);background:var(--rankdiag-warn-wash);border-color:currentColor}
.R .rankdiag-alert{color:var(--rankdiag-alert);background:var(--rankdiag-alert-wash);border-color:currentColor}
.R .rankdiag-keys{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,13.5rem),1fr));
  gap:1.1rem 1.6rem;margin:1.1rem 0 1.4rem;padding:0}
.R .rankdiag-keys>div{border-top:2px solid var(--rankdiag-faint);padding-top:.45rem;min-width:0}
.R .rankdiag-keys dt{color:var(--rankdiag-muted);font-size:.86rem;font-weight:400;margin:0}
.R .rankdiag-keys dd{margin:0;font-size:1.42rem;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
.R .rankdiag-keys dd.rankdiag-words{font-size:1rem;line-height:1.4}
.R .rankdiag-keys dd.rankdiag-read{font-size:.82rem;font-weight:400;line-height:1.45;
  color:var(--rankdiag-muted);margin-top:.1rem}
.R .rankdiag-unit{font-size:.62em;font-weight:400;color:var(--rankdiag-muted)}
.R .rankdiag-small{font-size:.82rem;color:var(--rankdiag-muted);margin:.4rem 0}
.R .rankdiag-plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));
  gap:1.6rem 2.2rem;margin:1.2rem 0}
.R .rankdiag-plot{margin:0;min-width:0;max-width:54rem}
.R .rankdiag-axis{margin:.15rem 0 0;font-size:.8rem;line-height:1.4;color:var(--rankdiag-muted)}
.R .rankdiag-x{text-align:right;max-width:none;padding-right:16px}
.R .rankdiag-legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.1rem;margin:.35rem 0 0;padding:0;
  font-size:.84rem}
.R .rankdiag-legend li{margin:0;min-width:0;max-width:100%;overflow-wrap:anywhere}
.R .rankdiag-legend svg{display:inline-block;vertical-align:-1px}
.R .rankdiag-table{margin:1.4rem 0}
.R .rankdiag-scroll{overflow:auto;margin:.5rem 0;border-top:1px solid var(--rankdiag-muted);
  border-bottom:1px solid var(--rankdiag-faint)}
.R .rankdiag-tall{max-height:min(80vh,44rem)}
.R table{border-collapse:separate;border-spacing:0;border:0;margin:0;width:max-content;min-width:100%;
  font-size:.86rem;line-height:1.35;font-variant-numeric:tabular-nums;table-layout:auto;color:inherit}
.R th,.R td{padding:.36rem .75rem;border:0;border-bottom:1px solid var(--rankdiag-faint);text-align:right;
  vertical-align:top;background:var(--rankdiag-paper);white-space:nowrap;max-width:none}
.R thead th{position:sticky;top:0;z-index:1;vertical-align:bottom;font-weight:600;
  border-bottom:1px solid var(--rankdiag-muted)}
.R thead th>div{max-width:6.5rem;min-width:2.5rem;margin-left:auto;white-space:normal;overflow-wrap:anywhere}
.R thead .rankdiag-text>div{margin-left:0}
.R thead .rankdiag-unit{font-size:.85em}
.R thead th[title]{cursor:help}
.R tbody tr{background:none}
.R tbody th{font-weight:400;text-align:left}
.R th:first-child{position:sticky;left:0;padding-left:.2rem;text-align:left;
  border-right:1px solid var(--rankdiag-faint)}
.R th:first-child>div{max-width:min(25rem,42vw);margin-left:0;white-space:normal;overflow-wrap:anywhere}
.R thead th:first-child{z-index:2}
.R tbody th .rankdiag-badge{margin:0 .4em;font-size:.72rem;line-height:1.35;padding:0 .55em}
.R tbody th .rankdiag-long{display:inline}
.R .rankdiag-text{text-align:left}
.R .rankdiag-long{max-width:24rem;white-space:normal;overflow-wrap:anywhere}
.R tr:last-child>*{border-bottom:0}
.R tbody tr:hover>*{background:var(--rankdiag-wash)}
.R tr.rankdiag-row-warn>*{background:var(--rankdiag-warn-wash)}
.R tr.rankdiag-row-alert>*{background:var(--rankdiag-alert-wash)}
.R i{font-style:normal;margin-left:.16em}
.R details{margin:.5rem 0;font-size:.88rem}
.R summary{cursor:pointer;color:var(--rankdiag-muted);width:fit-content;max-width:100%}
.R summary:hover{color:var(--rankdiag-ink)}
.R .rankdiag-columns{display:grid;grid-template-columns:minmax(8rem,max-content) minmax(0,1fr);gap:.3rem 1.2rem;
  margin:.6rem 0}
.R .rankdiag-columns dt{font-weight:600;margin:0;overflow-wrap:anywhere}
.R .rankdiag-columns dd{margin:0;max-width:70ch}
.R .rankdiag-notes{margin:.4rem 0;padding-left:1.2em;max-width:86ch}
.R .rankdiag-notes li{margin:.25em 0;overflow-wrap:anywhere}
@media (max-width:40rem){
.R .rankdiag-keys{grid-template-columns:repeat(auto-fill,minmax(min(100%,9.2rem),1fr));gap:.9rem 1.1rem}
.R .rankdiag-keys dd{font-size:1.2rem}
.R .rankdiag-columns{grid-template-columns:minmax(0,1fr);gap:.1rem}
.R .rankdiag-columns dd{margin-bottom:.45rem}
}
@media print{
.R{font-size:9.5pt}
.R .rankdiag-scroll,.R .rankdiag-tall{overflow:visible;max-height:none}
.R .rankdiag-wide{page:rankdiag-wide}
.R table{font-size:7.5pt;width:100%}
.R .rankdiag-wide table{font-size:6.2pt}
.R th,.R td{padding:.16rem .25rem}
.R thead th,.R th:first-child{position:static;white-space:normal}
.R thead th>div{min-width:0;max-width:5rem}
.R .rankdiag-long{max-width:9rem}
.R tr,.R figure,.R .rankdiag-keys>div{break-inside:avoid}
.R h1,.R h2,.R h3,.R h4,.R summary{break-after:avoid}
.R details::details-content{content-visibility:visible;block-size:auto}
}
"""

_PAGE = """
html{-webkit-text-size-adjust:100%;scroll-padding-top:1rem}
body.rankdiag-page{margin:0;padding:0 clamp(1rem,4vw,3rem) 3rem;min-height:100vh;box-sizing:border-box}
.rankdiag-page>*{max-width:76rem;margin-left:auto;margin-right:auto}
.rankdiag-page header{padding-top:clamp(1.4rem,5vh,3rem)}
.rankdiag-page header p{font-size:1.03rem}
.rankdiag-page main>section{border-top:1px solid var(--rankdiag-faint);margin-top:2.4rem;padding-top:1.8rem}
.rankdiag-page main>section section{margin-top:2rem}
.rankdiag-page nav{margin-top:1.2rem;font-size:.93rem}
.rankdiag-page nav ol{list-style:none;margin:.4rem 0;padding:0;columns:17rem 3;column-gap:2rem}
.rankdiag-page nav li{break-inside:avoid;padding:.16rem 0;overflow-wrap:anywhere}
.rankdiag-page nav li li{padding-left:1rem}
.rankdiag-page nav ol ol{columns:1;margin:0}
.rankdiag-page nav .rankdiag-badge{font-size:.7rem;margin-left:.3em}
.rankdiag-page footer{border-top:1px solid var(--rankdiag-faint);margin-top:3rem;padding-top:.8rem;
  font-size:.82rem;color:var(--rankdiag-muted)}
.rankdiag-page .rankdiag-skip{position:absolute;left:-99rem}
.rankdiag-page .rankdiag-skip:focus{left:1rem;top:.5rem;background:var(--rankdiag-paper);padding:.3rem .6rem;
  z-index:9}
@page{margin:14mm 12mm}
@page rankdiag-wide{size:landscape}
@media print{body.rankdiag-page{padding:0}.rankdiag-page nav{display:none}.rankdiag-page header{padding-top:0}}
"""


def _pack(sheet: str) -> str:
    """Join the lines of a style sheet; no rule here depends on where they end."""
    return "".join(line.strip() for line in sheet.splitlines())


VIEW = _pack(_THEMES + _VIEW.replace(".R{", ".rankdiag.rankdiag{").replace(".R ", ".rankdiag.rankdiag "))
PAGE = _pack(_PAGE)
