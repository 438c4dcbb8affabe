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
        for (service, word, variable) in [
            (
                Service::Postgres,
                "postgres",
                "DATABASE_URL: postgres://answers:answers@postgres:5432/",
            ),
            (Service::Redis, "redis", "REDIS_URL: redis://:answers@redis:6379/"),
            (Service::RabbitMq, "rabbitmq", "AMQP_URL: amqp://answers:answers@rabbitmq:5672/"),
        ] {
            let waits =
                block.contains(&format!("      {word}:\n        condition: service_healthy"));
            let knows = block.contains(&format!("      {variable}"));
            let needs = answer.needs.contains(&service);
            if (waits, knows) != (needs, needs) {
                wrong.push(format!("{name}: waits for {word}: {waits}, knows its URL: {knows}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
