//! Does the guide work for a reader? The tests drive a real, headless Chromium.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use anyhow::{Context, bail, ensure};
use fantoccini::{Client, ClientBuilder, Locator, key::Key};
use guide::{
    forms::{self, Fields},
    reader::Reader,
};
use interview::{screen::Wants, subject::Subject};
use lab::harness::{Completion, Trial};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    guide_builds::Edited,
    guide_over_http::Guide,
    support::{Outcome, eventually, trial},
};

pub fn tests() -> Vec<Trial> {
    vec![
        trial(module_path!(), "a_reader_runs_an_experiment_with_the_keyboard", || {
            in_a_browser(async |guide, page| runs_an_experiment(guide, page).await)
        }),
        trial(module_path!(), "a_reader_stops_an_experiment", || {
            in_a_browser(async |guide, page| stops_an_experiment(guide, page).await)
        }),
        trial(module_path!(), "a_second_tab_says_what_runs_in_the_first", || {
            in_a_browser(async |guide, page| a_second_tab(guide, page).await)
        }),
        trial(module_path!(), "a_reader_runs_a_whole_chapter_and_stops_it", || {
            in_a_browser(async |guide, page| runs_a_chapter(guide, page).await)
        }),
        trial(module_path!(), "a_reader_sees_what_the_compiler_says", || {
            in_a_browser(async |_, page| sees_a_build_fail(page).await)
        }),
        trial(module_path!(), "a_reader_takes_an_interview_with_the_keyboard", || {
            in_a_browser(async |guide, page| takes_an_interview(guide, page).await)
        }),
        trial(
            module_path!(),
            "what_a_reader_wrote_is_there_after_a_pause_a_reload_and_a_night",
            || in_a_browser(async |guide, page| loses_no_words(guide, page).await),
        ),
        trial(module_path!(), "a_reader_judges_the_daily_ten", || {
            in_a_browser(async |guide, page| judges_ten(guide, page).await)
        }),
        trial(module_path!(), "a_reader_predicts_and_sees_what_came", || {
            in_a_browser(async |guide, page| predicts(guide, page).await)
        }),
        trial(module_path!(), "the_pages_have_no_violations_of_accessibility", || {
            in_a_browser(async |guide, page| is_accessible(guide, page).await)
        }),
        trial(module_path!(), "the_pages_fit_a_narrow_and_a_wide_screen", || {
            in_a_browser(async |guide, page| fits_every_screen(guide, page).await)
        }),
    ]
}

async fn runs_an_experiment(guide: &Guide, page: &Client) -> Outcome {
    page.goto(&guide.url).await?;
    eventually("the state of the servers is shown", async || {
        let rows = page.find_all(Locator::Css("guide-stack tbody tr")).await?;
        Ok((rows.len() == 3).then_some(()))
    })
    .await?;
    // The first page leads to it, and the sidebar, which a script of mdBook's fills, knows it too.
    page.find(Locator::Css(".contents a[href='url-shortener.html']")).await?.click().await?;
    page.wait().for_element(Locator::Css("#mdbook-sidebar a.active")).await?;

    // Use only the keyboard: into the first field, a number, and on, past the checkbox for the whiteboard version and
    // the two fields of a prediction.
    let first = page.find(Locator::Css("live-experiment[name=race] [name=clients]")).await?;
    let focus = "arguments[0].focus(); arguments[0].select();";
    page.execute(focus, vec![serde_json::to_value(&first)?]).await?;
    let keys = format!(
        "20{tab}2{tab}{tab}{tab}{tab}{enter}",
        tab = char::from(Key::Tab),
        enter = char::from(Key::Enter)
    );
    page.active_element().await?.send_keys(&keys).await?;
    eventually("the experiment has run to its checks", async || {
        let verdict = text(page, "live-experiment[name=race] .status").await?;
        Ok(verdict.starts_with("Held").then_some(()))
    })
    .await?;
    let checks = page.find_all(Locator::Css("live-experiment[name=race] .checks li.held")).await?;
    ensure!(checks.len() == 4, "{} checks", checks.len());
    let made_on = text(page, "live-experiment[name=race] .made-on").await?;
    ensure!(made_on.contains("clients 20") && made_on.contains("rounds 2"), "{made_on}");
    let copies = page.find_all(Locator::Css("live-experiment[name=race] .copy-command")).await?;
    ensure!(copies.len() == 1, "{} buttons copy the command line", copies.len());
    // The focus is back where the next run starts.
    ensure!(text_of_focus(page).await? == "Run");

    // The same experiment on the whiteboard version, which fails it: in two rounds it may still be lucky.
    click(page, "live-experiment[name=race] [name=whiteboard]").await?;
    run(page, "race", &[("clients", "20"), ("rounds", "20")]).await?;
    eventually("the whiteboard version has failed", async || {
        let verdict = text(page, "live-experiment[name=race] .status").await?;
        Ok(verdict.starts_with("Refuted").then_some(()))
    })
    .await?;
    let made_on = text(page, "live-experiment[name=race] .made-on").await?;
    ensure!(made_on.contains("the whiteboard version"), "{made_on}");

    run(page, "sharding", &[("codes", "2000"), ("links", "20"), ("shards", "2")]).await?;
    eventually("the chart is drawn", async || {
        let charts =
            page.find_all(Locator::Css("live-experiment[name=sharding] svg.chart")).await?;
        Ok((!charts.is_empty()).then_some(()))
    })
    .await
}

