//! The demo's web app: a guestbook that keeps its entries in `shared/`.
//!
//! `guestbook serve PORT_FILE DATA_DIR VERSION` answers `/`, `/healthz` and `/sign?name=...`;
//! `guestbook check PORT_FILE` asks it for its health, for three seconds at most; `guestbook get PORT_FILE` for its page.

#![expect(clippy::unwrap_used, clippy::exit, reason = "an example: short, and nothing to clean up")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", port_file, data, version] => serve(port_file, Path::new(data), version),
        ["check", port_file] => check(port_file),
        ["get", port_file] => println!("{}", get(port_file, "/").unwrap().lines().last().unwrap_or_default()),
        _ => panic!("guestbook serve PORT_FILE DATA_DIR VERSION | check PORT_FILE | get PORT_FILE"),
    }
}

/// Port 0 at the first start; the same one afterwards, so that the page keeps its address.
fn serve(port_file: &str, data: &Path, version: &str) {
    let port = fs::read_to_string(port_file).map_or(0, |text| text.trim().parse().unwrap());
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    fs::write(port_file, format!("{port}\n")).unwrap();
    println!("guestbook {version} listens on http://127.0.0.1:{port}/");
    for stream in listener.incoming().flatten() {
        answer(stream, data, version);
    }
}

fn answer(mut stream: TcpStream, data: &Path, version: &str) {
    drop(stream.set_read_timeout(Some(Duration::from_secs(2))));
    let mut request = String::new();
    if BufReader::new((&stream).take(8192)).read_line(&mut request).is_err() {
        return;
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let entries = fs::read_to_string(data.join("entries")).unwrap_or_default();
    let (status, body) = match path.split_once('?').unwrap_or((path, "")) {
        // Version 3 was never tried: its page needs a column that no migration made.
        ("/healthz", _) if version.starts_with('3') => {
            ("500 Internal Server Error", "no column: mood".into())
        }
        ("/healthz", _) => ("200 OK", "ok".into()),
        ("/sign", name) => {
            let name: String =
                name.trim_start_matches("name=").chars().filter(char::is_ascii_alphanumeric).collect();
            fs::write(data.join("entries"), format!("{entries}{name}\n")).unwrap();
            ("200 OK", format!("thank you, {name}"))
        }
        _ => ("200 OK", format!("guestbook {version}\n{entries}")),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())));
}

fn check(port_file: &str) {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        match get(port_file, "/healthz") {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => return println!("healthy"),
            Ok(answer) => println!("not healthy: {}", answer.lines().next().unwrap_or_default()),
            Err(error) => println!("not answering: {error}"),
        }
        if Instant::now() > deadline {
            println!("not healthy after three seconds");
            std::process::exit(1);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn get(port_file: &str, path: &str) -> std::io::Result<String> {
    let port: u16 = fs::read_to_string(port_file)?.trim().parse().unwrap_or(0);
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
