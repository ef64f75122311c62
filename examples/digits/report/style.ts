// The style sheet of the report: one set of names, two sets of colours.

export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --edge: #e4e1db; --ink: #1d2127; --soft: #5c636e; --faint: #ebe8e2;
  --none: #6f7681; --batchnorm: #1f62c9; --tdbn: #cc4412; --tebn: #0b7f5b; --bntt: #8a3ab9; --neunorm: #a36a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1b1f25; --edge: #2e343d; --ink: #e9ebee; --soft: #a2a9b4; --faint: #272c34;
    --none: #9aa3b0; --batchnorm: #6fa8ff; --tdbn: #ff8a5c; --tebn: #45cfa0; --bntt: #cd8df5; --neunorm: #e6b450;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 48px 24px 72px }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 12px; text-wrap: balance }
h2 { font-size: 21px; letter-spacing: -0.01em; margin: 52px 0 6px }
h3 { font-size: 15px; margin: 0 0 6px }
p { margin: 0 0 12px; max-width: 72ch }
.lead { font-size: 19px; line-height: 1.5 }
.soft { color: var(--soft) }
.warning { border-left: 4px solid var(--tdbn); padding: 8px 14px; background: var(--card) }
dl { display: flex; flex-wrap: wrap; gap: 8px; margin: 20px 0 0 }
dl div { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 5px 12px }
dt { display: inline; color: var(--soft); margin-right: 6px }
dd { display: inline; margin: 0; font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; width: 100%; min-width: max-content; margin: 14px 0 8px; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 600; font-size: 14px; color: var(--soft); border-bottom: 1px solid var(--ink) }
td { border-bottom: 1px solid var(--edge) }
th, td { padding: 8px 14px 8px 0; white-space: nowrap }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--page) }
th.number, td.number { text-align: right; padding-right: 0; padding-left: 18px }
td .dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 10px; background: var(--series) }
.grid-of-two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px; margin: 14px 0 }
figure { margin: 0; background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 16px 16px 8px }
figure { overflow-x: auto } figure svg { display: block; width: 100%; min-width: 400px; height: auto }
code { overflow-wrap: anywhere; font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--faint); border-radius: 4px;
  padding: 2px 6px }
ul { padding-left: 20px; max-width: 74ch } li { margin: 4px 0 }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 22px; padding: 0; margin: 12px 0; font-size: 15px;
  max-width: none }
.legend svg { width: 44px; height: 14px; vertical-align: -2px; margin-right: 8px }
.none { --series: var(--none) } .batchnorm { --series: var(--batchnorm) } .tdbn { --series: var(--tdbn) }
.tebn { --series: var(--tebn) } .bntt { --series: var(--bntt) } .neunorm { --series: var(--neunorm) }
svg text { fill: var(--soft); font-size: 12.5px }
svg .name { font-size: 13px } svg .label { fill: var(--ink); font-size: 13.5px }
svg .middle { text-anchor: middle } svg .end { text-anchor: end }
svg .tick { font-variant-numeric: tabular-nums }
svg .grid { stroke: var(--faint) } svg .axis { stroke: var(--soft) }
svg .stroke { fill: none; stroke: var(--series); stroke-width: 2.2; stroke-linejoin: round }
svg .mark { fill: var(--series); stroke: var(--card); stroke-width: 1.2 }
svg .mark.hollow { fill: var(--card); stroke: var(--series); stroke-width: 2 }
svg .mark.open { fill: none; stroke: var(--series); stroke-width: 1.8 }
svg .none .stroke, .legend .none .stroke { stroke-dasharray: 1.5 4 } svg .tdbn .stroke, .legend .tdbn .stroke { stroke-dasharray: 8 4 }
svg .tebn .stroke, .legend .tebn .stroke { stroke-dasharray: 12 3 2 3 } svg .bntt .stroke, .legend .bntt .stroke { stroke-dasharray: 4 3 }
svg .neunorm .stroke, .legend .neunorm .stroke { stroke-dasharray: 14 3 2 3 2 3 }
svg .bar { fill: var(--series) }
svg .ridge { fill: var(--series); fill-opacity: 0.28; stroke: var(--series); stroke-width: 1.8; stroke-linejoin: round }
svg .ridge.bare { fill: none; stroke: var(--soft); stroke-width: 1.3; stroke-dasharray: 3 3 }
svg .threshold { stroke: var(--ink); stroke-dasharray: 6 4 }
svg .lane { fill: var(--faint); opacity: 0.55 } svg .spikes { fill: var(--series) } svg .ink { fill: var(--ink) }
`
