"""The style sheet of the emergence report: light and dark, for narrow and wide screens, without a script."""

from __future__ import annotations

AXIS_RULES = "#by-{axis}:checked~main .on-{axis}{{display:grid}}"
"""Show the figures of the axis whose button is selected."""

STYLE = (
    """
:root{color-scheme:light dark;--ground:#fff;--ink:#1a1a1a;--faint:#5f6368;--grid:#e6e6e6;--edge:#d0d4d9;
--seed0:#0072B2;--seed1:#D55E00;--seed2:#007a5a;--seed3:#b0578b;--seed4:#a06b00;--seed5:#2f7fb0}
@media(prefers-color-scheme:dark){:root{--ground:#14161a;--ink:#e8e6e3;--faint:#a3a8ae;--grid:#2a2e35;
--edge:#3a4048;--seed0:#56B4E9;--seed1:#f07f3c;--seed2:#1fbf92;--seed3:#CC79A7;--seed4:#F0E442;--seed5:#8fb8d8}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1120px;padding:20px 16px 48px;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.2rem;line-height:1.3;margin:0 0 6px}
header p{margin:0 0 16px;color:var(--faint)}
p{margin:0 0 10px}
a{color:var(--seed0)}
section{margin:0 0 28px;padding:22px 0 0;border-top:1px solid var(--edge)}
.faint,summary,figcaption{color:var(--faint)}
.faint{font-size:.9rem}
.against{display:inline;margin:0 8px 0 0;color:var(--faint)}
input[name=against]{position:absolute;opacity:0}
input[name=against]+label{display:inline-block;margin:0 4px 6px 0;padding:5px 12px;border:1px solid var(--edge);
border-radius:16px;cursor:pointer}
input[name=against]:checked+label{background:var(--ink);border-color:var(--ink);color:var(--ground)}
input[name=against]:focus-visible+label{outline:3px solid var(--seed0);outline-offset:2px}
main{margin-top:14px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--grid);vertical-align:top}
th{color:var(--faint);font-weight:500}
strong{font-weight:600}
td,.verdicts th{white-space:nowrap}
td,.verdict,li,p{overflow-wrap:break-word}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:0;padding:0;font-size:.9rem;grid-column:1/-1}
.legend i{display:inline-block;width:18px;height:0;border-top:3px solid;margin:0 6px 4px 0;vertical-align:middle}
.legend .nulls{border-top:2px dotted var(--faint)}
.rules{padding-left:20px}
.rules li{margin-bottom:6px}
.figures{display:none;grid-template-columns:minmax(0,1fr);gap:8px 24px}
@media(min-width:720px){.figures{grid-template-columns:repeat(2,minmax(0,1fr))}}
figure{margin:0;min-width:0}
.law{max-width:560px}
figcaption{font-size:.9rem;margin-bottom:2px}
svg{display:block;width:100%;height:auto}
svg text{font-size:11px;fill:var(--faint);font-variant-numeric:tabular-nums}
svg .name{fill:var(--ink)}
svg path,svg line{fill:none}
.grid{stroke:var(--grid)}
.axis{stroke:var(--faint)}
.lead{stroke:var(--faint);stroke-width:.7}
.level{stroke:var(--faint);stroke-width:1.1}
.level.chance{stroke:var(--ink)}
.level.counting{stroke-dasharray:7 3}
.level.random{stroke-dasharray:1.5 3}
.curve{stroke-width:1.9;stroke-linejoin:round}
.null{stroke-width:1.6;stroke-dasharray:1.5 3;opacity:.8}
svg .area{opacity:.12;stroke:none}
svg .band{fill:var(--faint);opacity:.16}
details{margin-top:8px}
summary{cursor:pointer;padding:6px 0}
details .wide{margin-bottom:14px;max-height:420px;overflow-y:auto}
""".strip()
    + "".join(
        f"\n.curve.seed{n},.null.seed{n}{{stroke:var(--seed{n})}}"
        f"svg .area.seed{n},svg .dot.seed{n},svg .change.seed{n}{{fill:var(--seed{n})}}"
        f".legend .seed{n}{{border-color:var(--seed{n})}}"
        for n in range(6)
    )
)
