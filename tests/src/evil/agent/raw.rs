//! HTTP/2 by hand, for what no library sends.

use std::io;

use consign_common::{
    digest::Sha256,
    tls::{self, COORDINATOR_NAME, Identity},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection on which every frame is ours.
pub(super) struct Raw {
    tls: TlsStream<TcpStream>,
    stream: u32,
}

impl Raw {
    pub(super) async fn connect(address: &str, identity: &Identity, ca: Sha256) -> io::Result<Self> {
        let config = tls::client_config(Some(identity), ca).map_err(io::Error::other)?;
        let name = COORDINATOR_NAME.try_into().map_err(io::Error::other)?;
        let mut tls = TlsConnector::from(config).connect(name, TcpStream::connect(address).await?).await?;
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let mut raw = Self { tls, stream: 1 };
        raw.frame(SETTINGS, 0, 0, &[]).await?;
        Ok(raw)
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.tls.write_all(&bytes).await
    }

    /// Begins a call of a method; the stream it is on.
    pub(super) async fn call(&mut self, path: &str) -> io::Result<u32> {
        let mut block = Vec::new();
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", COORDINATOR_NAME),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for (name, value) in fields {
            // A literal that nobody keeps, with a new name; no Huffman.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).map_err(io::Error::other)?);
                block.extend_from_slice(text.as_bytes());
            }
        }
        let stream = self.stream;
        self.stream += 2;
        self.frame(HEADERS, END_HEADERS, stream, &block).await?;
        Ok(stream)
    }

    /// The beginning of a gRPC message that claims this length, and then these bytes of it.
    pub(super) async fn message(&mut self, stream: u32, claimed: u32, bytes: &[u8]) -> io::Result<()> {
        let mut data = vec![0];
        data.extend(claimed.to_be_bytes());
        data.extend_from_slice(bytes);
        self.frame(DATA, 0, stream, &data).await
    }

    pub(super) async fn reset(&mut self, stream: u32) -> io::Result<()> {
        self.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).await
    }

    pub(super) async fn ping(&mut self) -> io::Result<()> {
        self.frame(PING, 0, 0, &[0; 8]).await
    }

    pub(super) async fn settings(&mut self) -> io::Result<()> {
        self.frame(SETTINGS, 0, 0, &[]).await
    }

    pub(super) async fn nothing(&mut self, stream: u32) -> io::Result<()> {
        self.frame(DATA, 0, stream, &[]).await
    }

    /// Headers without an end.
    pub(super) async fn open_headers(&mut self) -> io::Result<u32> {
        let stream = self.stream;
        self.stream += 2;
        self.frame(HEADERS, END_STREAM, stream, &[]).await?;
        Ok(stream)
    }

    pub(super) async fn more_headers(&mut self, stream: u32) -> io::Result<()> {
        let mut block = Vec::new();
        for _ in 0..200 {
            block.extend_from_slice(b"\0\x01x\x40");
            block.extend_from_slice(&[b'y'; 64]);
        }
        self.frame(CONTINUATION, 0, stream, &block).await
    }

    /// Reads until the other end has closed.
    pub(super) async fn closed(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.tls.read(&mut buffer).await, Ok(read) if read > 0) {}
    }
}