async fn stops_an_experiment(guide: &Guide, page: &Client) -> Outcome {
    page.goto(&format!("{}/url-shortener.html#url-shortener-expiry", guide.url)).await?;
    let before = text(page, "live-experiment[name=expiry] .result").await?;
    run(page, "expiry", &[("seconds", "30")]).await?;
    eventually("it shows progress", async || {
        let status = text(page, "live-experiment[name=expiry] .status").await?;
        Ok(status.contains("links live for 30 s").then_some(()))
    })
    .await?;
    // Another one has to wait for its turn, and the page says so.
    run(page, "race", &[]).await?;
    eventually("the other is told to wait", async || {
        let status = text(page, "live-experiment[name=race] .status").await?;
        Ok(status.contains("url-shortener expiry is running").then_some(()))
    })
    .await?;
    click(page, "live-experiment[name=expiry] .stop").await?;
    eventually("it has stopped", async || {
        let status = text(page, "live-experiment[name=expiry] .status").await?;
        Ok((status == "stopped").then_some(()))
    })
    .await?;
    let after = text(page, "live-experiment[name=expiry] .result").await?;
    ensure!(before == after, "the last result has gone: {after}");
    Ok(())
}

async fn a_second_tab(guide: &Guide, page: &Client) -> Outcome {
    let chapter = format!("{}/url-shortener.html", guide.url);
    let first = page.window().await?;
    page.goto(&chapter).await?;
    run(page, "expiry", &[("seconds", "30")]).await?;
    eventually("the first tab shows progress", async || {
        let status = text(page, "live-experiment[name=expiry] .status").await?;
        Ok(status.contains("links live for 30 s").then_some(()))
    })
    .await?;
    let second = page.new_window(true).await?.handle;
    page.switch_to_window(second.clone()).await?;
    page.goto(&chapter).await?;
    let status = async || text(page, "live-experiment[name=race] .status").await;
    run(page, "race", &[("clients", "5"), ("rounds", "1")]).await?;
    eventually("the second tab says what runs", async || {
        Ok(status().await?.contains("url-shortener expiry is running").then_some(()))
    })
    .await?;
    page.switch_to_window(first).await?;
    click(page, "live-experiment[name=expiry] .stop").await?;
    page.switch_to_window(second).await?;
    eventually("the second tab says that it is over", async || {
        Ok(status().await?.contains("url-shortener expiry is over").then_some(()))
    })
    .await?;
    click(page, "live-experiment[name=race] .run").await?;
    eventually("now it runs", async || Ok(status().await?.starts_with("Held").then_some(()))).await
}

