// The live part of the guide: experiments that run, and the state of the servers.
'use strict';

// Server-sent events of an answer to a POST, which EventSource cannot make.
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
        this.part('.stop').addEventListener('click', () => this.running?.abort());
    }

    part(selector) {
        return this.querySelector(selector);
    }

    say(words) {
        this.part('.status').textContent = words;
    }

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
                this.say((await response.json()).detail);
                return;
            }
            this.part('.result').replaceChildren(this.part('template').content.cloneNode(true));
            let ended = false;
            for await (const event of serverSentEvents(response)) {
                ended = event.name === 'report';
                this.take(event);
            }
            if (!ended) this.say('the guide has stopped');
        } catch (error) {
            const stopped = error.name === 'AbortError';
            this.say(stopped ? 'stopped' : 'the guide does not answer: is it still running?');
            if (stopped) this.part('.result').innerHTML = before;
        } finally {
            this.show(false);
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

    // What can be pressed, and where the keyboard's focus goes when its button goes away.
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

// Where the servers come from, asked again as long as the page is looked at.
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
customElements.define('guide-stack', GuideStack);
