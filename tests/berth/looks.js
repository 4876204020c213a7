// What is wrong with an open page: too little contrast (WCAG 2.2 AA, 4.5 to 1), no accessible name, an id used twice,
// wider than the screen, something fetched. Returned as a list of texts.
const numbers = (text) => (text.match(/[\d.]+/g) || []).map(Number);
const luminance = (colour) => {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
  }
  return [255, 255, 255];
};
const faint = [...document.body.querySelectorAll('*')].filter((e) => {
  const box = e.getBoundingClientRect(), style = getComputedStyle(e);
  const text = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
  if (!text || !box.width || !box.height || style.visibility === 'hidden') return false;
  if (['SCRIPT', 'STYLE', 'OPTION'].includes(e.tagName) || e.closest('svg, :disabled')) return false;
  const [one, other] = [luminance(numbers(style.color).slice(0, 3)), luminance(behind(e))];
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
}).map((e) => `faint: ${e.tagName} ${e.textContent.trim().slice(0, 30)}`);
const named = (e) => {
  const ids = (e.getAttribute('aria-labelledby') || '').split(' ');
  return e.getAttribute('aria-label')
    || ids.some((id) => document.getElementById(id)?.textContent.trim())
    || [...(e.labels || [])].some((label) => label.textContent.trim())
    || (!['INPUT', 'SELECT', 'PROGRESS'].includes(e.tagName) && e.textContent.trim());
};
const wanted = 'a, button, input, select, textarea, progress, dialog, summary, [role=img], [role=region], [role=listbox]';
const nameless = [...document.querySelectorAll(wanted)].filter((e) => !named(e))
  .map((e) => `nameless: ${e.outerHTML.slice(0, 80)}`);
const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
const twice = ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `twice: ${id}`);
const root = document.documentElement;
const wide = root.scrollWidth > root.clientWidth ? [`wider than the screen: ${root.scrollWidth}`] : [];
const fetched = performance.getEntriesByType('resource').map((e) => e.name)
  .filter((name) => !name.endsWith('/judgements')).map((name) => `fetched: ${name}`);
return [...new Set(faint), ...nameless, ...twice, ...wide, ...fetched];