async fn runs_a_chapter(guide: &Guide, page: &Client) -> Outcome {
    page.goto(&format!("{}/url-shortener.html", guide.url)).await?;
    // Two quick experiments and a slow one.
    let script = "for (const one of document.querySelectorAll('live-experiment')) {
        if (!['race', 'sharding', 'expiry'].includes(one.getAttribute('name'))) one.remove();
    }";
    page.execute(script, vec![]).await?;
    fill(page, "race", &[("clients", "5"), ("rounds", "1")]).await?;
    fill(page, "sharding", &[("codes", "2000"), ("links", "20"), ("shards", "2")]).await?;
    fill(page, "expiry", &[("links", "1"), ("seconds", "1")]).await?;
    let status = async || text(page, "run-all .status").await;
    click(page, "run-all .run").await?;
    eventually("it says where it is", async || {
        Ok(status().await?.starts_with("2 of 3: ").then_some(()))
    })
    .await?;
    eventually("all have run", async || Ok((status().await? == "3 held").then_some(()))).await?;
    let held = page.find_all(Locator::Css("live-experiment .status")).await?;
    for status in held {
        ensure!(status.text().await?.starts_with("Held"), "{}", status.text().await?);
    }

    fill(page, "expiry", &[("links", "1"), ("seconds", "30")]).await?;
    click(page, "run-all .run").await?;
    eventually("the slow one runs", async || {
        Ok(status().await?.ends_with(": expiry").then_some(()))
    })
    .await?;
    click(page, "run-all .stop").await?;
    eventually("it has stopped", async || {
        Ok(status().await?.ends_with("stopped at expiry").then_some(()))
    })
    .await?;
    ensure!(text(page, "live-experiment[name=expiry] .status").await? == "stopped");
    Ok(())
}

async fn sees_a_build_fail(page: &Client) -> Outcome {
    let copy = Edited::new()?;
    // It waits at the pipe until the test opens it.
    let script = "mkfifo go; cat go; echo 'error: expected `;`' >&2; exit 101";
    let guide = copy.guide(script).await?;
    page.goto(&format!("{}/url-shortener.html", guide.url)).await?;
    run(page, "race", &[]).await?;
    eventually("the page says that it builds", async || {
        let status = text(page, "live-experiment[name=race] .status").await?;
        Ok(status.contains("building url-shortener").then_some(()))
    })
    .await?;
    copy.write("go")?;
    eventually("the page shows the compiler's words", async || {
        let result = text(page, "live-experiment[name=race] .result").await?;
        Ok(result.contains("error: expected `;`").then_some(()))
    })
    .await?;
    ensure!(
        page.find_all(Locator::Css("live-experiment[name=race] .verdict.held")).await?.is_empty()
    );
    Ok(())
}

/// Types into what has the focus, once that is this and the scripts of the page have run.
async fn keys(page: &Client, focused: &str, keys: &str) -> Outcome {
    eventually(&format!("{focused} has the focus"), async || {
        let script = "return document.readyState === 'complete'
            && document.activeElement.matches(arguments[0]);";
        Ok((page.execute(script, vec![json!(focused)]).await? == true).then_some(()))
    })
    .await?;
    Ok(page.active_element().await?.send_keys(keys).await?)
}

/// Waits until a page has this.
async fn comes(page: &Client, selector: &str) -> Outcome {
    eventually(&format!("{selector} is there"), async || {
        // While a page is loaded, there is nothing to find.
        let found = page.find_all(Locator::Css(selector)).await.unwrap_or_default();
        Ok((!found.is_empty()).then_some(()))
    })
    .await
}

/// Waits for another step than this one; nothing when the result is there.
async fn next_step(page: &Client, before: Option<&str>) -> anyhow::Result<Option<String>> {
    let script = "return document.querySelector('mock-interview .result') ? 'result'
        : document.querySelector('.answer [name=place]')?.value ?? null;";
    eventually("the next step comes", async || {
        // While a page is loaded, there is nothing to ask.
        let place = page.execute(script, vec![]).await.unwrap_or_default();
        let place = place.as_str().filter(|place| Some(*place) != before);
        Ok(place.map(|place| Some(place.to_owned()).filter(|place| place != "result")))
    })
    .await
}

