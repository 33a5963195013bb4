//! Event streams, written to their sockets without an HTTP library in between.
//!
//! A viewer's connection does one thing for as long as it lives: it carries frames. A general server keeps buffers of 16 KiB for the next request of every
//! connection, which for thousands of idle viewers is most of the memory. So a connection whose first request is for a stream is answered here: the
//! request is parsed, goes through the same router as any other (guards, tokens, errors), and the answer's frames are written as they come. Every other connection,
//! and whatever is unusual about a request (a body, pipelining, HTTP/1.0, a head in pieces), is left to the general server.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures::Stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tower::ServiceExt;

/// Of a head that is looked at: a browser's with its cookies fits, and a longer one is left to the general server.
const LONGEST_HEAD: usize = 8 << 10;
const MOST_HEADERS: usize = 64;
/// Of an answer that is no stream: errors, in JSON.
const LONGEST_ANSWER: usize = 64 << 10;
/// What a viewer may send while it is shown a stream, and is not listened to.
const MOST_IGNORED: usize = 4 << 10;

/// The request of a connection that has just been opened, if it is one for a stream; its bytes are taken from the socket then, and only then.
pub(crate) async fn asked(socket: &mut TcpStream, within: Duration) -> Option<Request<Body>> {
    let mut head = vec![0; LONGEST_HEAD];
    let peeked = tokio::time::timeout(within, socket.peek(&mut head)).await;
    let length = peeked.ok()?.ok()?;
    let (request, parsed) = parse(head.get(..length)?)?;
    // With more behind it, it is not all that the client wants.
    if parsed != length {
        return None;
    }
    socket.read_exact(head.get_mut(..length)?).await.ok()?;
    Some(request)
}

/// A whole head of a plain request for a stream, and its length.
fn parse(bytes: &[u8]) -> Option<(Request<Body>, usize)> {
    // Most connections are for something else: seen by the first line.
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let path = line.strip_prefix(b"GET ")?.strip_suffix(b" HTTP/1.1")?;
    let path = path.split(|byte| *byte == b'?').next()?;
    if !path.ends_with(b"/stream") {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else {
        return None;
    };
    let mut named = HeaderMap::with_capacity(head.headers.len());
    for pair in head.headers.iter() {
        let name = HeaderName::from_bytes(pair.name.as_bytes()).ok()?;
        if matches!(
            name,
            header::CONTENT_LENGTH
                | header::TRANSFER_ENCODING
                | header::UPGRADE
                | header::EXPECT
                | header::CONNECTION
        ) && !is_keep_alive(&name, pair.value)
        {
            return None;
        }
        named.append(name, HeaderValue::from_bytes(pair.value).ok()?);
    }
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(head.path?)
        .version(Version::HTTP_11)
        .body(Body::empty())
        .ok()?;
    *request.headers_mut() = named;
    Some((request, length))
}

fn is_keep_alive(name: &HeaderName, value: &[u8]) -> bool {
    *name == header::CONNECTION && value.eq_ignore_ascii_case(b"keep-alive")
}

/// Answers the request, and shows the stream to its end or until the viewer goes.
///
/// # Errors
/// The socket's: the viewer went, or did not take what was sent for too long.
pub(crate) async fn answer(
    mut socket: TcpStream,
    router: Router,
    request: Request<Body>,
) -> io::Result<()> {
    // What it takes to route a request is freed before the stream begins.
    let response = Box::pin(router.oneshot(request)).await;
    let response = response.unwrap_or_else(|never| match never {});
    if !is_stream(&response) {
        return Box::pin(answer_shortly(&mut socket, response)).await;
    }
    let (parts, body) = response.into_parts();
    let head = head(parts.status, &parts.headers, "transfer-encoding: chunked");
    drop(parts);
    socket.write_all(&head).await?;
    drop(head);
    Show::new(socket, body).await
}

fn is_stream(response: &Response<Body>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    response.status() == StatusCode::OK
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

async fn answer_shortly(socket: &mut TcpStream, response: Response<Body>) -> io::Result<()> {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, LONGEST_ANSWER).await;
    let body = body.map_err(io::Error::other)?;
    let length = match parts.status {
        StatusCode::NO_CONTENT => "connection: close".to_owned(),
        _ => format!("content-length: {}\r\nconnection: close", body.len()),
    };
    let mut headers = parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    let mut answer = head(parts.status, &headers, &length);
    answer.extend_from_slice(&body);
    socket.write_all(&answer).await?;
    socket.shutdown().await
}

fn head(status: StatusCode, headers: &HeaderMap, framing: &str) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    head.extend_from_slice(format!("{framing}\r\ndate: {date}\r\n\r\n").as_bytes());
    head
}

