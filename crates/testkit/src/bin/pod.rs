//! What the tests' pods run: a small HTTP server that does what it is asked for.
//!
//! | request | answer |
//! |---|---|
//! | `/hostname` | the host name |
//! | `/env?NAME` | a variable of the environment |
//! | `/file?PATH` | a file |
//! | `/resolve?NAME` | the addresses of a name |
//! | `/fetch?HOST:PORT/PATH` | the body of another server's answer |
//! | `/exit?CODE` | none: the process ends |
//! | `/echo/ANYTHING` | the method and what was asked for |
//!
//! To a datagram at the same port it answers the host name.
//!
//! Usage: `testkit-pod serve PORT`, `testkit-pod print TEXT…`, `testkit-pod cat FILE`,
//! `testkit-pod write FILE TEXT…`, `testkit-pod create FILE MODE TEXT…`, `testkit-pod stat FILE`,
//! `testkit-pod hex FILE` prints its bytes, `testkit-pod copy FILE MODE` makes a copy of the program,
//! `testkit-pod check FILE`, `testkit-pod fetch HOST:PORT/PATH`, `testkit-pod wait`,
//! `testkit-pod fail CODE`, `testkit-pod odd NUMBER`, which fails when it is, `testkit-pod remove FILE`,
//! `testkit-pod once FILE …`, which goes on with the words that follow the first time only and then
//! just ends, `testkit-pod lines COUNT BYTES`, which prints so many numbered lines of
//! that length; `testkit-pod note FILE …` adds a line to a file, `testkit-pod mount DIRECTORY …` mounts
//! a file system in memory, `testkit-pod sleep MILLISECONDS …` waits, `testkit-pod bomb …` starts processes until there can be no more,
//! `testkit-pod fill FILE MEBIBYTES …` takes space, and all go on with the words that follow.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    obey(&words)
}

fn obey(words: &[&str]) -> ExitCode {
    match words {
        ["serve", port] => serve(port),
        ["print", words @ ..] => {
            say(&words.join(" "));
            ExitCode::SUCCESS
        }
        ["lines", count, bytes] => {
            ended(lines(count.parse().unwrap_or(0), bytes.parse().unwrap_or(0)))
        }
        ["fail", code] => ExitCode::from(code.parse().unwrap_or(1)),
        ["odd", number] => ExitCode::from(number.parse::<u8>().unwrap_or(1) % 2),
        ["remove", path] => ended(std::fs::remove_file(path)),
        ["once", path, ..] if std::path::Path::new(path).exists() => ExitCode::SUCCESS,
        ["once", path, rest @ ..] => match note(path) {
            Ok(()) => obey(rest),
            failed => ended(failed),
        },
        ["fetch", target] => ended(fetch(target).map(drop)),
        ["cat", path] => {
            say(&std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string()));
            ExitCode::SUCCESS
        }
        ["write", path, words @ ..] => ended(std::fs::write(path, words.join(" "))),
        ["create", path, mode, words @ ..] => ended(create(path, mode, &words.join(" "))),
        ["stat", path] => ended(stat(path)),
        ["hex", path] => ended(hex(path)),
        ["copy", path, mode] => ended(copy(path, mode)),
        ["check", path] if std::path::Path::new(path).exists() => ExitCode::SUCCESS,
        ["check", _] => ExitCode::FAILURE,
        ["note", path, rest @ ..] => match note(path) {
            Ok(()) => obey(rest),
            failed => ended(failed),
        },
        ["bomb", rest @ ..] => {
            say(&format!("{} processes", bomb()));
            obey(rest)
        }
        ["fill", path, mebibytes, rest @ ..] => {
            let bytes = vec![1; mebibytes.parse::<usize>().unwrap_or(0) << 20];
            match std::fs::write(path, bytes) {
                Ok(()) => obey(rest),
                failed => ended(failed),
            }
        }
        ["mount", path, rest @ ..] => match mount(path) {
            Ok(()) => obey(rest),
            failed => ended(failed),
        },
        ["sleep", milliseconds, rest @ ..] => {
            std::thread::park_timeout(Duration::from_millis(milliseconds.parse().unwrap_or(0)));
            obey(rest)
        }
        ["wait"] => loop {
            std::thread::park();
        },
        _ => {
            say(
                "usage: testkit-pod serve PORT | print TEXT | cat FILE | write FILE TEXT | create FILE MODE TEXT | stat FILE | hex FILE | copy FILE MODE | check FILE | fetch HOST:PORT/PATH | wait | fail CODE | odd NUMBER | remove FILE | once FILE … | lines COUNT BYTES | note FILE … | mount DIRECTORY … | sleep MILLISECONDS … | bomb … | fill FILE MEBIBYTES …",
            );
            ExitCode::from(2)
        }
    }
}