async fn takes_an_interview(guide: &Guide, page: &Client) -> Outcome {
    let (tab, enter) = (char::from(Key::Tab).to_string(), char::from(Key::Enter).to_string());
    page.goto(&format!("{}/interview.html", guide.url)).await?;
    // The first choice is checked: the program chooses. Enter sends the form.
    let first = page.find(Locator::Css("mock-interview [name=what]")).await?;
    page.execute("arguments[0].focus();", vec![serde_json::to_value(&first)?]).await?;
    keys(page, "[name=what]", &enter).await?;
    page.wait().for_element(Locator::Css("mock-interview .answer")).await?;
    let clock = text(page, "interview-clock").await?;
    ensure!(clock.starts_with("clarify, "), "{clock}");
    eventually("the clock goes on", async || {
        Ok((text(page, "interview-clock").await? != clock).then_some(()))
    })
    .await?;
    let kind = "const form = document.querySelector('.answer');
        return form.querySelector('#text')?.localName
            ?? (form.querySelector('.choices') ? 'choice' : form.querySelector('[name=tick]') ? 'ticks' : 'read');";
    let mut before = None;
    for step in 0.. {
        ensure!(step < 60, "the interview has no end");
        let Some(place) = next_step(page, before.as_deref()).await? else { break };
        before = Some(place);
        match page.execute(kind, vec![]).await?.as_str() {
            Some("textarea") => keys(page, "#text", &format!("my words{tab}{enter}")).await?,
            Some("input") => keys(page, "#text", &format!("1000{enter}")).await?,
            Some("choice") => keys(page, "#step", "1").await?,
            Some("ticks") => {
                let mut focused = "#step";
                // A drawing that scrolls may have the focus in between.
                for _ in 0..10 {
                    keys(page, focused, &tab).await?;
                    let script = "return document.activeElement.name === 'tick';";
                    if page.execute(script, vec![]).await? == true {
                        break;
                    }
                    focused = "*";
                }
                keys(page, "[name=tick]", &format!(" {enter}")).await?;
            }
            Some("read") => keys(page, "#step", &enter).await?,
            other => bail!("step {step} is {other:?}"),
        }
    }
    keys(page, "#level", &tab).await?;
    let result = text(page, "mock-interview .result").await?;
    for words in ["scoping", "communication", "Red flags", "What would have raised it"] {
        ensure!(result.contains(words), "no {words} in {result}");
    }
    // Back on the first page: the card knows it.
    page.goto(&guide.url).await?;
    let marks = page.find_all(Locator::Css(".marks [data-mark=interviewed].done")).await?;
    ensure!(marks.len() == 1, "{} cards know of the interview", marks.len());
    Ok(())
}

async fn loses_no_words(guide: &Guide, page: &Client) -> Outcome {
    // Begun yesterday, and the machine was switched off without a word.
    let (reader, subjects) = (Reader::of(guide.folder.path()), subjects()?);
    let begin = Fields::parse(b"action=begin&question=url-shortener");
    forms::interview(&reader, &subjects, &begin, interview::now() - time::Duration::days(1));
    page.goto(&guide.url).await?;
    ensure!(text(page, ".continue").await?.contains("Go on with your interview"));
    click(page, ".continue a").await?;
    page.wait().for_element(Locator::Css("mock-interview .answer")).await?;
    let clock = text(page, "interview-clock").await?;
    ensure!(clock.contains(" 4:") || clock.contains(" 5:00 left"), "the night counts: {clock}");

    let written = async || {
        let value = "return document.querySelector('#text')?.value ?? '';";
        let value = page.execute(value, vec![]).await.unwrap_or_default();
        anyhow::Ok(value.as_str().unwrap_or_default().to_owned())
    };
    keys(page, "#text", "a pause").await?;
    click(page, ".answer [value=pause]").await?;
    page.wait().for_element(Locator::Css(".answer [value=resume]")).await?;
    ensure!(written().await? == "a pause", "the pause has lost it: {}", written().await?);
    click(page, ".answer [value=resume]").await?;
    page.wait().for_element(Locator::Css(".answer [value=pause]")).await?;
    keys(page, "#text", "a reload").await?;
    eventually("what was written is kept", async || {
        let draft = reader.progress()?.current.context("no interview")?.draft;
        Ok(draft.contains("a reload").then_some(()))
    })
    .await?;
    page.refresh().await?;
    page.wait().for_element(Locator::Css(".answer [value=pause]")).await?;
    let words = written().await?;
    ensure!(words.contains("a reload") && words.contains("a pause"), "{words}");

    // The same step is answered elsewhere. What is written here afterwards is shown and not taken.
    let place = reader.progress()?.current.context("no interview")?.place();
    let elsewhere = Fields::parse(format!("action=take&place={place}&text=elsewhere").as_bytes());
    forms::interview(&reader, &subjects, &elsewhere, interview::now());
    click(page, ".answer .go").await?;
    eventually("the page says so", async || {
        let said = page.find_all(Locator::Css(".answer [role=alert]")).await?;
        let Some(said) = said.first() else { return Ok(None) };
        Ok(said.text().await?.contains("answered already").then_some(()))
    })
    .await?;
    ensure!(written().await? == words, "{}", written().await?);
    Ok(())
}

