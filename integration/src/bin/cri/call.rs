//! A call of gRPC without streaming: one request of HTTP/2, which curl makes.

use crate::Outcome;
use crate::message::{Fields, Message};
use std::io::Write;
use std::process::{Command, Stdio};

/// Makes a call: a frame (not compressed, its length, the message) there, and one back.
pub fn call(socket: &str, method: &str, request: &Message) -> Outcome<Fields> {
    let failed = |error: std::io::Error| format!("curl: {error}");
    // What comes after the message (trailers) is among them.
    let headers = format!("/tmp/cri-{}", std::process::id());
    let mut curl = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "600",
            "--http2-prior-knowledge",
            "--unix-socket",
            socket,
            "-D",
            &headers,
        ])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@-"])
        .arg(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let length = u32::try_from(request.bytes().len()).map_err(|_| "the request is too long")?;
    let frame = [&[0], length.to_be_bytes().as_slice(), request.bytes()].concat();
    curl.stdin.take().expect("piped").write_all(&frame).map_err(failed)?;
    let done = curl.wait_with_output().map_err(failed)?;
    let said = std::fs::read_to_string(&headers).unwrap_or_default();
    let _ = std::fs::remove_file(&headers);
    let header = |name: &str| {
        let lines = said.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned()).next_back()
    };
    match header("grpc-status").as_deref() {
        Some("0") => Ok(Fields::of(done.stdout.get(5..).unwrap_or_default())),
        Some(code) => Err(format!("{method}: code {code}: {}", header("grpc-message").unwrap_or_default())),
        None => Err(format!("{method}: {}", String::from_utf8_lossy(&done.stderr))),
    }
}
