//! Which histories have others judged? 102 of etcd that Jepsen recorded, and the examples in porcupine's tests.

use anyhow::{Context, bail};

use crate::history::{Action, Operation};

/// A history, and whether it is linearizable.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Where it is from.
    pub name: String,
    /// What others say of it.
    pub linearizable: bool,
    /// The history.
    pub history: Vec<Operation>,
}

/// All of them.
pub fn all() -> anyhow::Result<Vec<Judged>> {
    let mut all = porcupine();
    let lines = include_str!("published/etcd.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        all.push(etcd(line).with_context(|| format!("{line:.20}"))?);
    }
    Ok(all)
}

/// The examples of `TestRegisterModel` and `TestZeroDuration` in `porcupine_test.go`. A register holds 0 at first, which
/// is none here.
pub fn porcupine() -> Vec<Judged> {
    let put = |client, value: u32, called, returned| {
        operation(client, Action::Write(value.to_string()), called, Some(returned))
    };
    let get = |client, value: u32, called, returned| {
        let value = (value != 0).then(|| value.to_string());
        operation(client, Action::Read(value), called, Some(returned))
    };
    let examples = [
        (true, vec![put(0, 100, 0, 100), get(1, 100, 25, 75), get(2, 0, 30, 60)]),
        (false, vec![put(0, 200, 0, 100), get(1, 200, 10, 30), get(2, 0, 40, 90)]),
        (
            true,
            vec![put(0, 100, 0, 100), get(1, 100, 25, 75), get(2, 0, 30, 30), get(3, 0, 30, 30)],
        ),
        (
            false,
            vec![put(0, 200, 0, 100), get(1, 200, 10, 10), get(2, 200, 10, 10), get(3, 0, 40, 90)],
        ),
    ];
    let judged = |(number, (linearizable, history))| {
        let name = format!("porcupine's example {number}");
        Judged { name, linearizable, history }
    };
    (1..).zip(examples).map(judged).collect()
}

fn operation(client: u32, action: Action, called: u64, returned: Option<u64>) -> Operation {
    Operation { client, key: "x".to_owned(), action, called, returned }
}

/// A line of the file, which says at its top how to read it.
fn etcd(line: &str) -> anyhow::Result<Judged> {
    let mut words = line.split(' ');
    let name = format!("etcd_{:0>3}", words.next().context("no number")?);
    let linearizable = words.next().context("no verdict")?.parse()?;
    let mut history: Vec<Operation> = Vec::new();
    for (time, word) in (0..).zip(words) {
        let digits = word.find(|c: char| !c.is_ascii_digit()).context("no event")?;
        let (client, event) = word.split_at(digits);
        let client = client.parse()?;
        let (event, value) = event.split_at(1);
        let action = match event {
            "r" => Action::Read(None),
            "w" => Action::Write(value.to_owned()),
            "c" => {
                let (from, to) = value.split_once(',').context("two values")?;
                Action::Cas { from: from.to_owned(), to: to.to_owned(), done: None }
            }
            _ => {
                let mut open = (0..history.len()).rev();
                let last =
                    open.find(|&n| history[n].client == client).context("nothing was called")?;
                if event == "x" {
                    history.remove(last);
                    continue;
                }
                history[last].returned = Some(time);
                match (&mut history[last].action, event) {
                    (Action::Read(seen), "=") => *seen = (value != "nil").then(|| value.to_owned()),
                    (Action::Cas { done, .. }, "+" | "-") => *done = Some(event == "+"),
                    (Action::Write(_), "+") => {}
                    _ => bail!("{word} answers no call"),
                }
                continue;
            }
        };
        history.push(operation(client, action, time, None));
    }
    Ok(Judged { name, linearizable, history })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::check;

    #[test]
    fn our_checker_agrees_with_every_published_verdict() {
        let all = all().unwrap();
        assert_eq!(all.len(), 106);
        for Judged { name, linearizable, history } in all {
            assert_eq!(check(&history).is_ok(), linearizable, "{name}");
        }
    }
}
