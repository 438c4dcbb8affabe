//! What does the reader's program do? It serves five paths, one thread for each connection, and keeps one file.
//!
//! `program PORT FILE [--slow MILLISECONDS] [--crash] [--hang]`: with `--slow` it listens later. With `--crash` the
//! connection of one path ends without an answer, and with `--hang` another path never gets one.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::Duration,
};

/// Serves until it is killed. The exit code is 1 if the port is taken.
pub fn serve(words: &[String]) -> ExitCode {
    let slow = words.iter().position(|word| word == "--slow").map(|at| &words[at + 1]);
    let slow = slow.map_or(0, |word| word.parse().expect("milliseconds"));
    // What is tested is how a slow start is waited for.
    thread::sleep(Duration::from_millis(slow));
    let Ok(listener) = TcpListener::bind(format!("127.0.0.1:{}", words[0])) else {
        eprintln!("the port {} is taken", words[0]);
        return ExitCode::FAILURE;
    };
    let words = words.to_vec();
    for connection in listener.incoming().flatten() {
        let words = words.clone();
        thread::spawn(move || answer(connection, &words));
    }
    ExitCode::SUCCESS
}

fn answer(mut connection: TcpStream, words: &[String]) -> Option<()> {
    let (file, has) = (&words[1], |option: &str| words.iter().any(|word| word == option));
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut length = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).ok()?;
    let (status, body) = match &*first.split(' ').take(2).collect::<Vec<_>>().join(" ") {
        "GET /crash" if has("--crash") => return None,
        "GET /slow" if has("--hang") => loop {
            thread::park();
        },
        "GET /process" => (200, format!("{{\"id\":{}}}", std::process::id())),
        "PUT /word" => (204, fs::write(file, &sent).map(|()| String::new()).ok()?),
        "GET /word" => (200, fs::read_to_string(file).unwrap_or_default()),
        _ => (200, String::new()),
    };
    let head = format!("HTTP/1.1 {status} OK\r\nconnection: close\r\n");
    let length = body.len();
    write!(connection, "{head}content-length: {length}\r\n\r\n{body}").ok()
}
