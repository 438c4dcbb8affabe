// The live part of the guide: experiments that run, the state of the servers, the clock of an interview, and what was
// read.
'use strict';

// Reads server-sent events from the response to a POST. EventSource can only send a GET.
async function* serverSentEvents(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        text += value;
        const events = text.split('\n\n');
        text = events.pop();
        for (const event of events) {
            const field = name => event.split('\n')
                .filter(line => line.startsWith(name + ': '))
                .map(line => line.slice(name.length + 2)).join('\n');
            if (field('data')) yield { name: field('event'), data: JSON.parse(field('data')) };
        }
    }
}

// The running experiment, or null.
const running = async () => (await fetch('/api/running')).json();

const seconds = count => new Promise(resolve => setTimeout(resolve, 1000 * count));

// A form, a button, and the result as it comes in. The server has written all of it into the page.
class LiveExperiment extends HTMLElement {
    connectedCallback() {
        this.form = this.querySelector('form');
        if (!this.form) return;
        this.form.hidden = false;
        this.form.addEventListener('submit', event => {
            event.preventDefault();
            this.run();
        });
        this.part('.stop').addEventListener('click', () => this.stop());
    }

    part(selector) {
        return this.querySelector(selector);
    }

    say(words) {
        this.part('.status').textContent = words;
    }

    stop() {
        this.running?.abort();
    }

    // Returns the verdict in one word, or undefined if there is none.
    async run() {
        const before = this.part('.result').innerHTML;
        this.running = new AbortController();
        this.show(true);
        this.say('starting …');
        try {
            const response = await fetch(
                `/api/experiments/${this.getAttribute('answer')}/${this.getAttribute('name')}`,
                {
                    method: 'POST',
                    headers: { 'content-type': 'application/json' },
                    body: JSON.stringify(Object.fromEntries(new FormData(this.form))),
                    signal: this.running.signal,
                });
            if (!response.ok) {
                const { detail, running } = await response.json();
                this.say(detail);
                if (running) this.sayWhenOver(running);
                return;
            }
            this.part('.result').replaceChildren(this.part('template').content.cloneNode(true));
            let ended = false;
            for await (const event of serverSentEvents(response)) {
                ended = event.name === 'report';
                this.take(event);
            }
            if (!ended) this.say('the guide has stopped');
            return ended ? this.part('.verdict strong').textContent : undefined;
        } catch (error) {
            const stopped = error.name === 'AbortError';
            this.say(stopped ? 'stopped' : 'the guide does not answer: is it still running?');
            if (stopped) this.part('.result').innerHTML = before;
        } finally {
            this.show(false);
        }
    }

    // Waits until the other experiment is over. It may run in another tab.
    async sayWhenOver({ answer, experiment }) {
        const words = this.part('.status').textContent;
        const waits = () => this.isConnected && this.part('.status').textContent === words;
        while (waits()) {
            await seconds(1);
            const now = await running().catch(() => null);
            if (now?.answer === answer && now?.experiment === experiment) continue;
            if (waits()) this.say(`${answer} ${experiment} is over: now this one can run`);
        }
    }

    take({ name, data }) {
        if (name === 'progress') {
            const bar = this.part('progress');
            if (data.total > 0) {
                bar.max = data.total;
                bar.value = data.done;
            } else {
                bar.removeAttribute('value');
            }
            this.say(data.label);
        } else if (name === 'building') {
            this.part('progress').removeAttribute('value');
            this.say(`building: ${data.label}`);
        } else if (name === 'piece') {
            const slot = this.part(`[data-slot="${data.slot}"]`);
            const piece = document.createElement('div');
            piece.innerHTML = data.html;
            if (data.key) piece.dataset.key = data.key;
            const old = [...slot.children].find(old => data.key && old.dataset.key === data.key);
            if (old) old.replaceWith(piece); else slot.append(piece);
        } else if (name === 'report') {
            this.part('.result').innerHTML = data.html;
            stackTables();
            this.say(this.part('.verdict')?.textContent ?? 'done');
        }
    }