fn ended(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Prints lines of so many bytes, each with its number.
fn lines(count: usize, bytes: usize) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    for number in 0..count {
        writeln!(out, "{number:0>width$}", width = bytes.saturating_sub(1))?;
    }
    out.flush()
}

/// Makes a file that was not there, with these permissions in octal.
fn create(path: &str, mode: &str, text: &str) -> std::io::Result<()> {
    let mode = u32::from_str_radix(mode, 8).map_err(std::io::Error::other)?;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

/// Mounts a file system in memory.
fn mount(path: &str) -> std::io::Result<()> {
    use nix::mount::MsFlags;
    let none: Option<&str> = None;
    Ok(nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none)?)
}

/// Prints the bytes of a file.
fn hex(path: &str) -> std::io::Result<()> {
    let bytes: Vec<_> = std::fs::read(path)?.iter().map(|byte| format!("{byte:02x}")).collect();
    say(&bytes.join(" "));
    Ok(())
}

/// Makes a copy of this program, with these permissions in octal.
fn copy(path: &str, mode: &str) -> std::io::Result<()> {
    let mode = u32::from_str_radix(mode, 8).map_err(std::io::Error::other)?;
    std::fs::copy("/proc/self/exe", path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Starts processes that do nothing until there can be no more.
#[expect(clippy::disallowed_methods, reason = "the library would make this program large")]
fn bomb() -> usize {
    let mut count = 0;
    let start = || std::process::Command::new("/proc/self/exe").arg("wait").spawn();
    while start().is_ok() {
        count += 1;
    }
    count
}

/// Adds a line to a file.
fn note(path: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(b"started\n")
}

/// Prints permissions, owner, group, and the file system of the mount that ends the path.
fn stat(path: &str) -> std::io::Result<()> {
    let meta = std::fs::metadata(path)?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let system = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|words| std::path::Path::new(path).starts_with(words[1]))
        .max_by_key(|words| words[1].len())
        .map(|words| words[2].to_owned())
        .unwrap_or_default();
    say(&format!("{:o} {}:{} {system}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
    Ok(())
}

fn serve(port: &str) -> ExitCode {
    let listener = match TcpListener::bind(format!("0.0.0.0:{port}")) {
        Ok(listener) => listener,
        Err(error) => {
            say(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    // Most pods are asked for nothing this way, and some have the port for TCP only.
    if let Ok(socket) = UdpSocket::bind(format!("0.0.0.0:{port}")) {
        std::thread::spawn(move || answer_datagrams(&socket));
    }
    say(&format!("serving on port {port}"));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
    ExitCode::SUCCESS
}

fn answer_datagrams(socket: &UdpSocket) -> Option<()> {
    let mut buffer = [0; 512];
    loop {
        let (_, from) = socket.recv_from(&mut buffer).ok()?;
        let name = act("/hostname", "").ok()?;
        socket.send_to(name.as_bytes(), from).ok()?;
    }
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let (method, target) = request.split_once(' ')?;
    let target = target.split_whitespace().next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    say(&format!("asked for {target}"));
    let outcome = match path.strip_prefix("/echo/") {
        Some(_) if method == "HEAD" => Ok(String::new()),
        Some(_) => Ok(format!("{method} {target}")),
        None => act(path, query),
    };
    let (code, body) = match outcome {
        Ok(body) => ("200 OK", body),
        Err(error) => ("500 Internal Server Error", error),
    };
    write!(
        stream,
        "HTTP/1.1 {code}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .ok()
}

fn act(path: &str, query: &str) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    match path {
        "/hostname" => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .map_err(text),
        "/env" => std::env::var(query).map_err(|error| error.to_string()),
        "/file" => std::fs::read_to_string(query).map_err(text),
        "/resolve" => {
            let mut addresses: Vec<String> = (query, 0)
                .to_socket_addrs()
                .map_err(text)?
                .map(|address| address.ip().to_string())
                .collect();
            addresses.sort();
            addresses.dedup();
            Ok(addresses.join(" "))
        }
        "/fetch" => fetch(query).map_err(text),
        "/exit" => std::process::exit(query.parse().unwrap_or(1)),
        _ => Ok("ok".to_owned()),
    }
}

fn fetch(target: &str) -> std::io::Result<String> {
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Standard output is the pod's log. A reader that is gone is no reason to end.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}
