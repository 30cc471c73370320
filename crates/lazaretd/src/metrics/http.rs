//! `GET /metrics`, and nothing else.
//!
//! One request per connection, few connections at a time, all of it within seconds: a client that is slow or silent
//! costs a place for that long, and never an answer to a container.

use super::Snapshot;
use super::address::Address;
use super::text::{CONTENT_TYPE, render};
use crate::socket::{self, Access, Afterwards, Place, SocketError};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE as CONTENT_TYPE_NAME, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
#[cfg(test)]
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// Connections at a time; others wait in the kernel.
const CONNECTIONS: usize = 16;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a whole connection may take.
const CONNECTION: Duration = Duration::from_secs(15);
/// Bytes of a request's head at most; the least that hyper takes.
const HEAD_BYTES: usize = 8192;
/// After a failure to accept (no descriptors), so that it is not tried in a circle.
const PAUSE: Duration = Duration::from_millis(100);

/// Metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    /// The socket is somebody else's, or cannot be made.
    #[error("cannot serve metrics")]
    Socket(#[from] SocketError),
    /// `bind(2)`, `listen(2)`, or the runtime did not take it.
    #[error("cannot serve metrics on {address}")]
    Bind {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A bound address.
#[derive(Debug)]
pub(crate) enum Bound {
    /// A socket that root alone reaches.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Held for its path.
        _claim: socket::Claim,
    },
    /// Loopback, unless the configuration said otherwise.
    Tcp(TcpListener),
}

impl Bound {
    /// Takes the address. Must run inside the runtime.
    ///
    /// # Errors
    /// When it is taken, or cannot be had.
    pub(crate) fn at(address: &Address) -> Result<Bound, ServeError> {
        let failed = |source| ServeError::Bind {
            address: address.clone(),
            source,
        };
        match address {
            Address::Unix(path) => {
                let access = Access::Own;
                let (listener, claim, _) = Place { path, access }
                    .lock()?
                    .listen(None, Afterwards::Removed)?;
                let listener = UnixListener::from_std(listener).map_err(failed)?;
                Ok(Bound::Unix {
                    listener,
                    _claim: claim,
                })
            }
            Address::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                TcpListener::from_std(listener)
                    .map(Bound::Tcp)
                    .map_err(failed)
            }
        }
    }

    /// The TCP address, with the port that was given for port 0.
    ///
    /// # Errors
    /// `Unsupported` for a Unix socket.
    #[cfg(test)]
    pub(crate) fn tcp_address(&self) -> io::Result<SocketAddr> {
        match self {
            Bound::Unix { .. } => Err(io::ErrorKind::Unsupported.into()),
            Bound::Tcp(listener) => listener.local_addr(),
        }
    }
}

/// Serves metrics for ever; `snapshot` is called for each scrape, and must not wait for anything.
pub(crate) async fn serve(bound: Bound, snapshot: impl Fn() -> Snapshot + Send + Sync + 'static) {
    let snapshot = Arc::new(snapshot);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // the semaphore is never closed
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let snapshot = Arc::clone(&snapshot);
        let accepted = match &bound {
            Bound::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    converse(stream, &*snapshot).await;
                    drop(place);
                })
            }),
            Bound::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    converse(stream, &*snapshot).await;
                    drop(place);
                })
            }),
        };
        if let Err(error) = accepted {
            tracing::debug!("metrics: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn converse<S>(stream: S, snapshot: &(impl Fn() -> Snapshot + Sync))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let response = answer(&request, snapshot);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("metrics: {error}"),
        Err(_) => tracing::debug!("metrics: a connection took longer than {CONNECTION:?}"),
    }
}

fn answer(request: &Request<Incoming>, snapshot: &impl Fn() -> Snapshot) -> Response<Full<Bytes>> {
    let says = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE_NAME, kind);
        response
    };
    if request.uri().path() != "/metrics" {
        return says(StatusCode::NOT_FOUND, "only /metrics is here\n");
    }
    if request.method() != Method::GET {
        let mut response = says(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        let allow = HeaderValue::from_static("GET");
        response.headers_mut().insert(ALLOW, allow);
        return response;
    }
    match render(snapshot()) {
        Ok(text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            let kind = HeaderValue::from_static(CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE_NAME, kind);
            response
        }
        Err(fmt_error) => {
            tracing::error!("metrics: {fmt_error}");
            says(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the figures cannot be written\n",
            )
        }
    }
}
