//! Does each `interview.toml` agree with its chapter? It has to answer the chapter's questions, its estimates must have
//! the chapter's results, and its proofs must exist.

use std::{collections::BTreeSet, fs, path::Path};

use guide::numbers::agrees;
use interview::{
    Interview, Kind, Stage,
    measured::Measured,
    sheet::{Card, Level},
};
use lab::Answer;

use crate::chapters::{first_number, part, rows, words};

/// The number of words that a candidate can say in 45 seconds.
const SHORT: std::ops::RangeInclusive<usize> = 90..=120;
/// What a card says about its figure.
const WORDS_OF_A_CARD: usize = 12;
/// A concept has two minutes for estimates.
const ESTIMATES_OF_A_CONCEPT: usize = 2;

#[test]
fn every_interview_agrees_with_its_chapter() {
    let mut wrong = Vec::new();
    for answer in guide::answers() {
        let folder = Path::new(answer.folder);
        if !answer.serve.has_whiteboard() && !folder.join("interview.toml").exists() {
            continue;
        }
        let chapter = fs::read_to_string(folder.join("chapter.md")).unwrap();
        match Interview::read(folder) {
            Ok(interview) => {
                let mut problems = problems(&answer, &interview, &chapter);
                problems.extend(of_card(interview.card.as_ref(), &Measured::read(folder).unwrap()));
                wrong.extend(problems.into_iter().map(|it| format!("{}: {it}", answer.name)));
            }
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn problems(answer: &Answer, interview: &Interview, chapter: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let asked: BTreeSet<_> = rows(part(chapter, "Ask first")).map(|row| row[0].clone()).collect();
    let answered: BTreeSet<_> = interview.clarify.iter().map(|it| it.ask.clone()).collect();
    for ask in asked.symmetric_difference(&answered) {
        problems.push(format!("only one of chapter and interview asks {ask:?}"));
    }
    for estimate in &interview.estimates {
        match estimate.value() {
            Ok(value) if !agrees(&first_number(&estimate.says), value) => {
                problems.push(format!("{}: {value}, and not {}", estimate.of, estimate.says));
            }
            Ok(_) if !part(chapter, "Scale it").contains(&estimate.says) => {
                problems.push(format!("*Scale it* does not say {:?}", estimate.says));
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("{}: {error:#}", estimate.of)),
        }
    }
    let short = words(&interview.in_45_seconds);
    if !SHORT.contains(&short) {
        problems.push(format!("in_45_seconds has {short} words, not {SHORT:?}"));
    }
    if interview.kind == Kind::Concept && interview.estimates.len() > ESTIMATES_OF_A_CONCEPT {
        problems.push(format!("{} estimates in two minutes", interview.estimates.len()));
    }
    let stages = match interview.kind {
        // The chapter's own answer is shown with the points of the sum-up.
        Kind::Concept => &[Stage::Clarify, Stage::Design, Stage::SumUp][..],
        Kind::Design => {
            &[Stage::Clarify, Stage::Estimate, Stage::Design, Stage::DeepDive, Stage::SumUp]
        }
    };
    for stage in stages {
        let points = interview.points.iter().filter(|point| point.stage == *stage);
        if points.count() < 2 {
            problems.push(format!("the stage {stage:?} has less than two points"));
        }
    }
    let follow_ups = part(chapter, "Follow-ups").replace('\n', " ");
    for point in &interview.points {
        match &point.follow_up {
            Some(question) if !follow_ups.contains(&format!("**{question}**")) => {
                problems.push(format!("no follow-up asks {question:?}"));
            }
            None if point.stage == Stage::FollowUps => {
                problems.push(format!("{:?} names no follow_up", point.says));
            }
            _ => {}
        }
    }
    for level in Level::ALL {
        let of_level = interview.points.iter().filter(|point| point.level == level);
        let mut proofs = of_level.filter_map(|point| point.proof.as_deref());
        if !proofs.any(|proof| answer.experiment(proof).is_some()) {
            problems.push(format!("no experiment proves a point of level {}", level.name()));
        }
    }
    let proofs = interview.points.iter().map(|point| (&point.says, &point.proof));
    let flags = interview.red_flags.iter().map(|flag| (&flag.says, &flag.proof));
    for (says, proof) in proofs.chain(flags) {
        if let Some(proof) = proof
            && !exists(answer, proof)
        {
            problems.push(format!("{says:?}: there is no experiment and no anchor {proof}"));
        }
    }
    problems
}

/// What is wrong with a card. Its number is recorded, and its words are few.
fn of_card(card: Option<&Card>, measured: &Measured) -> Vec<String> {
    let Some(Card { of, says }) = card else { return vec!["it has no card".to_owned()] };
    let mut problems = Vec::new();
    if measured.figure(of).is_none() {
        problems.push(format!("the record has no figure {of:?} for the card"));
    }
    let count = says.split_whitespace().count();
    if !(1..=WORDS_OF_A_CARD).contains(&count) {
        problems.push(format!("the card says {count} words, not 1 to {WORDS_OF_A_CARD}"));
    }
    if says.split_whitespace().any(|word| word.starts_with(|it: char| it.is_ascii_digit())) {
        problems.push(format!("the card says a number that nobody compares: {says:?}"));
    }
    problems
}

#[test]
fn a_card_needs_a_recorded_figure_and_few_words() {
    let record = serde_json::json!({"reports": [{
        "experiment": "race", "claim": "", "checks": [],
        "figures": [{"name": "links", "value": 3.0, "unit": ""}],
    }]});
    let measured: Measured = serde_json::from_value(record).unwrap();
    let problems = |of: &str, says: &str| {
        of_card(Some(&Card { of: of.to_owned(), says: says.to_owned() }), &measured)
    };
    assert_eq!(problems("race: links", "links had one alias"), Vec::<String>::new());
    assert_eq!(of_card(None, &measured), ["it has no card"]);
    let long = "word ".repeat(WORDS_OF_A_CARD + 1);
    for (of, says, problem) in [
        ("race: aliases", "links had one alias", "no figure \"race: aliases\""),
        ("race: links", &*long, "13 words"),
        ("race: links", "", "0 words"),
        ("race: links", "of 100 links had one alias", "a number"),
    ] {
        let found = problems(of, says);
        assert!(found.len() == 1 && found[0].contains(problem), "{of}, {says}: {found:?}");
    }
}

/// Whether an experiment of this name is there, or an anchor as `src/code.rs:crc32_code`.
fn exists(answer: &Answer, proof: &str) -> bool {
    let Some((file, anchor)) = proof.split_once(':') else {
        return answer.experiment(proof).is_some();
    };
    let text = fs::read_to_string(Path::new(answer.folder).join(file)).unwrap_or_default();
    text.lines().any(|line| line.trim_start_matches(['/', '-', ' ']) == format!("ANCHOR: {anchor}"))
}
