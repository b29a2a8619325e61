//! The HTTP client of object stores: patient with slow links, impatient with silence, and plain
//! about what went wrong.
//!
//! object_store's own client knows one time for a whole request, so a large file on a slow link
//! never arrives, and a store that hangs is noticed after minutes. Here a request may take as long
//! as it moves: what ends it is that nothing was sent or received for a while. Why a connection
//! failed stands deep in the sources of the client's error, where nobody looks; here it is the
//! message.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions, Result as StoreResult};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, RETRY_AFTER};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, timeout};

/// How long neither side may be silent while a request is under way.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A body is sent in pieces of this size, so that each counts as progress, bytes.
const PIECE_BYTES: usize = 64 << 10;
/// The longest wait that a store's Retry-After is granted before its answer is passed on. Who asks
/// for more meets the pauses of the job.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// Makes the clients of one location.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// Certificates of authorities that are trusted besides the system's.
    pub authorities: Vec<reqwest::Certificate>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> StoreResult<HttpClient> {
        // The identity of a machine is asked for by HTTP, whatever the store speaks.
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let allow_http = allow_http.is_some_and(|value| value == "true");
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("starkeep/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME_MAX)
            .https_only(!allow_http)
            // Where a store sends on to is not what was allowed.
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            // The length of an object is that of its bytes as they are kept.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate();
        for authority in &self.authorities {
            builder = builder.add_root_certificate(authority.clone());
        }
        let client = builder.build().map_err(|e| object_store::Error::Generic {
            store: "HTTP",
            source: Box::new(Told::of(&e)),
        })?;
        Ok(HttpClient::new(Service {
            client,
            silence_max: SILENCE_MAX,
        }))
    }
}

#[derive(Debug)]
struct Service {
    client: reqwest::Client,
    silence_max: Duration,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string();
        let url = url
            .parse()
            .map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        let mut sent = reqwest::Request::new(parts.method, url);
        *sent.headers_mut() = parts.headers;
        let (moved, progress) = watch::channel(());
        let length = body.content_length();
        if length > 0 {
            if !sent.headers().contains_key(CONTENT_LENGTH) {
                sent.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            let pieces = body
                .into_data_stream()
                .map_ok(|data| futures::stream::iter(pieces_of(data)).map(Ok::<_, HttpError>))
                .try_flatten()
                .inspect(move |_| {
                    moved.send_replace(());
                });
            *sent.body_mut() = Some(reqwest::Body::wrap_stream(pieces));
        } else {
            *sent.body_mut() = Some(reqwest::Body::from(Bytes::new()));
        }
        let answer = tokio::select! {
            answer = self.client.execute(sent) => answer.map_err(told)?,
            silent = silence(progress, self.silence_max) => return Err(silent),
        };
        let (parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        if let Some(wait) = asked_to_wait(parts.status, &parts.headers) {
            sleep(wait).await;
        }
        let body = Awaited {
            body,
            silence_max: self.silence_max,
            silence: Box::pin(sleep(self.silence_max)),
        };
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

fn pieces_of(mut data: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(data.len().div_ceil(PIECE_BYTES));
    while !data.is_empty() {
        pieces.push(data.split_to(data.len().min(PIECE_BYTES)));
    }
    pieces
}

/// Waits until nothing has moved for so long.
async fn silence(mut progress: watch::Receiver<()>, most: Duration) -> HttpError {
    // Once everything is sent there is no more to come, and the answer has as long again.
    while let Ok(Ok(())) = timeout(most, progress.changed()).await {}
    if progress.has_changed().is_err() {
        sleep(most).await;
    }
    silent_for(most)
}

fn silent_for(time: Duration) -> HttpError {
    let message = format!(
        "nothing was sent or received for {} seconds",
        time.as_secs()
    );
    HttpError::new(HttpErrorKind::Timeout, Told(message))
}

#[expect(
    clippy::disallowed_methods,
    reason = "silence of a network is told by real time alone"
)]
fn sleep(time: Duration) -> Sleep {
    tokio::time::sleep(time)
}

/// How long a store that is too busy asks us to stay away.
fn asked_to_wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        return None;
    }
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Gives a store time to come to itself.
pub(super) async fn pause(time: Duration) {
    sleep(time).await;
}

/// A body whose next piece is not waited for longer than that.
#[derive(Debug)]
struct Awaited {
    body: reqwest::Body,
    silence_max: Duration,
    silence: Pin<Box<Sleep>>,
}

