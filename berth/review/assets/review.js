'use strict';
(() => {
  const get = (id) => document.getElementById(id);
  const data = (id) => JSON.parse(get(id).textContent);
  const config = data('config');
  const index = data('index'); // [key, id, score, reasons, snippet]
  const KEY = 0, ID = 1, REASONS = 3, SNIPPET = 4;
  const HEIGHT = 58, MOST_CELLS = 400000;
  const byKey = new Map(index.map((entry, i) => [entry[KEY], i]));
  const fileOrder = index.map((_, i) => i);
  const kept = 'berth-review:' + config.fingerprint;

  // Rows: a block of JSON is read when one of its rows is first shown.
  const blocks = new Map();
  const row = (i) => {
    const n = Math.floor(i / config.chunk);
    if (!blocks.has(n)) blocks.set(n, data('rows-' + n));
    const [input, reference, base, tuned, metrics, feedback] = blocks.get(n)[i % config.chunk];
    return { input, reference, base, tuned, metrics, feedback };
  };

  // Judgements that stand, by row and then by reviewer and answer.
  const standing = new Map();
  const place = (reviewer, answer) => reviewer + '\u0000' + answer;
  const note = (j) => {
    const i = byKey.get(j.row);
    if (i === undefined) return;
    if (!standing.has(i)) standing.set(i, new Map());
    standing.get(i).set(place(j.reviewer, j.answer), j);
  };
  const mine = (i, answer) => standing.get(i)?.get(place(reviewer(), answer));
  const reviewer = () => get('reviewer').value.trim();
  const judgedByMe = (i) => {
    const name = reviewer();
    for (const j of standing.get(i)?.values() ?? []) if (j.reviewer === name && j.label !== null) return true;
    return false;
  };

  let view = [];      // rows in order, as filtered
  let at = 0;         // place in view
  let active = 1;     // which card is judged
  let sides = ['base', 'tuned'];
  const undone = [];
  const state = (text) => { if (get('state').textContent !== text) get('state').textContent = text; };
  const remember = (name, value) => { try { localStorage.setItem(name, value); return true; } catch { return false; } };
  const recall = (name) => { try { return localStorage.getItem(name); } catch { return null; } };

  // Saving: to the server, one batch at a time and in order, again until it is confirmed; else in the browser.
  const waiting = [];
  let sending = false;
  const history = new Map(); // what this browser keeps, where there is no server
  const send = async () => {
    if (sending) return;
    sending = true;
    let pause = 250;
    while (waiting.length) {
      const batch = waiting.slice(0, 100);
      try {
        const answer = await fetch('judgements', {
          method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(batch),
        });
        if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
        waiting.splice(0, batch.length);
        pause = 250;
        state('');
      } catch (error) {
        state(`${waiting.length} judgements are not saved yet: ${error.message}. Trying again; leave this page open.`);
        await new Promise((wake) => setTimeout(wake, pause));
        pause = Math.min(pause * 2, 8000);
      }
      document.body.dataset.waiting = String(waiting.length);
    }
    sending = false;
  };
  const save = (j) => {
    note(j);
    history.set(j.row + place(j.reviewer, j.answer), j);
    if (config.mode === 'server') {
      waiting.push(j);
      document.body.dataset.waiting = String(waiting.length);
      send();
    } else if (!remember(kept, Array.from(history.values(), (one) => JSON.stringify(one)).join('\n'))) {
      state('This browser keeps nothing for this page: export before you leave it.');
    }
  };

  // Differences between two texts, by words.
  const tokens = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
  const solid = (parts) => parts.filter((part) => part.trim());
  // Longest common subsequence: which of `a` and of `b` are in it. Beyond MOST_CELLS, words that the other lacks.
  const common = (a, b) => {
    const inA = new Uint8Array(a.length), inB = new Uint8Array(b.length);
    let start = 0, endA = a.length, endB = b.length;
    while (start < endA && start < endB && a[start] === b[start]) { inA[start] = inB[start] = 1; start += 1; }
    while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) { inA[--endA] = 1; inB[--endB] = 1; }
    const n = endA - start, m = endB - start;
    if (n * m > MOST_CELLS) {
      const wordsA = new Set(a), wordsB = new Set(b);
      for (let i = start; i < endA; i += 1) inA[i] = wordsB.has(a[i]) ? 1 : 0;
      for (let j = start; j < endB; j += 1) inB[j] = wordsA.has(b[j]) ? 1 : 0;
      return [inA, inB];
    }
    const width = m + 1, best = new Uint16Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i -= 1) {
      for (let j = m - 1; j >= 0; j -= 1) {
        best[i * width + j] = a[start + i] === b[start + j]
          ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
      }
    }
    for (let i = 0, j = 0; i < n && j < m;) {
      if (a[start + i] === b[start + j]) { inA[start + i] = inB[start + j] = 1; i += 1; j += 1; }
      else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i += 1;
      else j += 1;
    }
    return [inA, inB];
  };
  // Fill `element` with the text of `parts`; what is not in `same` is marked. Text is only ever set as text.
  const fill = (element, parts, same, kind) => {
    const whole = document.createDocumentFragment();
    let run = '', marked = false, k = 0, gap = '';
    const flush = () => {
      if (!run) return;
      if (marked) {
        const mark = document.createElement('mark');
        mark.className = kind;
        mark.textContent = run;
        whole.append(mark);
      } else whole.append(run);
      run = '';
    };
    for (const part of parts) {
      if (!part.trim()) { gap += part; continue; }
      const other = same !== null && !same[k];
      k += 1;
      if (other !== marked) { if (!marked || !other) flush(); if (gap) { whole.append(gap); gap = ''; } marked = other; }
      run += gap + part;
      gap = '';
    }
    flush();
    if (gap) whole.append(gap);
    element.replaceChildren(whole);
  };
  const showAnswer = (element, text, kind, against) => {
    if (text === null) { element.replaceChildren('(no answer)'); return; }
    const parts = tokens(text);
    fill(element, parts, against === null ? null : against(solid(parts)), kind);
  };
  const low = (words) => words.map((word) => word.toLowerCase());

  // Blind: the same reviewer sees the same side for a row again, others may see the other one.
  const hash = (text) => {
    let h = 2166136261;
    for (let i = 0; i < text.length; i += 1) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
    h ^= h >>> 15; h = Math.imul(h, 2246822519); h ^= h >>> 13;
    return h >>> 0;
  };
  const blind = () => get('blind').checked;

  // One piece of feedback: stars with words, the comment, the answer that was wished.
  const feedbackItem = (piece) => {
    const item = document.createElement('li');
    const add = (tag, name, text) => {
      const part = document.createElement(tag);
      part.className = name;
      part.textContent = text;
      item.append(part);
    };
    if (piece.rating) add('b', 'stars', `${'★'.repeat(piece.rating)}${'☆'.repeat(5 - piece.rating)} ${piece.rating} of 5`);
    if (piece.time) add('span', 'when', piece.time.slice(0, 16).replace('T', ' '));
    if (piece.comment) add('p', 'text', `“${piece.comment}”`);
    if (piece.corrected_answer) add('p', 'text wished', piece.corrected_answer);
    return item;
  };

  const show = () => {
    const i = view[at];
    const none = i === undefined;
    for (const id of ['answers', 'reference-part', 'input-fold']) get(id).hidden = none;
    if (none) {
      get('which').textContent = 'No row is like that.';
      for (const id of ['reasons', 'metrics', 'others']) get(id).replaceChildren();
      get('feedback-part').hidden = true;
      marksOfButtons();
      return;
    }
    const r = row(i);
    const hidden = blind() && r.base !== null && r.tuned !== null;
    sides = hidden && hash(reviewer() + index[i][KEY]) % 2 ? ['tuned', 'base'] : ['base', 'tuned'];
    if (r[sides[active]] === null) active = 1 - active;
    get('which').textContent = `${at + 1} of ${view.length.toLocaleString('en')}` + (index[i][ID] ? `, ${index[i][ID]}` : '');
    get('reasons').replaceChildren(...(hidden ? [] : index[i][REASONS].map((reason) => {
      const chip = document.createElement('span');
      chip.textContent = reason;
      return chip;
    })));
    get('metrics').textContent = hidden ? '' : Object.entries(r.metrics).map(([name, value]) => `${name} ${+value.toPrecision(3)}`).join(' · ');
    get('feedback-part').hidden = hidden || !r.feedback.length; // it is about one of the two answers
    get('feedback').replaceChildren(...(hidden ? [] : r.feedback.map(feedbackItem)));
    get('input').textContent = r.input;
    get('reference-part').hidden = r.reference === null;
    get('reference').textContent = r.reference ?? '';
    const mode = get('marks').value;
    let against = () => null;
    if (mode === 'reference' && r.reference !== null) {
      const wanted = solid(tokens(r.reference));
      against = () => (words) => common(low(words), low(wanted))[0];
    } else if (mode === 'input') {
      const known = new Set(low(solid(tokens(r.input))));
      against = () => (words) => words.map((word) => (known.has(word.toLowerCase()) || !/[\p{L}\p{N}]/u.test(word) ? 1 : 0));
    } else if (mode === 'other' && r.base !== null && r.tuned !== null) {
      const [inBase, inTuned] = common(solid(tokens(r.base)), solid(tokens(r.tuned)));
      against = (side) => () => (side === 'base' ? inBase : inTuned);
    }
    sides.forEach((side, n) => {
      const card = get('card-' + n);
      card.hidden = r[side] === null;
      get('name-' + n).textContent = hidden ? 'AB'[n] : side === 'base' ? 'Base' : 'Fine-tuned';
      showAnswer(card.querySelector('.text'), r[side], mode === 'other' && !hidden && side === 'tuned' ? 'add' : 'del', against(side));
    });
    get('preference').hidden = !hidden;
    marksOfButtons();
  };

  const marksOfButtons = () => {
    const i = view[at];
    sides.forEach((side, n) => {
      const card = get('card-' + n);
      card.classList.toggle('active', n === active);
      get('name-' + n).setAttribute('aria-pressed', String(n === active));
      card.querySelector('.given').textContent = (i !== undefined && mine(i, side)?.label) || '';
    });
    const own = i === undefined ? undefined : mine(i, sides[active]);
    for (const button of get('labels').children) button.setAttribute('aria-pressed', String(own?.label === button.dataset.label));
    const better = i === undefined ? null : mine(i, 'preference')?.label;
    for (const button of get('preference').children) {
      const means = button.dataset.side === 'tie' ? 'tie' : sides[+button.dataset.side];
      button.setAttribute('aria-pressed', String(better === means));
    }
    if (document.activeElement !== get('comment')) get('comment').value = own?.comment ?? '';
    get('undo').disabled = !undone.length;
    const said = [];
    // What others say is shown only after one's own judgement, and never while the sides are hidden.
    if (i !== undefined && judgedByMe(i) && get('preference').hidden) {
      for (const j of standing.get(i).values()) {
        if (j.reviewer !== reviewer() && j.label !== null) {
          said.push(`${j.reviewer}: ${j.answer === 'tuned' ? 'fine-tuned' : j.answer} ${j.label}${j.comment ? ` (${j.comment})` : ''}`);
        }
      }
    }
    get('others').textContent = said.join(' · ');
  };

  const count = () => {
    let done = 0;
    for (const i of standing.keys()) if (judgedByMe(i)) done += 1;
    get('bar').max = index.length;
    get('bar').value = done;
    get('count').textContent = `${done.toLocaleString('en')} of ${index.length.toLocaleString('en')} judged by you`;
  };

  // The list: only the rows in sight are in the document.
  const drawn = new Map();
  const list = get('list');
  const draw = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 4);
    const last = Math.min(view.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 4);
    for (const [n, element] of drawn) if (n < first || n >= last) { element.remove(); drawn.delete(n); }
    for (let n = first; n < last; n += 1) {
      let element = drawn.get(n);
      if (!element) {
        element = document.createElement('div');
        element.className = 'row';
        element.id = 'row-' + n;
        element.setAttribute('role', 'option');
        element.setAttribute('aria-setsize', view.length);
        element.setAttribute('aria-posinset', n + 1);
        element.dataset.n = n;
        element.style.top = n * HEIGHT + 'px';
        const head = document.createElement('b'), tail = document.createElement('p');
        head.append('', document.createElement('span'));
        // The answer would tell which one is the fine-tuned one's.
        tail.textContent = (blind() ? row(view[n]).input.slice(0, 90) : index[view[n]][SNIPPET]) || '(empty)';
        element.append(head, tail);
        get('space').append(element);
        drawn.set(n, element);
      }
      element.setAttribute('aria-selected', String(n === at));
      const i = view[n], reasons = blind() ? 0 : index[i][REASONS].length;
      const label = blind() ? mine(i, 'preference')?.label && 'compared' : mine(i, 'tuned')?.label ?? mine(i, 'base')?.label;
      element.firstChild.firstChild.data = (index[i][ID] || String(i + 1)) + (reasons ? ` · ${'●'.repeat(Math.min(reasons, 4))}` : '');
      element.firstChild.lastChild.textContent = label ?? (judgedByMe(i) ? 'judged' : '');
    }
    list.setAttribute('aria-activedescendant', 'row-' + at);
  };
  const redraw = () => {
    for (const element of drawn.values()) element.remove();
    drawn.clear();
    get('space').style.height = view.length * HEIGHT + 'px';
    draw();
  };
  const go = (n) => {
    if (!view.length) { show(); return; }
    at = Math.max(0, Math.min(view.length - 1, n));
    const top = at * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    get('item').scrollTop = 0;
    show();
    draw();
  };

  const arrange = (stay) => {
    const kind = get('filter').value, wanted = get('search').value.trim().toLowerCase();
    const all = config.orders[get('order').value] ?? fileOrder;
    const labels = (i) => [...(standing.get(i)?.values() ?? [])].filter((j) => j.label !== null);
    const passes = (i) => {
      if (kind === 'open' && judgedByMe(i)) return false;
      if (kind === 'mine' && !judgedByMe(i)) return false;
      if (kind === 'reasons' && !index[i][REASONS].length) return false;
      if (kind === 'comment' && ![...(standing.get(i)?.values() ?? [])].some((j) => j.comment)) return false;
      if (kind === 'differ' && !['base', 'tuned', 'preference'].some((a) => new Set(labels(i).filter((j) => j.answer === a).map((j) => j.label)).size > 1)) return false;
      if (kind.startsWith('label:') && !labels(i).some((j) => j.label === kind.slice(6))) return false;
      if (!wanted) return true;
      const r = row(i);
      return [index[i][ID], r.input, r.reference, r.base, r.tuned].some((text) => text !== null && text.toLowerCase().includes(wanted));
    };
    const current = view[at];
    view = kind === 'all' && !wanted ? all : all.filter(passes);
    const found = stay ? view.indexOf(current) : -1;
    at = Math.max(0, found);
    list.scrollTop = 0;
    redraw();
    go(at);
  };

  // Rows that were picked are no sample, in whatever order they come.
  const order = () => (['all', 'open'].includes(get('filter').value) && !get('search').value.trim() ? get('order').value : 'picked');
  const judge = (answer, label, comment) => {
    const i = view[at];
    if (i === undefined) return;
    if (!reviewer()) { state('Say who you are first: Reviewer, above.'); get('reviewer').focus(); return; }
    if (get('state').textContent.startsWith('Say who')) state('');
    const before = mine(i, answer);
    undone.push({ i, answer, label: before?.label ?? null, comment: before?.comment ?? '', reviewer: reviewer() });
    save({
      row: index[i][KEY], reviewer: reviewer(), answer, label, comment, order: order(), blind: blind(), at: new Date().toISOString(),
    });
    count();
    marksOfButtons();
    draw();
  };
  const onward = () => { if (get('advance').checked && at < view.length - 1) go(at + 1); };
  const label = (name) => {
    const own = view[at] === undefined ? undefined : mine(view[at], sides[active]);
    const again = own?.label === name;
    judge(sides[active], again ? null : name, own?.comment ?? '');
    if (!again && reviewer() && get('preference').hidden) onward();
  };
  const prefer = (side) => {
    if (get('preference').hidden) return;
    judge('preference', side === 'tie' ? 'tie' : sides[+side], '');
    if (reviewer()) onward();
  };
  const undo = () => {
    const last = undone.pop();
    if (!last) return;
    save({
      row: index[last.i][KEY], reviewer: last.reviewer, answer: last.answer, label: last.label, comment: last.comment,
      order: order(), blind: blind(), at: new Date().toISOString(),
    });
    count();
    const n = view.indexOf(last.i);
    if (n >= 0) go(n); else { marksOfButtons(); draw(); }
  };
  const choose = (n) => {
    const i = view[at];
    if (i === undefined || row(i)[sides[n]] === null) return;
    active = n;
    marksOfButtons();
  };
  const comment = () => {
    const i = view[at];
    if (i === undefined) return;
    const own = mine(i, sides[active]), text = get('comment').value.trim();
    if (text !== (own?.comment ?? '')) judge(sides[active], own?.label ?? null, text);
  };
  const download = () => {
    const lines = [];
    for (const found of standing.values()) for (const j of found.values()) lines.push(JSON.stringify(j) + '\n');
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob(lines, { type: 'application/x-ndjson' }));
    link.download = config.title.replace(/\.jsonl$/, '') + '.reviews.jsonl';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  const names = Object.keys(config.labels);
  const letters = new Map(Object.entries(config.labels).map(([name, letter]) => [letter, name]));
  document.addEventListener('keydown', (event) => {
    const where = event.target;
    const typing = where.matches?.('input:not([type=checkbox]), textarea, select');
    if (typing || get('keys').open || event.ctrlKey || event.metaKey || event.altKey) {
      if (typing && (event.key === 'Escape' || (event.key === 'Enter' && where === get('search')))) get('item').focus();
      return;
    }
    const key = event.key;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ...(where === list ? { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -1e9, End: 1e9 } : {}) };
    if (key in moves) go(at + moves[key]);
    else if (!get('letters').checked) return;
    else if (key === 'j') go(at + 1);
    else if (key === 'k') go(at - 1);
    else if (/^[1-6]$/.test(key)) label(names[+key - 1]);
    else if (letters.has(key)) label(letters.get(key));
    else if (key === 'a') prefer('0');
    else if (key === 'b') prefer('1');
    else if (key === '=') prefer('tie');
    else if (key === 's') choose(1 - active);
    else if (key === 'x') { get('blind').checked = !blind(); redraw(); go(at); }
    else if (key === 'm') { get('comment').focus(); get('comment').select(); }
    else if (key === 'z') undo();
    else if (key === 'd') { const m = get('marks'); m.selectedIndex = (m.selectedIndex + 1) % m.options.length; show(); }
    else if (key === '/') get('search').focus();
    else if (key === '?') get('keys').showModal();
    else return;
    event.preventDefault();
  });
  get('labels').addEventListener('click', (event) => { const b = event.target.closest('button'); if (b) label(b.dataset.label); });
  get('preference').addEventListener('click', (event) => { const b = event.target.closest('button'); if (b) prefer(b.dataset.side); });
  for (const n of [0, 1]) get('name-' + n).addEventListener('click', () => choose(n));
  list.addEventListener('scroll', draw, { passive: true });
  list.addEventListener('click', (event) => { const element = event.target.closest('.row'); if (element) go(+element.dataset.n); });
  get('next').addEventListener('click', () => go(at + 1));
  get('previous').addEventListener('click', () => go(at - 1));
  get('undo').addEventListener('click', undo);
  get('export').addEventListener('click', download);
  get('help').addEventListener('click', () => get('keys').showModal());
  get('order').addEventListener('change', () => arrange(false));
  get('filter').addEventListener('change', () => arrange(true));
  get('marks').addEventListener('change', show);
  get('blind').addEventListener('change', () => { redraw(); go(at); });
  get('comment').addEventListener('change', comment);
  get('comment').addEventListener('keydown', (event) => { if (event.key === 'Enter') { comment(); get('item').focus(); } });
  let searching = 0;
  get('search').addEventListener('input', () => { clearTimeout(searching); searching = setTimeout(() => arrange(true), 150); });
  get('reviewer').addEventListener('change', () => {
    remember('berth-review-name', reviewer());
    undone.length = 0;
    if (get('state').textContent.startsWith('Say who')) state('');
    count();
    arrange(true);
  });
  addEventListener('resize', draw);
  addEventListener('beforeunload', (event) => { if (waiting.length) event.preventDefault(); });

  const start = async () => {
    get('reviewer').value = recall('berth-review-name') || config.reviewer;
    config.judgements.forEach(note);
    if (config.mode === 'server') {
      try {
        const answer = await fetch('judgements');
        if (!answer.ok) throw new Error(answer.statusText);
        (await answer.json()).forEach(note);
      } catch (error) {
        state(`The judgements so far cannot be read: ${error.message}. Load this page again.`);
      }
    } else {
      for (const line of (recall(kept) ?? '').split('\n')) {
        if (!line) continue;
        let j;
        try { j = JSON.parse(line); } catch { continue; }
        history.set(j.row + place(j.reviewer, j.answer), j);
        note(j);
      }
    }
    if (row(config.orders.suspicious[0]).reference === null) get('marks').value = 'other';
    view = config.orders.suspicious;
    count();
    redraw();
    const open = view.findIndex((i) => !judgedByMe(i));
    go(Math.max(0, open));
    document.body.dataset.ready = String(Math.round(performance.now()));
  };
  start();
})();
