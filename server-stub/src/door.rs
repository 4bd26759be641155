//! The public door: HTTP/1 with limits on headers, silence and the number of connections. Plain `axum::serve` has no header
//! timeout and keeps half-sent requests for ever.
//!
//! HTTP/1 only as long as the door is plain: without TLS nobody asks for HTTP/2.

use std::{
    future::Future,
    io,
    net::TcpListener,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};
use tower_service::Service;
use tracing::{debug, warn};

/// Longest until the headers of a request are there, and longest silence between two requests.
const HEADERS: Duration = Duration::from_secs(5);
/// Most bytes of headers, and of a body that wait to be read.
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest that a peer may take nothing of an answer that waits for it.
const UNREAD: Duration = Duration::from_secs(30);
/// Most connections at once; one more is closed unanswered.
const CONNECTIONS: usize = 4096;
/// Pause after a connection could not be taken: as a rule there are no file descriptors left, and some come back.
const NOT_TAKEN: Duration = Duration::from_millis(200);

/// A door that is open.
pub(crate) struct Door {
    stop: watch::Sender<bool>,
    connections: Arc<AtomicUsize>,
}

impl Door {
    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Takes no new connections from now on.
    pub(crate) fn close(&self) {
        self.stop.send_replace(true);
    }
}

/// A door, and what serves `router` at it until it is closed; then requests under way have `drain` to finish.
pub(crate) fn open(listener: TcpListener, router: Router, drain: Duration) -> (Door, impl Future<Output = io::Result<()>>) {
    let (stop, stopped) = watch::channel(false);
    let door = Door { stop, connections: Arc::default() };
    let serving = serve(listener, router, drain, stopped, door.connections.clone());
    (door, serving)
}

async fn serve(
    listener: TcpListener,
    router: Router,
    drain: Duration,
    mut stopped: watch::Receiver<bool>,
    count: Arc<AtomicUsize>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER_BYTES);
    let graceful = GracefulShutdown::new();
    let mut open = JoinSet::new();
    loop {
        count.store(open.len(), Ordering::Relaxed);
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("a connection could not be taken: {error}");
                sleep(NOT_TAKEN).await;
                continue;
            }
        };
        if open.len() >= CONNECTIONS {
            warn!("connection {} is one too many and was closed", open.len() + 1);
            continue;
        }
        // Small answers must not wait for the acknowledgement of the last.
        if let Err(error) = stream.set_nodelay(true) {
            debug!("{peer} went away at once: {error}");
            continue;
        }
        let router = router.clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().call(request)
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(Guarded { stream, deadline: None }), answer));
        open.spawn(async move {
            if let Err(error) = connection.await {
                debug!("the connection of {peer} ended: {error}");
            }
        });
    }
    drop(listener);
    // Who is not done by then is cut off with the set.
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        warn!("{} connections were cut off after {drain:?}", open.len());
    }
    Ok(())
}

/// A connection that breaks when its peer takes nothing for [`UNREAD`].
struct Guarded {
    stream: TcpStream,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    /// Passes on what writing came to, and starts or stops the clock.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(UNREAD)));
        ready!(deadline.as_mut().poll(cx));
        deadline.as_mut().reset(Instant::now() + UNREAD);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