    // Shows the right button, and moves the keyboard's focus to it if the focused button disappears.
    show(running) {
        const [run, stop] = [this.part('.run'), this.part('.stop')];
        const focused = document.activeElement === run || document.activeElement === stop;
        this.setAttribute('aria-busy', running);
        run.hidden = running;
        stop.hidden = !running;
        this.part('progress').hidden = !running;
        this.part('progress').removeAttribute('value');
        if (focused) (running ? stop : run).focus();
    }
}

// Runs all experiments one after another. Stop ends the running one and skips the rest.
class RunAll extends HTMLElement {
    connectedCallback() {
        this.hidden = false;
        this.querySelector('.run').addEventListener('click', () => this.run());
        this.querySelector('.stop').addEventListener('click', () => this.stop());
    }

    say(words) {
        this.querySelector('.status').textContent = words;
    }

    stop() {
        this.stopped = true;
        this.current?.stop();
    }

    async run() {
        const all = document.querySelectorAll(`live-experiment[answer=${this.getAttribute('answer')}]`);
        const experiments = [...all].filter(experiment => experiment.form);
        const counts = new Map();
        this.stopped = false;
        this.show(true);
        for (const [index, experiment] of experiments.entries()) {
            this.current = experiment;
            this.say(`${index + 1} of ${experiments.length}: ${experiment.getAttribute('name')}`);
            const verdict = await experiment.run();
            if (!verdict) this.stopped = true;
            if (this.stopped) break;
            counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
        }
        this.show(false);
        const words = [...counts].map(([verdict, count]) => `${count} ${verdict.toLowerCase()}`);
        if (this.stopped) words.push(`stopped at ${this.current.getAttribute('name')}`);
        this.say(words.join(', '));
    }

    show(running) {
        const [run, stop] = [this.querySelector('.run'), this.querySelector('.stop')];
        const focused = document.activeElement === run || document.activeElement === stop;
        run.hidden = running;
        stop.hidden = !running;
        if (focused) (running ? stop : run).focus();
    }
}

// Where the servers come from. Asks again every two seconds while the page is visible.
class GuideStack extends HTMLElement {
    connectedCallback() {
        this.look();
    }

    async look() {
        if (!this.isConnected) return;
        if (!document.hidden) {
            try {
                const servers = await (await fetch('/api/stack')).json();
                const rows = servers.map(({ service, state, source, address }) => {
                    const row = document.createElement('tr');
                    row.className = state;
                    for (const text of [service, state, source, address]) {
                        row.insertCell().textContent = text;
                    }
                    return row;
                });
                const body = this.querySelector('tbody');
                const words = rows.map(row => row.outerHTML).join();
                if (words !== this.words) body.replaceChildren(...rows);
                this.words = words;
            } catch {
                this.querySelector('tbody').textContent = 'the guide does not answer';
                this.words = null;
            }
        }
        setTimeout(() => this.look(), 2000);
    }
}

// The clock of an interview's stage. The server says how much time was used; this script lets it go on.
class InterviewClock extends HTMLElement {
    connectedCallback() {
        if ('paused' in this.dataset) return;
        this.begun = Date.now() - 1000 * Number(this.dataset.used);
        this.shown = Date.now();
        this.timer = setInterval(() => this.show(), 1000);
    }

    disconnectedCallback() {
        clearInterval(this.timer);
    }

    async show() {
        const [before, now] = [this.shown, Date.now()];
        this.shown = now;
        if (now - before > 120_000) {
            // The machine has slept. The server does not count that; its page shows what it counts.
            clearInterval(this.timer);
            if (await keepDraft()) location.reload();
            return;
        }
        const used = Math.floor((now - this.begun) / 1000);
        const all = 60 * Number(this.dataset.minutes);
        const left = Math.abs(all - used);
        const words = `${used > all ? '-' : ''}${Math.floor(left / 60)}:${String(left % 60).padStart(2, '0')}`;
        this.textContent = `${this.dataset.stage}, ${words} left of ${this.dataset.minutes}:00`;
        const nudge = document.querySelector('.nudge');
        if (used >= all && nudge && !nudge.textContent) {
            nudge.textContent = 'The time of this stage is over. Finish your sentence, and go on.';
        }
    }
}