async fn judges_ten(guide: &Guide, page: &Client) -> Outcome {
    let enter = char::from(Key::Enter).to_string();
    page.goto(&format!("{}/quiz.html", guide.url)).await?;
    let (mut sentences, mut experiments) = (BTreeSet::new(), 0);
    for at in 1..=10 {
        // Enter, pressed twice, judges nothing.
        keys(page, "#sentence", &enter).await?;
        let sentence = text(page, "#sentence").await?;
        ensure!(sentences.insert(sentence.clone()), "{sentence} comes twice");
        keys(page, "#sentence", "1").await?;
        comes(page, "verdict-quiz .judged").await?;
        let verdict = text(page, "verdict-quiz .step").await?;
        ensure!(verdict.contains("Holds") || verdict.contains("Wrong"), "no verdict: {verdict}");
        experiments += page.find_all(Locator::Css("verdict-quiz live-experiment")).await?.len();
        if at < 10 {
            keys(page, "#verdict", &enter).await?;
            comes(page, "verdict-quiz .choices").await?;
        }
    }
    ensure!(experiments > 0, "no verdict has an experiment");
    let score = text(page, "verdict-quiz .score").await?;
    ensure!(score.contains("Today's 10 are done"), "{score}");
    Ok(())
}

async fn predicts(guide: &Guide, page: &Client) -> Outcome {
    page.goto(&format!("{}/url-shortener.html", guide.url)).await?;
    let fold = page.find_all(Locator::Css("live-experiment[name=race] .spoiler[open]")).await?;
    ensure!(fold.is_empty(), "our result is open before the prediction");
    let select =
        "const select = document.querySelector('live-experiment[name=race] [name=predict-check]');
        select.value = 'holds';";
    page.execute(select, vec![]).await?;
    run(page, "race", &[("clients", "5"), ("rounds", "1"), ("predict-figure", "12")]).await?;
    eventually("prediction, ours and yours stand side by side", async || {
        let table = page.find_all(Locator::Css("live-experiment[name=race] .predicted tbody tr"));
        Ok((table.await?.len() == 2).then_some(()))
    })
    .await?;
    let reader = Reader::of(guide.folder.path());
    let kept = reader.progress()?;
    ensure!(kept.predicted.len() == 1 && kept.ran.contains("url-shortener/race"), "{kept:?}");
    // To the end of the chapter: it is read. The first page offers what comes next.
    page.execute("document.getElementById('sources').scrollIntoView();", vec![]).await?;
    eventually("the chapter is read", async || {
        Ok(reader.progress()?.read.contains("url-shortener").then_some(()))
    })
    .await?;
    page.goto(&guide.url).await?;
    let read = ".card[data-answer=url-shortener] [data-mark=read].done";
    ensure!(page.find_all(Locator::Css(read)).await?.len() == 1, "the card does not know it");
    let next = text(page, ".continue").await?;
    ensure!(next.contains("Now be asked about it"), "{next}");
    click(page, ".continue a").await?;
    page.wait().for_element(Locator::Css("mock-interview .choose")).await?;
    let chosen = "return document.querySelector('#question').value;";
    ensure!(page.execute(chosen, vec![]).await? == "url-shortener", "another question is chosen");
    Ok(())
}