impl Body for Awaited {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let until = Instant::now() + self.silence_max;
            self.silence.as_mut().reset(until);
            return Poll::Ready(frame.map(|frame| frame.map_err(told)));
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(silent_for(self.silence_max))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An error of the client, its reason first.
#[derive(Debug)]
struct Told(String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Told {}

/// An error, and what it comes from.
fn sources(error: &reqwest::Error) -> Vec<&(dyn StdError + 'static)> {
    let mut all: Vec<&(dyn StdError + 'static)> = vec![error];
    while let Some(source) = all[all.len() - 1].source() {
        all.push(source);
    }
    all
}

impl Told {
    fn of(error: &reqwest::Error) -> Self {
        let reason = sources(error)
            .last()
            .map_or_else(String::new, ToString::to_string);
        if error.is_connect() {
            let hint = if reason.contains("InvalidContentType") {
                "; it does not speak TLS: say http:// in the endpoint, or enable_ssl = false"
            } else if reason.contains("UnknownIssuer") {
                "; the property ssl.ca names an authority of one's own"
            } else {
                ""
            };
            return Self(format!("no connection: {reason}{hint}"));
        }
        if error.is_timeout() {
            return Self(format!("no answer in time: {reason}"));
        }
        Self(reason)
    }
}

/// The kind says whether object_store tries again: what was not sent always, what was cut off if it
/// may be said twice.
fn told(error: reqwest::Error) -> HttpError {
    let mut kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else {
        HttpErrorKind::Unknown
    };
    for source in sources(&error).into_iter().skip(1) {
        if kind != HttpErrorKind::Unknown {
            break;
        }
        if let Some(e) = source.downcast_ref::<hyper::Error>() {
            if e.is_closed() || e.is_incomplete_message() || e.is_body_write_aborted() {
                kind = HttpErrorKind::Request;
            } else if e.is_timeout() {
                kind = HttpErrorKind::Timeout;
            }
        } else if let Some(e) = source.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind as Io;
            kind = match e.kind() {
                Io::TimedOut => HttpErrorKind::Timeout,
                Io::ConnectionAborted
                | Io::ConnectionReset
                | Io::BrokenPipe
                | Io::UnexpectedEof => HttpErrorKind::Interrupted,
                _ => kind,
            };
        }
    }
    HttpError::new(kind, Told::of(&error))
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const SILENCE: Duration = Duration::from_millis(400);
    /// Between two pieces: shorter than that, and all of them together longer.
    const PAUSE: Duration = Duration::from_millis(100);

    /// Asks a server that does this with the connection.
    async fn asked<F>(body: Bytes, serve: impl FnOnce(TcpStream) -> F) -> Result<Bytes, HttpError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let service = Service {
            client: reqwest::Client::new(),
            silence_max: SILENCE,
        };
        let request = http::Request::put(url)
            .body(HttpRequestBody::from(body))
            .expect("a request");
        let call = tokio::spawn(async move {
            let answer = service.call(request).await?;
            answer.into_body().bytes().await
        });
        let (socket, _) = listener.accept().await.expect("accepts");
        tokio::spawn(serve(socket));
        call.await.expect("no panic")
    }

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";

    #[tokio::test]
    async fn a_slow_answer_arrives() {
        let slow = asked(Bytes::new(), |mut socket| async move {
            let asked = socket.read(&mut [0; 1024]).await.expect("reads");
            assert!(asked > 0);
            socket.write_all(HEAD).await.expect("writes");
            for _ in 0..10 {
                sleep(PAUSE).await;
                socket.write_all(b"x").await.expect("writes");
            }
            std::future::pending().await
        });
        assert_eq!(slow.await.expect("arrives"), "xxxxxxxxxx");
    }

    #[tokio::test]
    async fn a_slow_request_arrives() {
        // More than the buffers on the way hold, in pieces that empty those soon.
        const PIECES: usize = 8;
        let mut piece = vec![0; 4 << 20];
        let slow = asked(
            Bytes::from(vec![7; PIECES * piece.len()]),
            move |mut socket| async move {
                for _ in 0..PIECES {
                    sleep(PAUSE).await;
                    socket.read_exact(&mut piece).await.expect("reads");
                }
                socket.write_all(HEAD).await.expect("writes");
                socket.write_all(b"0123456789").await.expect("writes");
                std::future::pending().await
            },
        );
        assert_eq!(slow.await.expect("arrives"), "0123456789");
    }

    #[tokio::test]
    async fn silence_is_an_error() {
        let before_the_head = asked(Bytes::new(), |socket| async move {
            let _open = socket;
            std::future::pending().await
        });
        let within_the_body = asked(Bytes::new(), |mut socket| async move {
            socket.write_all(HEAD).await.expect("writes");
            socket.write_all(b"x").await.expect("writes");
            std::future::pending().await
        });
        for silent in [before_the_head.await, within_the_body.await] {
            let error = silent.expect_err("nothing more comes");
            assert_eq!(error.kind(), HttpErrorKind::Timeout, "{error}");
            assert!(
                error.to_string().contains("nothing was sent or received"),
                "{error}"
            );
        }
    }
}