// Keeps what is written in this step, and tells the server that the reader is here. Returns whether it was kept.
async function keepDraft() {
    const form = document.querySelector('mock-interview .answer');
    if (!form) return true;
    const body = new URLSearchParams(new FormData(form));
    body.set('action', 'draft');
    // A second tab has older words, and must not replace newer ones.
    if (!('written' in form.dataset)) body.delete('text');
    // It arrives also if this page is being closed. A browser refuses that for more than 64 KiB.
    const keepalive = body.toString().length < 60_000;
    const response = await fetch('interview', { method: 'POST', body, keepalive }).catch(() => null);
    await sayDraft(form, response);
    return Boolean(response?.ok);
}

// Says that the words were not kept, and why, until they are.
async function sayDraft(form, response) {
    let words = '';
    if (!response) words = 'the guide does not answer: is it still running?';
    // The rest of such an answer repeats the words, which are still here.
    else if (!response.ok) words = (await detail(response)).split('\n\n')[0];
    if (words) words = `What you write here is not kept: ${words}`;
    const status = form.querySelector('.draft-status');
    if (status.textContent !== words) status.textContent = words;
}

// Words are kept a second after the last key, and when the page is left; the time, every 15 seconds.
function keepDrafts() {
    const form = document.querySelector('mock-interview .answer');
    if (!form) return;
    const status = document.createElement('p');
    status.className = 'draft-status refused';
    status.setAttribute('role', 'status');
    form.append(status);
    let pause;
    form.addEventListener('input', () => {
        form.dataset.written = '';
        clearTimeout(pause);
        pause = setTimeout(keepDraft, 1000);
    });
    setInterval(keepDraft, 15_000);
    addEventListener('pagehide', keepDraft);
}

// A page to which the browser comes back is as old as when it was left, with the buttons of a sent form.
addEventListener('pageshow', event => {
    if (!event.persisted) return;
    for (const button of document.querySelectorAll('button:disabled')) button.disabled = false;
    if (document.querySelector('mock-interview, verdict-quiz')) location.reload();
});

// After a jump upwards, mdBook's bar lies across the middle of the page until the next scroll. So let there be one.
function mendBar() {
    const bar = document.getElementById('mdbook-menu-bar');
    if (!bar) return;
    let isMending = false;
    document.addEventListener('scroll', () => {
        if (isMending || bar.classList.contains('sticky') || bar.getBoundingClientRect().top <= 0) return;
        isMending = true;
        document.dispatchEvent(new Event('scroll'));
        isMending = false;
    }, { passive: true });
}

// What has `autofocus` gets the focus. Chromium does it by itself only if nothing else happens while it draws the page.
function focusStep() {
    const wanted = document.querySelector('.step [autofocus], .result [autofocus]');
    if (wanted && document.activeElement === document.body) wanted.focus();
}

// The heading of a step has the focus, so that a screen reader begins there. A digit chooses; Enter goes on where there
// is nothing to choose.
function keysOfStep() {
    const heading = document.querySelector('.step > h2[autofocus]');
    heading?.addEventListener('keydown', event => {
        if (event.repeat || event.altKey || event.ctrlKey || event.metaKey) return;
        const choice = document.querySelector(`.step .choices button[value="${Number(event.key) - 1}"]`);
        const go = document.querySelector('.step .go');
        if (choice) choice.click();
        else if (event.key === 'Enter' && go && !go.closest('form')?.querySelector('fieldset')) go.click();
    });
}

// Records the reader, who listens to it afterwards. Nothing leaves the page, and with the page it is gone.
class VoiceRecorder extends HTMLElement {
    connectedCallback() {
        if (!navigator.mediaDevices || !globalThis.MediaRecorder) return;
        this.hidden = false;
        this.button = this.querySelector('button');
        this.button.addEventListener('click', () => (this.recorder ? this.stop() : this.start()));
    }

    say(words) {
        this.querySelector('[role=status]').textContent = words;
    }

