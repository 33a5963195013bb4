//! One connection: frames that lie ready are taken together, done, and answered; nothing more is read meanwhile, so a client that is faster than the store waits.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tailspan_core::{
    id::TenantId,
    live::protocol::{self, GOING_AWAY, NO_PONG, Reader, TOO_BIG},
};
use tailspan_service::App;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{
    Keepalive,
    work::{self, Way},
};

/// Frames, and bytes of them, that are taken together, about.
const FRAMES_AT_ONCE: usize = 1024;
const BYTES_AT_ONCE: usize = 1 << 20;
/// How long a client may take to read an answer.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// How long a client is listened to that was told to go, and how many bytes of a frame that was too large are passed over.
const LEAVING_TIME: Duration = Duration::from_secs(5);
const MOST_PASSED_OVER: u64 = 256 << 20;

/// Why a connection ends.
enum End {
    /// The client left, one way or another.
    Left,
    /// The client is told this.
    Told(u16, &'static str),
}

/// Serves a connection until it ends. What came before the end is done, whether or not anybody is there for the answer.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    app: &App,
    tenant: &TenantId,
    mut socket: WebSocketStream<S>,
    keepalive: Keepalive,
) {
    let end = until_end(app, tenant, &mut socket, keepalive).await;
    let End::Told(code, reason) = end else { return };
    let close = CloseFrame {
        code: CloseCode::from(code),
        reason: reason.into(),
    };
    let told = async {
        let _ = socket.send(Message::Close(Some(close))).await;
        if code == TOO_BIG {
            // The rest of the frame is on its way: a connection that is cut under it takes the close frame along.
            let mut rest = socket.get_mut().take(MOST_PASSED_OVER);
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        } else {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = timeout(LEAVING_TIME, told).await;
}

async fn until_end<S: AsyncRead + AsyncWrite + Unpin>(
    app: &App,
    tenant: &TenantId,
    socket: &mut WebSocketStream<S>,
    keepalive: Keepalive,
) -> End {
    let mut reader = Reader::new(rand::random());
    let mut next_ping = Instant::now() + keepalive.every;
    let mut pong_by: Option<Instant> = None;
    loop {
        let first = tokio::select! {
            // What lies ready comes first: a pong among it is no silence.
            biased;
            frame = socket.next() => frame,
            () = app.shutdown.cancelled() => return End::Told(GOING_AWAY, "this process shuts down"),
            () = sleep_until(pong_by.unwrap_or(next_ping)) => {
                if pong_by.is_some() {
                    return End::Told(NO_PONG, "keepalive ping timeout");
                }
                pong_by = Some(Instant::now() + keepalive.every);
                match timeout(keepalive.every, socket.send(Message::Ping(Bytes::new()))).await {
                    Ok(Ok(())) => continue,
                    _ => return End::Left,
                }
            }
        };
        pong_by = None;
        next_ping = Instant::now() + keepalive.every;
        let (frames, end) = ready(socket, first);
        if !frames.is_empty() {
            let messages = frames.iter().map(|frame| match frame {
                // It was seen to be UTF-8.
                Message::Text(text) => reader.read_text(text),
                other => reader.read(&other.clone().into_data()),
            });
            let actions = protocol::plan(messages);
            drop(frames);
            let answers = work::perform(app, tenant, actions, Way::Socket).await;
            if !answers.is_empty() && !answer(socket, answers).await && end.is_none() {
                return End::Left;
            }
        }
        if let Some(end) = end {
            return end;
        }
        if app.shutdown.is_cancelled() {
            return End::Told(GOING_AWAY, "this process shuts down");
        }
    }
}

/// The frames that lie ready, up to a bound, and whether none come after them.
fn ready<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    first: Option<Result<Message, Error>>,
) -> (Vec<Message>, Option<End>) {
    let (mut frames, mut bytes) = (Vec::new(), 0);
    let mut next = first;
    loop {
        match next {
            Some(Ok(frame @ (Message::Text(_) | Message::Binary(_)))) => frames.push(frame),
            Some(Ok(_)) => {}
            None => return (frames, Some(End::Left)),
            Some(Err(error)) => {
                tracing::debug!(%error, "websocket ended");
                let end = match error {
                    Error::Capacity(_) => End::Told(TOO_BIG, "a message is larger than 16 MiB"),
                    Error::Protocol(_) => End::Told(1002, "not as RFC 6455 says"),
                    Error::Utf8(_) => End::Told(1007, "a text frame is no UTF-8"),
                    _ => End::Left,
                };
                return (frames, Some(end));
            }
        }
        bytes += frames.last().map_or(0, Message::len);
        if frames.len() >= FRAMES_AT_ONCE || bytes >= BYTES_AT_ONCE {
            return (frames, None);
        }
        next = match socket.next().now_or_never() {
            Some(frame) => frame,
            None => return (frames, None),
        };
    }
}

/// Sends answers. `false`: nobody takes them.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    answers: Vec<String>,
) -> bool {
    let sent = async {
        for answer in answers {
            socket.feed(Message::text(answer)).await?;
        }
        socket.flush().await
    };
    matches!(timeout(ANSWER_TIME, sent).await, Ok(Ok(())))
}
