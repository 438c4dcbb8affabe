//! Can each answer be run in containers, with its servers?

use std::fs;

use guide::questions::QUESTIONS;
use lab::Service;

/// An answer to another question, such as a reader's own, needs none.
#[test]
fn every_answer_of_the_book_has_a_profile_of_compose_with_the_servers_that_it_needs() {
    let text = fs::read_to_string(lab::stack::workspace().join("docker-compose.yml")).unwrap();
    let mut wrong = Vec::new();
    let is_of_the_book = |name| QUESTIONS.iter().any(|question| question.answer == name);
    for answer in guide::answers().into_iter().filter(|answer| is_of_the_book(answer.name)) {
        let name = answer.name;
        let head = format!("\n  {name}:\n    profiles: [\"{name}\"]\n");
        let Some((_, block)) = text.split_once(&head) else {
            wrong.push(format!("{name} has no profile"));
            continue;
        };
        let block = block.split("\n\n").next().unwrap_or_default();
        if !block.contains(&format!("ANSWER: {name}\n")) {
            wrong.push(format!("{name} is built from another answer"));
        }
        for (service, word) in [
            (Service::Postgres, "postgres"),
            (Service::Redis, "redis"),
            (Service::RabbitMq, "rabbitmq"),
        ] {
            let waits =
                block.contains(&format!("      {word}:\n        condition: service_healthy"));
            if waits != answer.needs.contains(&service) {
                wrong.push(format!("{name} waits for {word}: {waits}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
