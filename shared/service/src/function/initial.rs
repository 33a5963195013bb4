//! Telling the platform why a function does not start (AWS Lambda runtime API, 2018-06-01, "Initialization error"). One request in the life of a process, made when nothing else of it works.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(2);

/// Best effort: the process ends either way, and its log has the same words.
pub(super) fn report(kind: &str, message: &str) {
    let Ok(platform) = std::env::var("AWS_LAMBDA_RUNTIME_API") else {
        return;
    };
    if let Err(error) = send(&platform, &request(&platform, kind, message)) {
        tracing::warn!(%error, "failed to tell the platform why this function does not start");
    }
}

fn request(platform: &str, kind: &str, message: &str) -> String {
    let body =
        json!({"errorMessage": message, "errorType": kind, "stackTrace": Vec::<&str>::new()})
            .to_string();
    format!(
        "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nhost: {platform}\r\ncontent-type: application/vnd.aws.lambda.error+json\r\nlambda-runtime-function-error-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn send(platform: &str, request: &str) -> std::io::Result<()> {
    let address = platform
        .to_socket_addrs()?
        .next()
        .ok_or(std::io::ErrorKind::NotFound)?;
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(request.as_bytes())?;
    // Until the answer begins: a process that ends before may take its words along.
    let _ = socket.read(&mut [0; 64])?;
    Ok(())
}