/// All questions.
fn subjects() -> anyhow::Result<Vec<Subject>> {
    Subject::all(&lab::stack::workspace())
}

/// Goes on in an interview by one step, as a form does: with these words, the first tick or the first choice. Returns
/// what the next step wants; nothing at its end.
fn answer(reader: &Reader, subjects: &[Subject], fields: &str) -> anyhow::Result<Option<Wants>> {
    forms::interview(reader, subjects, &Fields::parse(fields.as_bytes()), interview::now());
    let Some(session) = reader.progress()?.current else { return Ok(None) };
    let subject = subjects.iter().find(|it| it.name == session.answer).context("no subject")?;
    Ok(Some(session.screen(subject).wants))
}

/// The fields of a form that answers the current step.
fn good_answer(reader: &Reader, wants: &Wants) -> anyhow::Result<String> {
    let place = reader.progress()?.current.context("no interview")?.place();
    let input = match wants {
        Wants::Text => "text=words+of+mine",
        Wants::Number => "text=1000",
        Wants::Ticks(_) => "tick=0",
        Wants::Choice(_) => "choice=1",
        Wants::Aloud | Wants::Next | Wants::Nothing => "",
    };
    Ok(format!("action=take&place={place}&{input}"))
}

async fn is_accessible(guide: &Guide, page: &Client) -> Outcome {
    let axe = axe().await?;
    let (reader, subjects) = (Reader::of(guide.folder.path()), subjects()?);
    forms::stories(&reader, &Fields::parse(b"question=A+conflict&action=I+asked"));
    for theme in ["light", "navy"] {
        page.goto(&guide.url).await?;
        let store = "localStorage.setItem('mdbook-theme', arguments[0]);";
        page.execute(store, vec![json!(theme)]).await?;
        for path in ["", "url-shortener.html", "interview.html", "quiz.html", "stories.html"] {
            page.goto(&format!("{}/{path}", guide.url)).await?;
            // What is folded is hidden from axe.
            let open =
                "for (const one of document.querySelectorAll('main details')) one.open = true;";
            page.execute(open, vec![]).await?;
            let found = violations(page, &axe).await?;
            ensure!(found == json!([]), "{path} in {theme}: {found:#}");
            // What has no name would be found.
            let bad = "document.querySelector('main').append(document.createElement('input'));";
            page.execute(bad, vec![]).await?;
            let found = violations(page, &axe).await?;
            ensure!(found != json!([]), "axe finds nothing, whatever there is");
        }
        // Each kind of step once, the design beside its drawing, and the result.
        let mut seen = BTreeSet::new();
        let mut wants = answer(&reader, &subjects, "action=begin&question=url-shortener")?;
        while let Some(now) = wants {
            let session = reader.progress()?.current.context("no interview")?;
            let step = format!("{:?}", session.step());
            let kind: String =
                format!("{now:?}").chars().take_while(|c| c.is_alphabetic()).collect();
            if seen.insert(kind) || step == "Checklist(Design)" {
                page.goto(&format!("{}/interview.html", guide.url)).await?;
                let found = violations(page, &axe).await?;
                ensure!(found == json!([]), "{step} in {theme}: {found:#}");
            }
            wants = answer(&reader, &subjects, &good_answer(&reader, &now)?)?;
        }
        ensure!(seen.len() == 6, "{seen:?}");
        let judged = Fields::parse(b"answer=url-shortener&at=0&choice=0");
        forms::quiz(&reader, &subjects, &judged, interview::now());
        for path in ["interview.html?result", "quiz.html?answer=url-shortener&at=0"] {
            page.goto(&format!("{}/{path}", guide.url)).await?;
            let found = violations(page, &axe).await?;
            ensure!(found == json!([]), "{path} in {theme}: {found:#}");
        }
    }
    Ok(())
}