    async start() {
        try {
            this.stream = await navigator.mediaDevices.getUserMedia({ audio: true });
        } catch {
            this.say('The browser did not allow the microphone. You can go on without recording.');
            return;
        }
        const pieces = [];
        this.recorder = new MediaRecorder(this.stream);
        this.recorder.addEventListener('dataavailable', event => pieces.push(event.data));
        this.recorder.addEventListener('stop', () => this.show(new Blob(pieces, { type: this.recorder.mimeType })));
        this.recorder.start();
        this.button.textContent = 'Stop, and listen';
        this.say('Recording. Stop it before you go on: the recording is gone with this page.');
    }

    stop() {
        this.recorder.stop();
        for (const track of this.stream.getTracks()) track.stop();
    }

    show(blob) {
        const audio = this.querySelector('audio');
        audio.src = URL.createObjectURL(blob);
        audio.hidden = false;
        this.recorder = undefined;
        this.button.textContent = 'Record once more';
        this.say('Nothing of it has left this page.');
    }
}

// Sends a form, and goes to the page that the answer leads to. An error is shown, and what was written stays.
async function sendForms(event) {
    const form = event.target.closest('mock-interview form, verdict-quiz form, star-stories form');
    if (!form || form.method !== 'post') return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, event.submitter));
    const buttons = [...form.querySelectorAll('button:enabled')];
    // A second click sends nothing.
    for (const button of buttons) button.disabled = true;
    // Not `form.action`: a field of this name hides it.
    const response = await fetch(form.getAttribute('action'), { method: 'POST', body }).catch(() => null);
    if (response?.ok) {
        delete form.dataset.written;
        location.assign(response.url);
        return;
    }
    for (const button of buttons) button.disabled = false;
    event.submitter?.focus();
    let said = form.querySelector('.refused:not(.draft-status)');
    if (!said) {
        said = document.createElement('p');
        said.className = 'refused words';
        said.setAttribute('role', 'alert');
        form.append(said);
    }
    said.textContent = response ? await detail(response) : 'the guide does not answer: is it still running?';
    said.scrollIntoView({ block: 'nearest' });
}

// A story is sent only when it is whole. Until then, the browser asks before it closes the page.
function guardStory() {
    const form = document.querySelector('star-stories form');
    form?.addEventListener('input', () => { form.dataset.written = ''; });
    addEventListener('beforeunload', event => {
        if (form && 'written' in form.dataset) event.preventDefault();
    });
}

// What an answer says about an error: as JSON, or as plain text.
async function detail(response) {
    const text = await response.text();
    try {
        return JSON.parse(text).detail ?? text;
    } catch {
        return text || 'the guide refused it';
    }
}

// The cards of the first page: filters, and in a book without a server the marks that this browser has kept.
class GuideContents extends HTMLElement {
    connectedCallback() {
        this.filters = this.querySelector('.filters');
        if (!this.filters) return;
        this.filters.hidden = false;
        this.filters.addEventListener('input', () => this.filter());
        this.filters.addEventListener('submit', event => event.preventDefault());
        this.mark();
        if ('static' in this.dataset) this.goOn();
    }

    // The marks of the chapters that were read in this browser.
    mark() {
        for (const answer of readHere()) {
            const mark = this.querySelector(`.card[data-answer="${answer}"] [data-mark=read]`);
            if (!mark || mark.classList.contains('done')) continue;
            mark.className = 'done';
            mark.querySelector('[aria-hidden]').textContent = '✓';
            mark.querySelector('.sr').textContent = ': done';
        }
    }

    // A book without a server knows no reader. The first chapter that was not read in this browser comes next.
    goOn() {
        const open = [...this.querySelectorAll('.card')].find(card => card.querySelector('[data-mark=read].open'));
        const chapter = open?.querySelector('h3 a');
        if (!chapter) return;
        this.querySelector('.continue a').href = chapter.href;
        this.querySelector('.continue span').textContent = `Read: ${chapter.textContent}`;
    }

    filter() {
        const { level, minutes, here } = this.filters.elements;
        let shown = 0;
        for (const card of this.querySelectorAll('.card')) {
            const data = card.dataset;
            card.hidden = (level.value && data.level !== level.value)
                || (minutes.value && data.minutes !== minutes.value)
                || (here.checked && data.here !== 'all');
            if (!card.hidden) shown += 1;
        }
        this.hideEmptyLevels();
        this.filters.querySelector('[role=status]').textContent = shown === 1 ? '1 question' : `${shown} questions`;
    }