/// Shows a stream: takes a frame only when the one before it is in the socket's hands.
struct Show {
    socket: TcpStream,
    frames: axum::body::BodyDataStream,
    /// The frame that is being written, in its chunk.
    chunk: Option<Chunk>,
    ended: bool,
    ignored: usize,
}

/// A chunk of the chunked transfer coding (RFC 9112, 7.1), and how much of it is written.
struct Chunk {
    bytes: Bytes,
    written: usize,
}

/// Frames up to this size are remembered in their chunk: one event, or a few.
const LONGEST_REMEMBERED: usize = 16 << 10;

thread_local! {
    /// The last frame that was put into a chunk by this thread, and the chunk. Viewers of one trace are given the same bytes one after the other.
    static LAST: RefCell<Option<(Bytes, Bytes)>> = const { RefCell::new(None) };
}

impl Chunk {
    fn of(frame: &Bytes) -> Self {
        let written = 0;
        if frame.len() > LONGEST_REMEMBERED {
            let bytes = in_chunk(frame);
            return Self { bytes, written };
        }
        LAST.with_borrow_mut(|last| {
            let bytes = match last {
                // The same place in memory, which the remembered one keeps from being used for anything else.
                Some((known, chunk)) if is_same(known, frame) => chunk.clone(),
                _ => {
                    let chunk = in_chunk(frame);
                    *last = Some((frame.clone(), chunk.clone()));
                    chunk
                }
            };
            Self { bytes, written }
        })
    }
}

fn is_same(one: &Bytes, other: &Bytes) -> bool {
    one.as_ptr() == other.as_ptr() && one.len() == other.len()
}

/// The size, the frame, and their line ends.
fn in_chunk(frame: &[u8]) -> Bytes {
    let mut chunk = format!("{:x}\r\n", frame.len()).into_bytes();
    chunk.reserve_exact(frame.len() + 2);
    chunk.extend_from_slice(frame);
    chunk.extend_from_slice(b"\r\n");
    chunk.into()
}

impl Show {
    fn new(socket: TcpStream, body: Body) -> Self {
        Self {
            socket,
            frames: body.into_data_stream(),
            chunk: None,
            ended: false,
            ignored: 0,
        }
    }

    /// Writes the chunk in hand; `Pending` when the socket takes no more.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(chunk) = &mut self.chunk {
            let rest = chunk.bytes.get(chunk.written..).unwrap_or_default();
            // One piece in one plain write, which spares the kernel gathering three.
            match Pin::new(&mut self.socket).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => chunk.written += written?,
                Poll::Pending => return Poll::Pending,
            }
            if chunk.written >= chunk.bytes.len() {
                self.chunk = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the viewer went. What it sends is not looked at, and not without end.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; 256];
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            match tokio::io::AsyncRead::poll_read(Pin::new(&mut self.socket), context, &mut buffer)
            {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    self.ignored += buffer.filled().len();
                    if self.ignored > MOST_IGNORED {
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Future for Show {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let show = &mut *self;
        loop {
            match show.poll_write(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return show.poll_gone(context),
            }
            if show.ended {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut show.frames).poll_next(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_empty() => {}
                Poll::Ready(Some(Ok(frame))) => show.chunk = Some(Chunk::of(&frame)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => {
                    show.ended = true;
                    // What ends a body is a chunk without data.
                    show.chunk = Some(Chunk::of(&Bytes::new()));
                }
                Poll::Pending => return show.poll_gone(context),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_of_one_frame_share_its_chunk_and_others_get_their_own() {
        let frame = Bytes::from("id: 1-2\ndata: {}\n\n".to_owned());
        let first = Chunk::of(&frame).bytes;
        assert_eq!(&first[..], b"12\r\nid: 1-2\ndata: {}\n\n\r\n");
        assert!(is_same(&first, &Chunk::of(&frame.clone()).bytes));

        let rest = frame.slice(8..);
        assert_eq!(&Chunk::of(&rest).bytes[..], b"a\r\ndata: {}\n\n\r\n");
        let long = Bytes::from(vec![b'x'; LONGEST_REMEMBERED + 1]);
        assert!(Chunk::of(&long).bytes.starts_with(b"4001\r\nxx"));
        assert_eq!(&Chunk::of(&Bytes::new()).bytes[..], b"0\r\n\r\n");
    }
}