/// What axe finds in the page, without what is not ours: mdBook's bars and its search.
async fn violations(page: &Client, axe: &str) -> anyhow::Result<Value> {
    let script = "const done = arguments[0];
        const runOnly = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'];
        axe.run(document.querySelector('main'), { runOnly }).then(
            ({ violations }) => done(violations.map(({ id, nodes }) =>
                `${id}: ${nodes.slice(0, 3).map(node => node.html.slice(0, 160)).join(' | ')}`)),
            error => done([String(error)]));";
    page.execute(axe, vec![]).await?;
    Ok(page.execute_async(script, vec![]).await?)
}

/// The version of axe-core. A newer one may have new rules, which would fail a test that nobody has touched.
const AXE: &str = "4.10.3";

/// The script of axe-core, which npm brings.
async fn axe() -> anyhow::Result<String> {
    let target = lab::stack::workspace().join("target");
    let folder = target.join(format!("axe-{AXE}"));
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        // In a folder of its own, because another process may do the same.
        std::fs::create_dir_all(&target)?;
        let fresh = tempfile::Builder::new().prefix("axe-").tempdir_in(&target)?.keep();
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-save", "--prefix"]).arg(&fresh).arg(format!("axe-core@{AXE}"));
        npm.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let done = tokio::time::timeout(Duration::from_mins(2), npm.status()).await;
        let is_done = done.is_ok_and(|done| done.is_ok_and(|status| status.success()));
        // It fails if another process was first.
        if !is_done || std::fs::rename(&fresh, &folder).is_err() {
            let _ = std::fs::remove_dir_all(&fresh);
        }
        if !script.exists() {
            ensure!(!is_required(), "npm cannot install axe-core, and BROWSER_TEST=required");
            return Err(lab::skip("npm cannot install axe-core"));
        }
    }
    Ok(std::fs::read_to_string(&script)?)
}

/// Whether a browser must be there.
fn is_required() -> bool {
    std::env::var("BROWSER_TEST").is_ok_and(|word| word == "required")
}

async fn fits_every_screen(guide: &Guide, page: &Client) -> Outcome {
    // Wide tables and code scroll inside of their own boxes. What holds the page never does.
    let script = "const boxes = document.querySelectorAll('html, body, #mdbook-content, main');
        return Math.max(...[...boxes].map((box) => box.scrollWidth - box.clientWidth));";
    let fits = async |path: &str, width: u32| {
        page.set_window_size(width, 900).await?;
        page.goto(&format!("{}/{path}", guide.url)).await?;
        let over = page.execute(script, vec![]).await?;
        ensure!(over == 0, "{path} at {width}: too wide by {over}");
        // What is too wide would be seen.
        let wide = "document.querySelector('main').style.minWidth = '3000px';";
        let over = page.execute(&format!("{wide}{script}"), vec![]).await?;
        ensure!(over.as_u64() > Some(0), "3,000 pixels are not too wide");
        anyhow::Ok(())
    };
    for width in [360, 420, 1400, 2560] {
        for path in ["", "url-shortener.html", "interview.html", "quiz.html", "stories.html"] {
            fits(path, width).await?;
        }
    }
    let (reader, subjects) = (Reader::of(guide.folder.path()), subjects()?);
    let mut wants = answer(&reader, &subjects, "action=begin&question=url-shortener")?;
    while let Some(now) = wants {
        fits("interview.html", 360).await?;
        wants = answer(&reader, &subjects, &good_answer(&reader, &now)?)?;
    }
    for path in ["interview.html?result", "interview.html"] {
        fits(path, 360).await?;
        fits(path, 420).await?;
    }
    Ok(())
}

/// Fills in a form and presses its button.
async fn run(page: &Client, name: &str, fields: &[(&str, &str)]) -> Outcome {
    fill(page, name, fields).await?;
    click(page, &format!("live-experiment[name={name}] .run")).await
}