    // A level of which no card is left has no heading either.
    hideEmptyLevels() {
        for (const heading of this.querySelectorAll('h2:has(+ .contents)')) {
            const parts = [];
            let next = heading.nextElementSibling;
            for (; next?.matches('.contents, .later'); next = next.nextElementSibling) parts.push(next);
            const isEmpty = !parts.some(part => part.querySelector('.card:not([hidden])'));
            for (const part of [heading, ...parts]) part.hidden = isEmpty;
        }
    }
}

// The reader's progress, to another machine and back. A book without a server knows what this browser has kept.
class GuideProgress extends HTMLElement {
    connectedCallback() {
        this.hidden = false;
        this.querySelector('.import').hidden = false;
        this.querySelector('input').addEventListener('change', event => this.import(event.target.files[0]));
        this.querySelector('button')?.addEventListener('click', () => this.download());
    }

    say(words) {
        this.querySelector('[role=status]').textContent = words;
    }

    download() {
        const link = document.createElement('a');
        const text = JSON.stringify({ version: 1, read: readHere() }, null, 2);
        link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
        link.download = 'progress.json';
        link.click();
        URL.revokeObjectURL(link.href);
    }

    async import(file) {
        if (!file) return;
        const text = await file.text();
        const contents = this.closest('guide-contents');
        if (!('static' in contents.dataset)) {
            const response = await fetch('progress/import', { method: 'POST', body: text }).catch(() => null);
            const words = response ? await detail(response) : 'the guide does not answer: is it still running?';
            this.say(response?.ok ? `${words} Reload this page to see them.` : words);
            return;
        }
        try {
            const { read } = JSON.parse(text);
            keepRead(read.filter(name => typeof name === 'string'));
            contents.mark();
            contents.goOn();
            this.say('Added.');
        } catch {
            this.say('This is not a file that was downloaded here.');
        }
    }
}

const KEY = 'worked-answers-read';

function keepRead(names) {
    try {
        localStorage.setItem(KEY, JSON.stringify([...new Set([...readHere(), ...names])]));
    } catch {
        // A browser that keeps nothing.
    }
}

// The chapters that were read to their end, as this browser has kept them.
function readHere() {
    try {
        const read = JSON.parse(localStorage.getItem(KEY) ?? '[]');
        return Array.isArray(read) ? read.filter(name => /^[a-z-]+$/.test(name)) : [];
    } catch {
        return [];
    }
}

// A chapter was read when its last part was seen, also after a jump to it: nobody can see what was understood.
function watchTheEnd() {
    const end = document.getElementById('sources');
    const answer = document.querySelector('live-experiment')?.getAttribute('answer');
    if (!end || !answer) return;
    const watch = new IntersectionObserver(async entries => {
        if (!entries.some(entry => entry.isIntersecting)) return;
        // A guide that runs keeps it in the reader's progress; other pages, in this browser.
        if (document.querySelector('run-all')) {
            // It arrives also if the reader goes on to the next chapter at once.
            const sent = fetch(`/api/read/${answer}`, { method: 'POST', keepalive: true });
            if ((await sent.catch(() => null))?.ok) watch.disconnect();
            return;
        }
        watch.disconnect();
        keepRead([answer]);
    });
    watch.observe(end);
}

// The tables of a chapter, of its results and of the earlier interviews, for a narrow screen.
function stackTables() {
    const where = ':is(main, mock-interview, live-experiment *) > .table-wrapper > table';
    for (const table of document.querySelectorAll(where)) {
        const heads = [...table.querySelectorAll('thead th')].map(head => head.textContent.trim());
        // Three narrow columns of a result can still be compared side by side.
        if (table.closest('live-experiment') && heads.length < 4) continue;
        table.classList.add('stacked');
        // Cells that are shown as blocks lose their roles in some browsers.
        const roles = { table: 'table', thead: 'rowgroup', tbody: 'rowgroup', tr: 'row', th: 'columnheader', td: 'cell' };
        for (const part of [table, ...table.querySelectorAll('thead, tbody, tr, th, td')]) {
            // An empty corner is no heading of a column.
            const isCorner = part.localName === 'th' && !part.textContent.trim();
            part.setAttribute('role', isCorner ? 'cell' : roles[part.localName]);
        }
        for (const row of table.querySelectorAll('tbody tr')) {
            [...row.cells].forEach((cell, at) => {
                if (heads[at]) cell.dataset.head = heads[at];
            });
        }
    }
}

