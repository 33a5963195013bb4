//! Taking a body in: how large, how fast, and how much of it at the same time.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{CONTENT_LENGTH, EXPECT},
    },
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::{
    sync::Semaphore,
    time::{timeout, timeout_at},
};

use crate::error::ApiError;

/// A producer that takes longer to send its body is told to send it again.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A plain body up to this size is decoded where it is read; a larger one would hold up other requests on its thread.
const DECODED_AT_ONCE_BYTES: usize = 64 * 1024;

/// Of a refused body so much is still taken from the connection, and for so long.
const LET_PASS_BYTES: usize = 64 * 1024 * 1024;
const LET_PASS_TIME: Duration = Duration::from_secs(5);

/// Bounds of a process over all requests it is taking in.
#[derive(Debug)]
pub struct Intake {
    in_flight_bytes: Arc<AtomicUsize>,
    max_in_flight_bytes: usize,
    /// Large and packed bodies decoded at the same time: each may need many times its size.
    decoding: Arc<Semaphore>,
}

/// A part of the bytes in flight, given back when dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Intake {
    pub fn new(max_in_flight_bytes: usize) -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            in_flight_bytes: Arc::default(),
            max_in_flight_bytes,
            decoding: Arc::new(Semaphore::new(threads)),
        }
    }

    /// Reads a body. It counts as in flight for as long as its share is held.
    ///
    /// # Errors
    /// 413 beyond `limit` bytes; 429 when too much is in flight; 503 when it does not arrive in time; 400 when it breaks off.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<(Bytes, Share), ApiError> {
        let announced =
            header(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        let mut pieces = body.into_data_stream();
        let read = self.read_pieces(&mut pieces, announced, limit).await;
        // A client that asks first (`Expect: 100-continue`) has sent nothing yet; one that announces too much for that is cut.
        let may_rest = announced.is_none_or(|announced| announced <= LET_PASS_BYTES)
            && !headers.contains_key(EXPECT);
        if read.as_ref().is_err_and(is_for_its_size) && may_rest {
            let_pass(&mut pieces).await;
        }
        read
    }

    async fn read_pieces(
        &self,
        pieces: &mut BodyDataStream,
        announced: Option<usize>,
        limit: usize,
    ) -> Result<(Bytes, Share), ApiError> {
        if announced.is_some_and(|announced| announced > limit) {
            return Err(too_large(limit));
        }
        // By what has come and not by what is announced: an announcement costs its sender nothing.
        let mut share = self.share(0)?;
        let mut read = BytesMut::with_capacity(announced.unwrap_or(0).min(DECODED_AT_ONCE_BYTES));
        let deadline = tokio::time::Instant::now() + BODY_TIME;
        loop {
            let piece = timeout_at(deadline, pieces.next()).await.map_err(|_| {
                ApiError::unavailable(format!(
                    "the body did not arrive within {BODY_TIME:?}: send it again"
                ))
            })?;
            let Some(piece) = piece else {
                return Ok((read.freeze(), share));
            };
            let piece = piece.map_err(|_| {
                ApiError::invalid("invalid_body", "the body broke off before its end")
            })?;
            if read.len() + piece.len() > limit {
                return Err(too_large(limit));
            }
            read.extend_from_slice(&piece);
            if read.len() > share.bytes {
                self.grow(&mut share, read.len())?;
            }
        }
    }

    /// Takes a body from its connection that is refused for another reason than itself, and keeps nothing of it: a client that is cut while it sends sees a broken connection instead of the answer.
    pub async fn pass_over(headers: &HeaderMap, body: Body) {
        let announced =
            header(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        if announced.is_none_or(|announced| announced <= LET_PASS_BYTES)
            && !headers.contains_key(EXPECT)
        {
            let_pass(&mut body.into_data_stream()).await;
        }
    }

    /// Runs `decode` on a body: at once when it is small and plain, else on a thread for work, a few at a time.
    ///
    /// # Errors
    /// What `decode` says; 500 when it panicked.
    pub async fn decode<T, E>(
        &self,
        body: Bytes,
        is_packed: bool,
        decode: impl FnOnce(&[u8]) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<ApiError> + Send + 'static,
    {
        if !is_packed && body.len() <= DECODED_AT_ONCE_BYTES {
            decode(&body)
        } else {
            // Never closed, so never an error.
            let turn = Arc::clone(&self.decoding).acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                // Held by the work and not by the request: a producer that hangs up does not stop the work.
                let _turn = turn;
                decode(&body)
            })
            .await
            .unwrap_or_else(|error| {
                tracing::error!(%error, "failed to decode a body");
                Err(ApiError::internal().into())
            })
        }
    }

    /// A share that covers at least so many bytes.
    ///
    /// # Errors
    /// 429 when that is too much together with what is in flight.
    pub fn grow(&self, share: &mut Share, bytes: usize) -> Result<(), ApiError> {
        if bytes > share.bytes {
            let mut more = self.share(bytes - share.bytes)?;
            share.bytes += std::mem::take(&mut more.bytes);
        }
        Ok(())
    }

    fn share(&self, bytes: usize) -> Result<Share, ApiError> {
        let of = &self.in_flight_bytes;
        let taken = of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |in_flight| {
            in_flight
                .checked_add(bytes)
                .filter(|sum| *sum <= self.max_in_flight_bytes)
        });
        match taken {
            Ok(_) => Ok(Share {
                of: Arc::clone(of),
                bytes,
            }),
            Err(_) => Err(ApiError::too_many(
                "too many bytes are being taken in at this moment: send this again a little later",
            )),
        }
    }
}

/// Whether the body was given up although its client may still be sending.
fn is_for_its_size(error: &ApiError) -> bool {
    matches!(
        error.status,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS
    )
}

/// Takes the rest of a refused body and keeps nothing of it: a client that is cut while it sends sees a broken connection instead of the answer,
/// and many send the same again.
async fn let_pass(pieces: &mut BodyDataStream) {
    let mut left = LET_PASS_BYTES;
    let passing = async {
        while let Some(Ok(piece)) = pieces.next().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    let _ = timeout(LET_PASS_TIME, passing).await;
}

/// A header that is text.
pub fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn too_large(limit: usize) -> ApiError {
    let mut error = ApiError::too_large(format!(
        "the body is larger than {limit} bytes: send smaller batches"
    ));
    error.code = "body_too_large";
    error
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn a_body_counts_as_in_flight_until_its_share_is_dropped() {
        let intake = Intake::new(100);
        let read = async |bytes: &'static [u8]| {
            intake.read(&HeaderMap::new(), Body::from(bytes), 80).await
        };
        let (body, share) = read(&[7; 60]).await.unwrap();
        assert_eq!(body.len(), 60);
        let error = read(&[7; 60]).await.unwrap_err();
        assert_eq!(error.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(error.retry_after_seconds().is_some());
        drop(share);
        assert!(read(&[7; 60]).await.is_ok());
        assert_eq!(intake.in_flight_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_large_body_is_refused_by_what_it_announces_and_by_what_it_is() {
        let intake = Intake::new(1000);
        let announced = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(81))]);
        for (headers, bytes) in [(announced, &[][..]), (HeaderMap::new(), &[7; 81])] {
            let error = intake
                .read(&headers, Body::from(bytes), 80)
                .await
                .err()
                .unwrap();
            assert_eq!(
                (error.status, error.code),
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
            );
        }
        assert_eq!(intake.in_flight_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let intake = Intake::new(1000);
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = intake
            .read(&HeaderMap::new(), never, 80)
            .await
            .err()
            .unwrap();
        assert_eq!(error.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
