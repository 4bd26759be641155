//! The public door: axum-server with limits on headers, silence and the number of connections. Plain `axum::serve` has
//! no header timeout and keeps half-sent requests for ever.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use axum_server::{Handle, accept::Accept};
use hyper_util::rt::TokioTimer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tracing::warn;

/// Longest until the headers of a request are there, and longest silence between two requests.
const HEADERS: Duration = Duration::from_secs(5);
/// Most bytes of headers, and of a body that wait to be read.
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest that a peer may take nothing of an answer that waits for it.
const UNREAD: Duration = Duration::from_secs(30);
/// Most connections at once; one more is closed unanswered.
const CONNECTIONS: usize = 4096;

/// Serves `router` until `handle` says stop.
pub(crate) async fn open(listener: TcpListener, handle: Handle<SocketAddr>, router: Router) -> io::Result<()> {
    let doorkeeper = Doorkeeper { handle: handle.clone() };
    // HTTP/1 only as long as the door is plain: without TLS nobody asks for HTTP/2, and telling the two apart waits for
    // bytes without a limit. `http1_only` after `acceptor`, which forgets it (axum-server 0.8).
    let mut server = axum_server::from_tcp(listener)?.handle(handle).acceptor(doorkeeper).http1_only();
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER_BYTES);
    server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Counts connections, and gives each a limit on how long it may leave an answer unread.
#[derive(Clone)]
struct Doorkeeper {
    handle: Handle<SocketAddr>,
}

impl<S> Accept<TcpStream, S> for Doorkeeper {
    type Stream = Guarded;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Guarded, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        // This connection is counted already.
        let connections = self.handle.connection_count();
        if connections > CONNECTIONS {
            warn!("connection {connections} is one too many and was closed");
            return std::future::ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        // Small answers must not wait for the acknowledgement of the last.
        let guarded = stream.set_nodelay(true).map(|()| Guarded { stream, deadline: None });
        std::future::ready(guarded.map(|g| (g, service)))
    }
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