// A chapter that was changed is shown anew. While something runs or is filled in, the page stays.
async function reloadWhenChanged() {
    if (!document.querySelector('run-all')) return;
    let known;
    for (;;) {
        await seconds(5);
        // The server looks at all sources for this, which would disturb what is being measured.
        if (document.hidden || document.querySelector('[aria-busy=true]')) continue;
        const number = await fetch('/api/book').then(response => response.json()).catch(() => null);
        if (number === null) continue;
        known ??= number;
        const busy = document.activeElement?.matches('input, select');
        if (number !== known && !busy) location.reload();
    }
}

// A button that opens all of what is folded below a heading.
function openAll() {
    for (const id of ['the-textbook-answer-checked', 'follow-ups']) {
        const heading = document.getElementById(id);
        const folded = [];
        for (let next = heading?.nextElementSibling; next && next.tagName !== 'H2'; next = next.nextElementSibling) {
            if (next.tagName === 'DETAILS') folded.push(next);
            folded.push(...next.querySelectorAll('details'));
        }
        if (folded.length === 0) continue;
        const button = document.createElement('button');
        button.className = 'small open-all';
        button.textContent = 'Open all';
        button.addEventListener('click', () => {
            for (const one of folded) one.open = true;
        });
        heading.after(button);
    }
}

// A button that copies a command line. Blocks of code have one of mdBook's.
function copyButtons() {
    if (!navigator.clipboard) return;
    for (const code of document.querySelectorAll('.command code, .run-it code, exercise-list td code')) {
        const button = document.createElement('button');
        button.type = 'button';
        button.className = 'small copy-command';
        button.textContent = 'Copy';
        button.setAttribute('aria-label', `Copy ${code.textContent}`);
        button.addEventListener('click', async () => {
            await navigator.clipboard.writeText(code.textContent);
            button.textContent = 'Copied';
        });
        code.after(' ', button);
    }
}

// A button that opens a listing in the editor that $VISUAL or $EDITOR names.
function editorButtons() {
    for (const button of document.querySelectorAll('.open-editor')) {
        button.hidden = false;
        button.setAttribute('aria-label', `${button.textContent}: ${button.dataset.path}`);
        button.addEventListener('click', async () => {
            const { path, line } = button.dataset;
            const response = await fetch('/api/open', {
                method: 'POST',
                headers: { 'content-type': 'application/json' },
                body: JSON.stringify({ path, line: Number(line) }),
            }).catch(() => null);
            const words = response ? await detail(response) : 'the guide does not answer';
            button.nextElementSibling.textContent = response?.ok ? '' : words;
        });
    }
}

// A wide box scrolls by keyboard too.
function scrollByKeyboard() {
    for (const box of document.querySelectorAll('.table-wrapper, .diagram, pre, pre code')) {
        // The picture of a card is hidden from screen readers, so nothing in it may have the focus.
        if (box.scrollWidth > box.clientWidth && !box.closest('.picture')) box.tabIndex = 0;
    }
}

document.addEventListener('submit', sendForms);
customElements.define('interview-clock', InterviewClock);
customElements.define('voice-recorder', VoiceRecorder);
customElements.define('guide-contents', GuideContents);
customElements.define('guide-progress', GuideProgress);
watchTheEnd();
reloadWhenChanged();
openAll();
stackTables();
scrollByKeyboard();
copyButtons();
editorButtons();
keepDrafts();
guardStory();
keysOfStep();
focusStep();
mendBar();
customElements.define('live-experiment', LiveExperiment);
customElements.define('run-all', RunAll);
customElements.define('guide-stack', GuideStack);
