//! One connection: frames that lie ready, and those that come right after others, are taken together, done, and answered; nothing more is read meanwhile, so a client that is faster than the store waits.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tailspan_core::{
    id::TenantId,
    live::protocol::{Action, GOING_AWAY, Message as Said, NO_PONG, Plan, Reader, TOO_BIG},
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
use tokio_util::sync::CancellationToken;

use crate::{
    Keepalive,
    work::{self, Way},
};

/// Frames, and bytes of them, that are taken together, about.
const FRAMES_AT_ONCE: usize = 1024;
const BYTES_AT_ONCE: usize = 1 << 20;
/// Spans and log records that come sooner than this after what was taken before are gathered for the rest of it: what is taken has a price of its own, that of dozens of spans
/// (`scripts/bench socket`, "one each millisecond"). Who looks on notices no such delay.
const GATHERED: Duration = Duration::from_millis(15);
/// Meanwhile it is looked this often what came: to wake up for each frame costs more than its span does. When nothing came, nothing more is waited for: a client may wait to see its span before it sends
/// the next one.
const LULL: Duration = Duration::from_millis(4);
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
    let mut gather_until = Instant::now();
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
        let taken = take(socket, &mut reader, first, gather_until, &app.shutdown);
        let (actions, end) = taken.await;
        gather_until = Instant::now() + GATHERED;
        if !actions.is_empty() {
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

/// What the frames ask for that lie ready, and while it is nothing but spans and log records those that go on to come until a moment, all up to a bound; and whether none come after them.
///
/// Each frame is read when it comes: its text is in the processor's cache then, and its memory is free for the next.
async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    reader: &mut Reader,
    first: Option<Result<Message, Error>>,
    gather_until: Instant,
    shutdown: &CancellationToken,
) -> (Vec<Action>, Option<End>) {
    let (mut plan, mut may_wait) = (Plan::default(), true);
    let (mut frames, mut bytes) = (0, 0);
    let mut next = first;
    loop {
        let frame = match next {
            Some(Ok(frame)) => frame,
            None => return (plan.finish(), Some(End::Left)),
            Some(Err(error)) => return (plan.finish(), Some(end_of(&error))),
        };
        let message = match &frame {
            // It was seen to be UTF-8.
            Message::Text(text) => Some(reader.read_text(text)),
            Message::Binary(binary) => Some(reader.read(binary)),
            _ => None,
        };
        frames += 1;
        bytes += frame.len();
        if let Some(message) = message {
            may_wait &= matches!(message, Ok(Said::Item { .. }));
            plan.push(message);
        }
        if frames >= FRAMES_AT_ONCE || bytes >= BYTES_AT_ONCE {
            return (plan.finish(), None);
        }
        let mut ready = socket.next().now_or_never();
        if ready.is_none() && may_wait && Instant::now() < gather_until {
            let lull_until = Instant::now() + LULL;
            tokio::select! {
                () = sleep_until(lull_until.min(gather_until)) => {}
                () = shutdown.cancelled() => {}
            }
            ready = socket.next().now_or_never();
        }
        next = match ready {
            Some(frame) => frame,
            None => return (plan.finish(), None),
        };
    }
}

fn end_of(error: &Error) -> End {
    tracing::debug!(%error, "websocket ended");
    match error {
        Error::Capacity(_) => End::Told(TOO_BIG, "a message is larger than 16 MiB"),
        Error::Protocol(_) => End::Told(1002, "not as RFC 6455 says"),
        Error::Utf8(_) => End::Told(1007, "a text frame is no UTF-8"),
        _ => End::Left,
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
