//! What kubelet's clients stream: a connection to the server that containerd named, as a WebSocket. Each of its messages begins
//! with the number of a channel.

use crate::Outcome;
use std::net::TcpStream;
use std::time::Duration;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message, WebSocket};

/// How long the other side may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// The protocol in which the end of a process is told as a status.
const PROTOCOL: &str = "v4.channel.k8s.io";

/// Channels of a process's connection.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const SIZE: u8 = 4;
/// Channels of a port's.
const DATA: u8 = 0;

/// Is the user of a process, whose terminal has `size` if there is one: gives it `input`, and tells what it said until its
/// end. Its end of input cannot be told in this protocol.
pub fn process(url: &str, input: &[u8], size: Option<&str>) -> Outcome<String> {
    let mut socket = connect(url)?;
    if let Some(size) = size {
        let (rows, columns) = size.split_once('x').ok_or("--tty ROWSxCOLUMNS")?;
        send(&mut socket, SIZE, format!("{{\"Width\":{columns},\"Height\":{rows}}}").as_bytes())?;
    }
    send(&mut socket, STDIN, input)?;
    let (mut stdout, mut status) = (Vec::new(), Vec::new());
    while let Some((channel, bytes)) = receive(&mut socket)? {
        match channel {
            STDOUT => stdout.extend(bytes),
            STDERR => eprint!("{}", String::from_utf8_lossy(&bytes)),
            STATUS => status.extend(bytes),
            _ => return Err(format!("channel {channel} spoke")),
        }
    }
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    Ok(format!("{stdout}{}\n", ending(&status)?))
}

/// `v1.Status` in words.
fn ending(status: &[u8]) -> Outcome<String> {
    let told = String::from_utf8_lossy(status);
    let status: serde_json::Value =
        serde_json::from_slice(status).map_err(|error| format!("no status: {told:?}: {error}"))?;
    if status["status"] == "Success" {
        return Ok("success".into());
    }
    match status["details"]["causes"][0]["message"].as_str() {
        Some(code) if status["reason"] == "NonZeroExitCode" => Ok(format!("status {code}")),
        _ => Err(format!("the stream failed: {}", status["message"])),
    }
}

/// Sends `input` to a port of a pod, and tells what came back until the other side has closed.
pub fn forward(url: &str, port: &str, input: &[u8]) -> Outcome<String> {
    let mut socket = connect(&format!("{url}?port={port}"))?;
    send(&mut socket, DATA, input)?;
    let (mut said, mut wrong) = (Vec::new(), Vec::new());
    while let Some((channel, bytes)) = receive(&mut socket)? {
        if channel == DATA { said.extend(bytes) } else { wrong.extend(bytes) }
    }
    // Both begin with the port's number.
    match wrong.get(2..) {
        None | Some([]) => Ok(String::from_utf8_lossy(said.get(2..).unwrap_or_default()).into_owned()),
        Some(wrong) => Err(String::from_utf8_lossy(wrong).into_owned()),
    }
}

fn connect(url: &str) -> Outcome<WebSocket<TcpStream>> {
    let failed = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let stream = TcpStream::connect(address.ok_or_else(|| format!("{url} is not understood"))?);
    let stream = stream.map_err(|error| failed(&error))?;
    stream.set_read_timeout(Some(SILENCE)).map_err(|error| failed(&error))?;
    let mut request = url.replacen("http", "ws", 1).into_client_request().map_err(|error| failed(&error))?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(PROTOCOL));
    let (socket, _) = tungstenite::client(request, stream).map_err(|error| failed(&error))?;
    Ok(socket)
}

fn send(socket: &mut WebSocket<TcpStream>, channel: u8, bytes: &[u8]) -> Outcome<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let message = [&[channel], bytes].concat();
    socket.send(Message::binary(message)).map_err(|error| format!("send: {error}"))
}

/// The next that is not empty, with its channel.
fn receive(socket: &mut WebSocket<TcpStream>) -> Outcome<Option<(u8, Vec<u8>)>> {
    loop {
        let message = match socket.read() {
            Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(None),
            // containerd does not take leave.
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return Ok(None);
            }
            Ok(message) => message,
            Err(error) => return Err(format!("receive: {error}")),
        };
        if let Message::Binary(bytes) = message
            && let Some((channel, rest)) = bytes.split_first()
            && !rest.is_empty()
        {
            return Ok(Some((*channel, rest.to_vec())));
        }
    }
}
