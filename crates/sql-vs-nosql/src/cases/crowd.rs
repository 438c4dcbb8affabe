//! What holds when many ask at once, and when the program is killed?

use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, integer, list, status},
    killing::Killing,
    target::Target,
};
use serde_json::json;

use super::client::{Client, new_id};

cases! {
    Load the_last_piece_is_sold_once: "Fifty orders of the last piece at the same moment: one 201, the others 409; the stock is 0", "An order has to lock what it decides on until it is written.";
    Load money_is_spent_once: "Fifty orders of a customer who can pay for ten: ten 201, the others 409; the balance is 0", "A balance that is read and written back pays twice.";
    Load orders_of_several_products_wait_for_each_other_in_one_order: "Fifty orders of the same two products at the same moment, named in both orders: all 201", "Two that lock in different orders wait for each other for ever.";
    Load one_of_many_first_puts_says_created: "Twenty PUTs of one new customer, and of one new product, at the same moment: one 201, the others 200", "A 201 says that nobody was there before.";
    Load changes_of_one_customer_are_all_kept: "Twenty PATCHes of twenty fields at the same moment: all twenty are there", "A document is written as a whole, so the second would undo the first.";
    Load deposits_are_all_counted: "Fifty deposits at the same moment: the sum", "Read, add and write back would lose some.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "After SIGKILL, every order that was answered with 201 is there, and money and stock agree with the orders", "An answer is a promise.";
}

async fn the_last_piece_is_sold_once(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 1_000).await?, client.product(10, 1).await?);
    let orders = vec![json!({ "customer": ada, "lines": { tea.as_str(): 1 } }); 50];
    sold(&target.post_together("orders", &orders).await?, 1)?;
    let stock = integer(&client.read(&format!("products/{tea}")).await?, "stock")?;
    equal("the stock", stock, 0)
}

/// So many got what they wanted, and the others hear that there is no more.
fn sold(answers: &[(reqwest::Response, bool)], expected: usize) -> Outcome {
    let count = |status: u16| answers.iter().filter(|(it, _)| it.status() == status).count();
    let (good, refused, unsure) =
        (count(201), count(409), answers.iter().filter(|(_, unsure)| *unsure).count());
    // A client that was told to come back may have bought without knowing it.
    let fits = (expected.saturating_sub(unsure)..=expected).contains(&good);
    let got = format!("{good} times 201 and {refused} times 409");
    let all = answers.len();
    expect(fits && good + refused == all, format!("{expected} times 201, and else 409"), got)
}

async fn money_is_spent_once(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 1_000).await?, client.product(100, 1_000).await?);
    let orders = vec![json!({ "customer": ada, "lines": { tea.as_str(): 1 } }); 50];
    sold(&target.post_together("orders", &orders).await?, 10)?;
    let balance = integer(&client.read(&format!("customers/{ada}")).await?, "balance_cents")?;
    equal("the balance", balance, 0)?;
    let stock = integer(&client.read(&format!("products/{tea}")).await?, "stock")?;
    equal("the stock", stock, 990)
}

async fn orders_of_several_products_wait_for_each_other_in_one_order(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (one, other) = (client.product(1, 1_000).await?, client.product(1, 1_000).await?);
    let mut orders = Vec::new();
    for n in 0..50 {
        let customer = client.customer("GB", 100).await?;
        let (first, second) = if n % 2 == 0 { (&one, &other) } else { (&other, &one) };
        orders.push(
            json!({ "customer": customer, "lines": { first.as_str(): 1, second.as_str(): 1 } }),
        );
    }
    for (answer, _) in target.post_together("orders", &orders).await? {
        status(&answer, 201)?;
    }
    Ok(())
}

async fn one_of_many_first_puts_says_created(target: &Target) -> Outcome {
    let body = json!({ "name": "Ada", "country": "GB", "price_cents": 1 });
    for kind in ["customers", "products"] {
        let path = format!("{kind}/{}", new_id());
        let put = || target.request(reqwest::Method::PUT, &path).json(&body);
        let answers = target.send_together((0..20).map(|_| put()).collect()).await?;
        let count = |status: u16| answers.iter().filter(|(it, _)| it.status() == status).count();
        let (created, replaced) = (count(201), count(200));
        // Of a client that was told to come back, the first try may have been the one that created it.
        let unsure = answers.iter().filter(|(_, unsure)| *unsure).count();
        let fits = created == 1 || (created == 0 && unsure > 0);
        let got = format!("{created} times 201 and {replaced} times 200");
        let expected = format!("once 201, and else 200, for {path}");
        expect(fits && created + replaced == answers.len(), expected, got)?;
    }
    Ok(())
}

async fn changes_of_one_customer_are_all_kept(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("customers/{}", client.customer("GB", 0).await?);
    let patches = (0..20).map(|n| {
        let patch = json!({ format!("field-{n}"): n });
        target.request(reqwest::Method::PATCH, &path).json(&patch)
    });
    for (answer, _) in target.send_together(patches.collect()).await? {
        status(&answer, 200)?;
    }
    let seen = client.read(&path).await?;
    let kept = (0..20).filter(|n| seen[format!("field-{n}")] == json!(n)).count();
    equal("the number of changes that are kept", kept, 20)
}

async fn deposits_are_all_counted(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.customer("GB", 0).await?;
    let deposits = vec![json!({ "amount": 3 }); 50];
    let answers = target.post_together(&format!("customers/{ada}/deposits"), &deposits).await?;
    let unsure = answers.iter().filter(|(_, unsure)| *unsure).count();
    for (answer, _) in &answers {
        status(answer, 200)?;
    }
    let balance = integer(&client.read(&format!("customers/{ada}")).await?, "balance_cents")?;
    let most = 150 + 3 * i64::try_from(unsure)?;
    expect((150..=most).contains(&balance), "a balance of 150", balance)
}

/// Eight clients order until the program is gone; it is killed when they have been promised a hundred.
async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    const START: i64 = 1_000_000;
    let client = Client::of(target);
    let tea = client.product(7, START).await?;
    let mut buyers = Vec::new();
    for _ in 0..8 {
        buyers.push(client.customer("GB", START).await?);
    }
    let killing = Killing::default();
    let clients = buyers.iter().map(|buyer| {
        let (client, killing, tea) = (&client, &killing, &tea);
        async move {
            let mut promised = 0;
            while !killing.is_over() {
                let Ok(answer) = client.order(buyer, tea, 1).await else { break };
                if answer.status() == 201 {
                    killing.promised();
                    promised += 1;
                }
            }
            promised
        }
    });
    let promised = killing.after(100, target, clients).await?;
    let mut sold = 0;
    for (buyer, promised) in buyers.iter().zip(promised) {
        let balance = integer(&client.read(&format!("customers/{buyer}")).await?, "balance_cents")?;
        let orders = client.read(&format!("customers/{buyer}/orders")).await?;
        // The list shows a hundred at most; more of them are seen in the balance.
        let shown = list(&orders, "items")?.len();
        let bought = (START - balance) / 7;
        let kept = bought >= promised && shown == usize::try_from(bought)?.min(100);
        expect(
            kept,
            format!("{promised} orders or more, all paid"),
            format!("{shown} orders, {bought} paid"),
        )?;
        sold += bought;
    }
    let stock = integer(&client.read(&format!("products/{tea}")).await?, "stock")?;
    equal("the stock", stock, START - sold)
}
