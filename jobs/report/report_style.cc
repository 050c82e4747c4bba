#include "jobs/report/report_style.h"

#include "jobs/report/color_scale.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr char kLight[] =
    ":root{color-scheme:light dark;--page:#fff;--panel:#f5f7f9;--ink:#17202b;--muted:#566372;--rule:#d8dee5;--blue:#0a4f9e;"
    "--orange:#b44a06;--violet:#6a3fa0;--warn:#fff6e5;--warn-rule:#e0a030;--hatch:#a9b4bf;--pruned:#dde2e7}";

constexpr char kDark[] =
    ":root{--page:#11161c;--panel:#1a2129;--ink:#e6ebf0;--muted:#9aa8b6;--rule:#313b46;--blue:#7ab8ff;--orange:#ffa057;"
    "--violet:#c3a2f2;--warn:#2c2413;--warn-rule:#a8792a;--hatch:#55626f;--pruned:#333d48}";

constexpr char kText[] = R"css(
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
header,nav,main,footer{max-width:1080px;margin:0 auto;padding:0 20px}
header{padding-top:32px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.25rem;margin:44px 0 6px;padding-top:14px;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:22px 0 2px}
h4{font-size:.85rem;margin:0 0 6px}
p{margin:6px 0 12px;max-width:75ch}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{background:var(--panel);border:1px solid var(--rule);border-radius:4px;padding:0 4px;font-size:.9em}
nav ol{columns:3;column-gap:24px;margin:0;padding:10px 12px 10px 34px;background:var(--panel);border:1px solid var(--rule);border-radius:8px;font-size:.92rem}
nav li{break-inside:avoid}
a{color:var(--blue)}
section:target>h2{border-top-color:var(--blue)}
.muted,header p,figcaption p{color:var(--muted)}
.lead{font-size:1.2rem;line-height:1.4;margin:18px 0}
.lead em{font-style:normal;color:var(--orange)}
.callout{background:var(--warn);border-left:4px solid var(--warn-rule);padding:8px 12px;border-radius:4px}
.findings{margin:0 0 16px;padding-left:20px;max-width:75ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(158px,1fr));gap:10px;margin:0}
.tile{background:var(--panel);border:1px solid var(--rule);border-radius:8px;padding:10px 12px}
.tile dt{color:var(--muted);font-size:.85rem}
.tile dd{margin:0}
.tile b{display:block;font-size:1.6rem;line-height:1.25;font-weight:600;font-variant-numeric:tabular-nums}
.tile small{font-size:.95rem;font-weight:400;color:var(--muted)}
.tile span{font-size:.82rem;color:var(--muted)}
.meter,.track{position:relative;display:block;background:var(--rule);border-radius:3px;height:8px;margin:3px 0 5px}
.meter i,.track i{position:absolute;left:0;top:0;bottom:0;border-radius:3px;background:var(--blue)}
.track{height:16px;margin:0;min-width:130px}
.track .before{background:var(--muted)}
.track .after{background:var(--blue)}
.track u{position:absolute;top:7px;height:2px;background:var(--ink);min-width:2px}
.track u::before,.track u::after{content:"";position:absolute;top:-3px;height:8px;width:2px;background:var(--ink)}
.track u::before{left:0}
.track u::after{right:0}
.scroll{overflow-x:auto;max-width:100%;padding-bottom:4px}
.scroll:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
table{border-collapse:collapse;font-size:.92rem;margin:6px 0 10px}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--rule);vertical-align:top;font-weight:400;overflow-wrap:normal}
caption{text-align:left;color:var(--muted);font-size:.82rem;padding:0 0 2px}
tbody th{overflow-wrap:anywhere;min-width:7em;max-width:26em}
tbody th.num{min-width:0}
.short{white-space:nowrap}
thead th{color:var(--muted);font-size:.82rem;vertical-align:bottom}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.effect{width:100%}
.effect .bar{width:45%;vertical-align:middle}
.provenance td{overflow-wrap:anywhere}
.provenance td,.provenance th{min-width:8em}
figure{margin:0}
.legend{list-style:none;margin:10px 0;padding:0;display:flex;flex-wrap:wrap;gap:6px 20px;font-size:.88rem}
.legend li{display:flex;gap:8px;align-items:flex-start}
.legend svg{flex:none;margin-top:2px}
svg text{fill:var(--ink);font-size:12px;stroke:var(--page);stroke-width:3px;paint-order:stroke;stroke-linejoin:round}
svg .label{fill:var(--ink)}
svg .note{fill:var(--muted)}
svg .mono{fill:var(--muted);font-size:11px}
svg .end{text-anchor:end}
svg .middle{text-anchor:middle}
svg{display:block}
.blank{fill:var(--page)}
.hatch{stroke:var(--hatch);stroke-width:2.4}
.speck{fill:var(--muted)}
.pruned{fill:var(--pruned)}
.cell:hover{opacity:.75}
.ring,.ring-back{fill:none;stroke:var(--ink);stroke-width:2.5}
.ring-back{stroke:var(--page);stroke-width:6}
.pass{fill:var(--page);stroke:var(--ink);stroke-width:1.2}
.grid{stroke:var(--rule);fill:none}
.axis{stroke:var(--muted);fill:none}
.threshold{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:5 4;fill:none}
.region{fill:var(--blue);opacity:.1}
.frame{fill:none;stroke:var(--rule)}
.dot{fill:none;stroke:var(--orange);stroke-width:1.6}
.dot-pass{fill:var(--blue);stroke:var(--page)}
.line{fill:none;stroke-width:2.4;stroke-linejoin:round}
.line.line-a{stroke:var(--orange)}
.line.line-b{stroke:var(--blue);stroke-dasharray:8 4}
.line.line-c{stroke:var(--violet);stroke-dasharray:2 3}
svg .series{font-weight:600}
svg .series.line-a{fill:var(--orange)}
svg .series.line-b{fill:var(--blue)}
svg .series.line-c{fill:var(--violet)}
details{margin:4px 0}
summary{cursor:pointer;padding:4px 0}
.completion{border:1px solid var(--rule);border-radius:8px;padding:2px 12px;margin:8px 0}
.completion[open]{padding-bottom:12px}
.verdict{color:var(--muted);font-size:.85rem;white-space:nowrap}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:12px}
.response{background:var(--panel);border-radius:6px;padding:10px 12px;min-width:0}
.response .text{white-space:pre-wrap;margin:0;font-size:.92rem}
.chip{display:inline-block;font-weight:400;border:1px solid var(--rule);border-radius:10px;padding:0 8px;color:var(--muted)}
.chip.shows{border-color:var(--orange);color:var(--orange)}
footer{color:var(--muted);font-size:.88rem;padding-top:20px;padding-bottom:48px}
@media (max-width:640px){header,nav,main,footer{padding-left:14px;padding-right:14px}nav ol{columns:2}.pair{grid-template-columns:1fr}.tiles{grid-template-columns:1fr 1fr}.track{min-width:80px}.effect th,.effect td{padding-right:8px}}
@media print{body{font-size:11pt}h2{break-after:avoid}figure,.tile,.completion,tr{break-inside:avoid}.heatmap,.chart{max-width:100%;height:auto}.scroll{overflow:visible}nav{display:none}.provenance td,.provenance th{min-width:0}table{font-size:8.5pt}th,td{overflow-wrap:anywhere}details:not([open])::details-content{content-visibility:visible;block-size:auto}.track,.meter,.track i,.meter i,svg,.tile,.callout{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
)css";

}  // namespace

std::string ReportStyle() {
  // Dark only on screens: paper stays white.
  return Concat(kLight, ColorRules(/*dark=*/false), "@media screen and (prefers-color-scheme:dark){", kDark,
                ColorRules(/*dark=*/true), "}", kText);
}

}  // namespace bearing::jobs
