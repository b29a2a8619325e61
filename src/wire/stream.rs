//! A client's socket, in clear or under TLS, from its first byte on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// The bytes of a start-up packet that asks for TLS, and of one that asks for GSSAPI: length and
/// code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
/// The first byte of a TLS handshake: a client that does not ask first.
const HANDSHAKE: u8 = 0x16;

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket below, to see whether the client is still there.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The certificate that the client has shown and that was found good, in DER.
    pub fn client_certificate(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream
                .get_ref()
                .1
                .peer_certificates()?
                .first()
                .map(|c| c.to_vec()),
        }
    }
}

/// Answers what clients ask before the start-up packet. What comes back is the stream and the bytes
/// of that packet that have been read; nothing if the client went away.
///
/// TLS begins with whatever comes after the request: text that was sent after it in clear is no
/// handshake, and ends the connection.
pub(super) async fn negotiate(
    mut socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<Option<(Stream, Vec<u8>)>> {
    for _ in 0..3 {
        let mut first = [0];
        if socket.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        if first[0] == HANDSHAKE {
            let Some(tls) = tls else { return Ok(None) };
            let stream = TlsAcceptor::from(tls).accept(socket).await?;
            // Without the name of the protocol another one's client could be led here.
            if stream.get_ref().1.alpn_protocol() != Some(b"postgresql") {
                return Ok(None);
            }
            return Ok(Some((Stream::Tls(Box::new(stream)), Vec::new())));
        }
        let mut head = [0; 8];
        socket.read_exact(&mut head).await?;
        match (head, &tls) {
            (SSL_REQUEST, Some(tls)) => {
                socket.write_all(b"S").await?;
                let stream = TlsAcceptor::from(tls.clone()).accept(socket).await?;
                return Ok(Some((Stream::Tls(Box::new(stream)), Vec::new())));
            }
            (SSL_REQUEST | GSS_REQUEST, _) => socket.write_all(b"N").await?,
            _ => return Ok(Some((Stream::Plain(socket), head.to_vec()))),
        }
    }
    Ok(None)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
