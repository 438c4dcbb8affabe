//! How often do CRC32 codes collide, and does `% 62^7` help?

use std::collections::HashMap;

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};

use super::{
    compare::permutation::Permutation,
    fixture::{Fixture, UNLIMITED},
};
use crate::code;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Random URLs to hash
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1_000_000..=20_000_000))]
    urls: u64,
    /// Colliding pairs to create on the real service
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    pairs: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "collisions",
        "CRC32 codes collide as the birthday bound n²/2m predicts with m = 2³², because % 62^7 changes \
         nothing (2³² < 62⁷); every collision is resolved; a permuted sequence has none",
        &["--urls", "1000000", "--pairs", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/create.rs",
        replace: "owner.edit_token.is_none() && owner.url == url.as_str()",
        with: "owner.edit_token.is_none()",
        check: "and each of the two leads to its own URL",
    })
}

/// CRC32 has this many values.
const CHECKSUMS: f64 = 4_294_967_296.0;
const TITLE: &str = "Collisions among n random URLs";
const AXES: (&str, &str) = ("URLs", "collisions");

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let hashed = {
        let lab = lab.clone();
        // Hashing is work for the processor, not for the threads that wait for sockets.
        tokio::task::spawn_blocking(move || hash(&params, &lab)).await?
    };
    lab.text(format!(
        "62⁷ is {:.0} times 2³²: the modulo changes nothing. The textbook's formula suggests 3.5 \
         trillion codes; there are 4.3 billion, and with 77,163 links a collision is as likely as not.",
        code::CODES as f64 / CHECKSUMS,
    ));
    resolve(&params, &lab, &hashed.pairs).await?;
    sequence(&params, &lab).await
}

struct Hashed {
    /// Pairs of different URLs with the same checksum.
    pairs: Vec<(String, String)>,
}

/// Hashes random URLs and counts how many find their code taken.
fn hash(params: &Params, lab: &Lab) -> Hashed {
    // Keyed by the code as the service gives it out, so that the modulo and base62 take part.
    let mut owners: HashMap<code::Code, u64> = HashMap::new();
    let mut checksums = std::collections::HashSet::new();
    let (mut collisions, mut pairs) = (0_u64, Vec::new());
    // A new seed for each run, because a fixed one could hide a fault by luck.
    let seed: u64 = rand_seed();
    for n in 0..params.urls {
        let url = random_url(seed, n);
        checksums.insert(crc32fast::hash(url.as_bytes()));
        if let Some(owner) = owners.insert(code::crc32_code(&url, 0), n) {
            collisions += 1;
            pairs.push((random_url(seed, owner), url));
        }
        if (n + 1) % (params.urls / 20).max(1) == 0 {
            lab.progress(n + 1, params.urls, "URLs hashed");
            let n = (n + 1) as f64;
            lab.point(TITLE, AXES, "measured", (n, collisions as f64));
            lab.point(TITLE, AXES, "predicted, n²/2m", (n, predicted(n)));
        }
    }
    let expected = predicted(params.urls as f64);
    // Collisions are rare and independent, so their number is Poisson's: its deviation is the root of
    // the mean. Five of them are exceeded in fewer than one run in a million.
    let tolerance = 5.0 * expected.sqrt() + 1.0;
    lab.figure("collisions measured", collisions as f64, "");
    lab.figure("collisions predicted", expected, "");
    lab.check(
        "the birthday bound with m = 2³² predicts their number",
        format!("{expected:.0} ± {tolerance:.0}"),
        collisions,
        (collisions as f64 - expected).abs() <= tolerance,
    );
    let with_62_7 = params.urls as f64 * params.urls as f64 / 2.0 / code::CODES as f64;
    // With a million URLs or more, chance alone confuses the two in fewer than one run in 10⁴⁰.
    lab.check(
        "with m = 62⁷, as the textbook has it, there would be hardly any",
        format!("far more than {with_62_7:.1}"),
        collisions,
        collisions as f64 > 5.0 * with_62_7 + 5.0,
    );
    let among_checksums = params.urls - checksums.len() as u64;
    lab.check_eq(
        "% 62^7 and base62 change nothing: collisions among bare checksums",
        collisions,
        among_checksums,
    );
    Hashed { pairs }
}

fn predicted(n: f64) -> f64 {
    n * n / 2.0 / CHECKSUMS
}

/// A URL with 128 random bits. Numbered URLs would not do: CRC32 is linear, and URLs that differ in four
/// neighbouring bytes or fewer never collide at all.
fn random_url(seed: u64, n: u64) -> String {
    let high = mix(seed ^ mix(n));
    format!("https://example.com/{high:016x}{:016x}", mix(high ^ n.rotate_left(32)))
}

/// `SplitMix64`'s finalizer: a bijection that spreads every bit.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

/// Creates both URLs of each pair on the real service.
async fn resolve(params: &Params, lab: &Lab, pairs: &[(String, String)]) -> anyhow::Result<()> {
    let pairs = &pairs[..pairs.len().min(usize::try_from(params.pairs)?)];
    let fixture = Fixture::of(lab).await?;
    let (_child, client) = fixture.start(&UNLIMITED).await?;
    let (mut resolved, mut first_choice, mut inseparable) = (0, 0, 0);
    for (n, (one, two)) in pairs.iter().enumerate() {
        lab.progress(n as u64, pairs.len() as u64, "colliding pairs created");
        let codes = (client.shorten(one).await?, client.shorten(two).await?);
        let leads_to_one = client.destination(&codes.0).await?;
        let leads_to_two = client.destination(&codes.1).await?;
        first_choice += u64::from(codes.0 == code::crc32_code(two, 0).as_str());
        let salted = |salt| code::crc32_code(one, salt) == code::crc32_code(two, salt);
        inseparable += u64::from((1..=10).all(salted));
        resolved += u64::from(codes.0 != codes.1 && leads_to_one == *one && leads_to_two == *two);
    }
    let count = pairs.len() as u64;
    lab.check("there were pairs to try", "1 or more", count, count > 0);
    lab.check_eq("the second of each pair wanted the first one's code", count, first_choice);
    lab.check_eq(
        "pairs that go on colliding under each of ten salts, because CRC32 is linear",
        count,
        inseparable,
    );
    lab.check_eq("and each of the two leads to its own URL", count, resolved);
    Ok(())
}

/// Codes made in another way: from a sequence, permuted.
async fn sequence(params: &Params, lab: &Lab) -> anyhow::Result<()> {
    // A tenth as many, since each takes some rounds of a hash. A permutation that is wrong gives some of these twice.
    let count = params.urls / 10;
    let codes = tokio::task::spawn_blocking(move || {
        let permutation = Permutation::new(*b"any sixteen byte");
        let codes: std::collections::HashSet<u64> =
            (0..count).map(|n| permutation.apply(n)).collect();
        let inside = codes.iter().all(|&code| code < code::CODES);
        (codes.len() as u64, inside)
    });
    let (distinct, inside) = codes.await.context("the permutation panicked")?;
    lab.check_eq("distinct codes of the sequence strategy", count, distinct);
    lab.check(
        "all of them have seven characters",
        "below 62⁷",
        if inside { "below" } else { "above" },
        inside,
    );
    Ok(())
}
