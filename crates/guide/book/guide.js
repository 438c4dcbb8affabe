// The live part of the guide: experiments that run, and the state of the servers.
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

customElements.define('live-experiment', LiveExperiment);
customElements.define('run-all', RunAll);
customElements.define('guide-stack', GuideStack);