async fn fill(page: &Client, name: &str, fields: &[(&str, &str)]) -> Outcome {
    for (field, value) in fields {
        let selector = format!("live-experiment[name={name}] [name={field}]");
        let field = page.find(Locator::Css(&selector)).await?;
        field.clear().await?;
        field.send_keys(value).await?;
    }
    Ok(())
}

async fn click(page: &Client, selector: &str) -> Outcome {
    let element = page.find(Locator::Css(selector)).await?;
    // Scroll it away from the bar at the top, which would get the click. The bar moves a moment after the page.
    let is_free = "const [one, done] = arguments;
        one.scrollIntoView({ block: 'center' });
        const look = () => {
            const { left, top, width, height } = one.getBoundingClientRect();
            done(one.contains(document.elementFromPoint(left + width / 2, top + height / 2)));
        };
        requestAnimationFrame(() => requestAnimationFrame(look));
        // A tab in the background draws nothing.
        setTimeout(look, 1000);";
    let arguments = vec![serde_json::to_value(&element)?];
    eventually(&format!("nothing covers {selector}"), async || {
        let is_free = page.execute_async(is_free, arguments.clone()).await?;
        Ok((is_free == true).then_some(()))
    })
    .await?;
    Ok(element.click().await?)
}

async fn text(page: &Client, selector: &str) -> anyhow::Result<String> {
    Ok(page.find(Locator::Css(selector)).await?.text().await?)
}

async fn text_of_focus(page: &Client) -> anyhow::Result<String> {
    Ok(page.active_element().await?.text().await?)
}

/// Runs a test in a browser of its own, if a browser is installed. Fails if a page broke its own policy.
async fn in_a_browser(
    test: impl AsyncFnOnce(&Guide, &Client) -> Outcome,
) -> anyhow::Result<Completion> {
    let Some((mut driver, port)) = driver().await? else {
        ensure!(!is_required(), "chromedriver is missing, and BROWSER_TEST=required");
        return Ok(Completion::ignored_with("needs chromium and chromedriver"));
    };
    let guide = Guide::start().await?;
    let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
    let capabilities = json!({
        "goog:chromeOptions": { "args": arguments },
        "goog:loggingPrefs": { "browser": "ALL" },
    });
    let Value::Object(capabilities) = capabilities else { bail!("an object") };
    let address = format!("http://127.0.0.1:{port}");
    let page = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
        .capabilities(capabilities)
        .connect(&address)
        .await?;
    let session = page.session_id().await?.context("no session")?;
    let outcome = test(&guide, &page).await;
    let complaints = complaints(&address, &session).await;
    page.close().await?;
    driver.kill().await?;
    outcome?;
    let complaints = complaints?;
    ensure!(complaints.is_empty(), "the browser complained: {complaints:#?}");
    Ok(Completion::Completed)
}

/// The errors in the browser's console, such as a script that the policy forbids. A refusal that a test provokes does
/// not count.
async fn complaints(address: &str, session: &str) -> anyhow::Result<Vec<String>> {
    let log = reqwest::Client::new()
        .post(format!("{address}/session/{session}/se/log"))
        .json(&json!({ "type": "browser" }));
    let log: Value = log.send().await?.json().await?;
    let entries = log["value"].as_array().context("no log")?;
    let errors = entries.iter().filter(|entry| entry["level"] == "SEVERE");
    let messages = errors.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned());
    Ok(messages.filter(|message| !message.contains("409 (Conflict)")).collect())
}

/// A chromedriver on a free port, if there is one.
async fn driver() -> anyhow::Result<Option<(Child, u16)>> {
    let spawned = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut driver) = spawned else { return Ok(None) };
    let mut lines = BufReader::new(driver.stdout.take().context("piped")?).lines();
    let port = async {
        while let Some(line) = lines.next_line().await? {
            if let Some((_, port)) = line.split_once("successfully on port ") {
                return Ok(port.trim_end_matches('.').parse()?);
            }
        }
        bail!("chromedriver ended")
    };
    let port =
        tokio::time::timeout(Duration::from_secs(20), port).await.context("chromedriver")??;
    // It goes on writing, and must not block on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(Some((driver, port)))
}
